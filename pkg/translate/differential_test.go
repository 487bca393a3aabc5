package translate_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"otelmetricsplugin/internal/otlp"
	"otelmetricsplugin/pkg/translate"
)

// FuzzTranslate plays sequences of expositions, which the bytes are dice for,
// to the translator and to the reference.
func FuzzTranslate(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(randomBytes(seed, 600))
	}
	f.Fuzz(func(t *testing.T, bytes []byte) {
		if len(bytes) > 1<<14 {
			return
		}
		compareSequence(t, bytes)
	})
}

// TestRandomExpositionsAreTranslatedAsTheReferenceDoes is FuzzTranslate without
// a fuzzer: the same sequences every time.
func TestRandomExpositionsAreTranslatedAsTheReferenceDoes(t *testing.T) {
	n := uint64(1500)
	if testing.Short() {
		n = 300
	}
	for seed := range n {
		compareSequence(t, randomBytes(seed, 50+int(seed%40)*100))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// FuzzTranslateBytes takes the bytes as an exposition, in protobuf and in text.
// Whatever they are, the parts of the request are whole; where they can be
// decoded, they are the reference's.
func FuzzTranslateBytes(f *testing.F) {
	add := func(families ...*dto.MetricFamily) {
		f.Add(encode(f, families...))
	}
	// Whole pages are slow to mutate: take their families one by one, with the
	// first metrics of each, in both formats.
	for _, name := range []string{"2010-baseline.pb", "2010-active.pb", "297-active.pb"} {
		for _, mf := range recorded(f, name) {
			mf.Metric = mf.Metric[:min(2, len(mf.Metric))]
			add(mf)
			var b bytes.Buffer
			if _, err := expfmt.MetricFamilyToText(&b, mf); err != nil {
				f.Fatal(err)
			}
			f.Add(b.Bytes())
		}
	}
	for _, families := range edgeCases() {
		add(families...)
	}
	for _, page := range foreignPages(f) {
		f.Add(page)
	}
	for seed := range uint64(20) {
		s := newSequence(randomBytes(seed, 600))
		add(s.exposition()...)
	}
	f.Add([]byte("# TYPE a histogram\na_bucket{le=\"NaN\"} 1\na_count NaN\na_bucket{le=\"1\"} 1e300\na 5 -1\n"))
	f.Add([]byte("# TYPE a counter\n# UNIT a seconds\na{l=\"\",otel_scope_name=\"\xc3\xbc\"} -Inf 9223372036854775807\na NaN\n"))
	f.Add([]byte("process_start_time_seconds 1e300\ntarget_info{a=\"b\"} 1\nengine_daemon_engine_info{os=\"x\"} 1\n"))

	f.Fuzz(func(t *testing.T, exposition []byte) {
		if len(exposition) > 1<<20 {
			return
		}
		compareBytes(t, exposition)
		if families, _ := decodeText(exposition); len(families) > 0 { // what came before an error is a page, too
			compareBytes(t, encode(t, families...))
		}
	})
}

// TestDamagedExpositionsAreTranslatedAsTheReferenceDoes is FuzzTranslateBytes
// without a fuzzer: random expositions, some bytes of which are others.
func TestDamagedExpositionsAreTranslatedAsTheReferenceDoes(t *testing.T) {
	n := uint64(800)
	if testing.Short() {
		n = 100
	}
	decodable := 0
	for seed := range n {
		s := newSequence(randomBytes(seed, 400))
		exposition := encode(t, s.exposition()...)
		r := rand.New(rand.NewPCG(seed, 0))
		for range 1 + r.IntN(4) {
			if len(exposition) > 0 {
				exposition[r.IntN(len(exposition))] ^= 1 << r.IntN(8)
			}
		}
		if _, err := decodeProto(exposition); err == nil {
			decodable++
		}
		compareBytes(t, exposition)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if decodable < int(n)/10 {
		t.Errorf("only %d of %d can be decoded", decodable, n)
	}
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

// compareBytes translates an exposition, its second half, nothing, and all of
// it again.
func compareBytes(t *testing.T, exposition []byte) {
	families, err := decodeProto(exposition)
	var half []byte
	if err == nil {
		half = encode(t, families[len(families)/2:]...)
	} else {
		half = exposition[len(exposition)/2:]
	}
	for _, selector := range []sdkmetric.TemporalitySelector{nil, sdkmetric.DeltaTemporalitySelector} {
		cfg := translate.Config{Version: "v1", Temporality: selector}
		p := newPair(cfg, 300)
		for i, exposition := range [][]byte{exposition, half, nil, exposition} {
			now := at(float64(10 * (i + 1)))
			before := allocated()
			if i == 2 {
				p.missed(t, now, err == nil)
			} else {
				p.translate(t, exposition, now, err == nil)
			}
			if n := allocated() - before; err != nil && n > 64<<20 {
				t.Fatalf("translating %d bytes that cannot be decoded allocated %d MiB", len(exposition), n>>20)
			}
		}
	}
}

// compareSequence plays a sequence of expositions.
func compareSequence(t *testing.T, bytes []byte) {
	s := newSequence(bytes)
	p := newPair(s.config, s.limit)
	for range 1 + s.dice.roll(5) {
		s.now = s.now.Add(time.Duration(s.dice.roll(40)) * 500 * time.Millisecond)
		if s.dice.roll(6) == 1 {
			p.missed(t, s.now, true)
		} else {
			p.translate(t, encode(t, s.exposition()...), s.now, true)
		}
		if t.Failed() {
			return
		}
	}
}

// pair is the translator, once with whole requests and once with small parts,
// and the reference.
type pair struct {
	whole, parts *translate.Translator
	reference    *reference
	limit        int
}

func newPair(cfg translate.Config, limit int) *pair {
	return &pair{translate.New(cfg), translate.New(cfg), newReference(cfg), limit}
}

func (p *pair) translate(t *testing.T, exposition []byte, at time.Time, decodes bool) {
	t.Helper()
	given := slices.Clone(exposition)
	want := func() (*colmetricpb.ExportMetricsServiceRequest, translate.Result) {
		families, err := decodeProto(exposition)
		if err != nil {
			t.Fatal(err)
		}
		return p.reference.translate(families, at)
	}
	if !decodes {
		want = nil
	}
	p.compare(t, func(tr *translate.Translator, w *otlp.Writer) translate.Result {
		return tr.Translate(exposition, at, w)
	}, want)
	if !bytes.Equal(given, exposition) {
		t.Error("the exposition was changed")
	}
	if t.Failed() && decodes {
		families, _ := decodeProto(exposition)
		var b strings.Builder
		for _, mf := range families {
			b.WriteString(prototext.Format(mf) + "\n")
		}
		t.Logf("at %s:\n%.4000s", renderTime(uint64(at.UnixNano())), b.String())
	}
}

func (p *pair) missed(t *testing.T, at time.Time, decodes bool) {
	t.Helper()
	want := func() (*colmetricpb.ExportMetricsServiceRequest, translate.Result) { return p.reference.missed(at) }
	if !decodes {
		want = nil
	}
	p.compare(t, func(tr *translate.Translator, w *otlp.Writer) translate.Result { return tr.Missed(at, w) }, want)
}

// compare compares the whole request with that of the reference, nil if there
// is none, and the small parts with the whole.
func (p *pair) compare(t *testing.T, write func(*translate.Translator, *otlp.Writer) translate.Result,
	reference func() (*colmetricpb.ExportMetricsServiceRequest, translate.Result),
) {
	t.Helper()
	whole := translated{request: &colmetricpb.ExportMetricsServiceRequest{}}
	w := otlp.NewWriter(math.MaxInt, func(request []byte, points int) { readPart(t, whole.request, request, points) })
	whole.Result = write(p.whole, w)
	w.Close()
	if _, err := pointsOf(whole.request); err != nil {
		t.Error(err)
	}
	if reference != nil {
		request, result := reference()
		compareRequests(t, "the reference", whole.request, request)
		if got, want := fmt.Sprintf("%+v", whole.Result), fmt.Sprintf("%+v", result); got != want {
			t.Errorf("result %s, want the reference's: %s", got, want)
		}
	}
	var parts []*colmetricpb.ExportMetricsServiceRequest
	w = otlp.NewWriter(p.limit, func(request []byte, points int) {
		part := &colmetricpb.ExportMetricsServiceRequest{}
		readPart(t, part, request, points)
		if len(request) > p.limit && points > 1 {
			t.Errorf("a part of %d bytes with %d points, the limit is %d", len(request), points, p.limit)
		}
		parts = append(parts, part)
	})
	result := write(p.parts, w)
	w.Close()
	compareRequests(t, "the whole", join(parts), whole.request)
	if fmt.Sprint(result) != fmt.Sprint(whole.Result) {
		t.Errorf("in parts the result is %+v, else %+v", result, whole.Result)
	}
}

func readPart(t *testing.T, into *colmetricpb.ExportMetricsServiceRequest, part []byte, points int) {
	t.Helper()
	if countPoints(into) > 0 {
		t.Error("a second part")
	}
	if err := proto.Unmarshal(part, into); err != nil {
		t.Errorf("a part cannot be read: %v", err)
	}
	if n := countPoints(into); n != points || n == 0 {
		t.Errorf("a part of %d points was emitted as one of %d", n, points)
	}
}

func compareRequests(t *testing.T, name string, got, want *colmetricpb.ExportMetricsServiceRequest) {
	t.Helper()
	if proto.Equal(got, want) {
		return
	}
	a, b := prototext.Format(got), prototext.Format(want)
	if g, w := render(got), render(want); g != w {
		a, b = g, w
	}
	t.Errorf("got what is not %s's: %s", name, firstDifference(a, b))
}

// join joins parts to the request that they are parts of: of two neighbours of
// one scope, metrics follow each other, of one metric, points.
func join(parts []*colmetricpb.ExportMetricsServiceRequest) *colmetricpb.ExportMetricsServiceRequest {
	whole := &colmetricpb.ExportMetricsServiceRequest{}
	for _, part := range parts {
		for _, rm := range part.ResourceMetrics {
			last := len(whole.ResourceMetrics) - 1
			if last < 0 || !proto.Equal(whole.ResourceMetrics[last].Resource, rm.Resource) {
				whole.ResourceMetrics = append(whole.ResourceMetrics, rm)
				continue
			}
			for _, sm := range rm.ScopeMetrics {
				joinScope(whole.ResourceMetrics[last], sm)
			}
		}
	}
	return whole
}

func joinScope(rm *metricpb.ResourceMetrics, sm *metricpb.ScopeMetrics) {
	last := rm.ScopeMetrics[len(rm.ScopeMetrics)-1]
	if !proto.Equal(last.Scope, sm.Scope) || last.SchemaUrl != sm.SchemaUrl {
		rm.ScopeMetrics = append(rm.ScopeMetrics, sm)
		return
	}
	for _, m := range sm.Metrics {
		before := last.Metrics[len(last.Metrics)-1]
		if before.Name != m.Name || fmt.Sprintf("%T", before.Data) != fmt.Sprintf("%T", m.Data) {
			last.Metrics = append(last.Metrics, m)
			continue
		}
		switch d := m.Data.(type) {
		case *metricpb.Metric_Gauge:
			before.GetGauge().DataPoints = append(before.GetGauge().DataPoints, d.Gauge.DataPoints...)
		case *metricpb.Metric_Sum:
			before.GetSum().DataPoints = append(before.GetSum().DataPoints, d.Sum.DataPoints...)
		case *metricpb.Metric_Histogram:
			before.GetHistogram().DataPoints = append(before.GetHistogram().DataPoints, d.Histogram.DataPoints...)
		case *metricpb.Metric_ExponentialHistogram:
			before.GetExponentialHistogram().DataPoints = append(before.GetExponentialHistogram().DataPoints, d.ExponentialHistogram.DataPoints...)
		case *metricpb.Metric_Summary:
			before.GetSummary().DataPoints = append(before.GetSummary().DataPoints, d.Summary.DataPoints...)
		}
	}
}

// dice are bytes that decide. When there are none left, all is 0.
type dice struct{ bytes []byte }

func (d *dice) roll(n int) int {
	if len(d.bytes) == 0 {
		return 0
	}
	v := int(d.bytes[0])
	d.bytes = d.bytes[1:]
	return v % n
}

// rarely is true once in n times, and never when there are no bytes left.
func (d *dice) rarely(n int) bool { return d.roll(n) == 1 }

func pick[T any](d *dice, list ...T) T { return list[d.roll(len(list))] }

// sequence makes expositions that follow each other.
type sequence struct {
	dice   *dice
	config translate.Config
	limit  int
	now    time.Time
	last   []*dto.MetricFamily
}

func newSequence(bytes []byte) *sequence {
	d := &dice{bytes}
	s := &sequence{dice: d, now: epoch, limit: 150 + 8*d.roll(250)}
	s.config = translate.Config{
		Version: pick(d, "v1", ""),
		Temporality: pick(d, nil, sdkmetric.DeltaTemporalitySelector, sdkmetric.LowMemoryTemporalitySelector,
			sdkmetric.CumulativeTemporalitySelector, sdkmetric.DeltaTemporalitySelector),
	}
	if d.rarely(4) {
		s.config.Keep = func(name string) bool { return name != "b" && name != "" }
	}
	if d.rarely(3) {
		s.config.Defaults = []attribute.KeyValue{attribute.String("k", "default"), attribute.Int("n", 5), attribute.String("service.version", "0")}
		s.config.Resource = []attribute.KeyValue{attribute.String("z", "configured"), attribute.Bool("os.type", true)}
	}
	return s
}

// exposition returns the next exposition: mostly the last one, a little later.
func (s *sequence) exposition() []*dto.MetricFamily {
	d := s.dice
	var families []*dto.MetricFamily
	if !d.rarely(6) {
		for _, mf := range s.last {
			families = append(families, proto.CloneOf(mf))
		}
	}
	families = slices.DeleteFunc(families, func(*dto.MetricFamily) bool { return d.rarely(12) })
	for _, mf := range families {
		s.evolve(mf)
	}
	for range d.roll(5) {
		families = append(families, s.family())
	}
	if d.rarely(4) && len(families) > 1 { // not sorted
		i, j := d.roll(len(families)), d.roll(len(families))
		families[i], families[j] = families[j], families[i]
	}
	s.last = families
	return families
}

func (s *sequence) family() *dto.MetricFamily {
	d := s.dice
	mf := &dto.MetricFamily{Name: proto.String(pick(d, "a", "b", "c", "d", "a", "b", "process_start_time_seconds", "target_info",
		"engine_daemon_engine_info", "a", "b", "c", "", "x\xff"))}
	s.describe(mf)
	if mf.GetName() == "process_start_time_seconds" && !d.rarely(8) {
		mf.Type = dto.MetricType_GAUGE.Enum()
		mf.Metric = []*dto.Metric{{Gauge: &dto.Gauge{Value: proto.Float64(s.startOfProcess())}}}
		return mf
	}
	for range d.roll(6) {
		mf.Metric = append(mf.Metric, s.metric(mf.GetType()))
	}
	return mf
}

func (s *sequence) startOfProcess() float64 {
	return float64(s.now.Add(-time.Duration(s.dice.roll(60))*time.Second).UnixMilli()) / 1000
}

// describe gives a family its type and its texts.
func (s *sequence) describe(mf *dto.MetricFamily) {
	d := s.dice
	mf.Type = pick(d, dto.MetricType_COUNTER, dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE, dto.MetricType_HISTOGRAM,
		dto.MetricType_SUMMARY, dto.MetricType_UNTYPED, dto.MetricType_HISTOGRAM, dto.MetricType_COUNTER).Enum()
	if d.rarely(12) {
		mf.Type = dto.MetricType_GAUGE_HISTOGRAM.Enum()
	}
	if d.rarely(12) {
		mf.Type = nil
	}
	if d.rarely(3) {
		mf.Help = proto.String(pick(d, "help", "", "not \xff UTF-8", strings.Repeat("ä", 3000)))
	}
	if d.rarely(3) {
		mf.Unit = proto.String(pick(d, "seconds", "", "furlongs", "\xff", strings.Repeat("ä", 40)))
	}
}

// evolve lets time pass for a family.
func (s *sequence) evolve(mf *dto.MetricFamily) {
	d := s.dice
	if d.rarely(20) {
		s.describe(mf)
	}
	mf.Metric = slices.DeleteFunc(mf.Metric, func(*dto.Metric) bool { return d.rarely(12) })
	for i, m := range mf.Metric {
		switch {
		case mf.GetName() == "process_start_time_seconds" && m.GetGauge() != nil:
			if d.rarely(6) {
				m.Gauge.Value = proto.Float64(s.startOfProcess())
			}
		case d.rarely(15):
			mf.Metric[i] = s.metric(mf.GetType())
			mf.Metric[i].Label = m.Label
		default:
			s.grow(m)
		}
	}
	if d.rarely(8) {
		mf.Metric = append(mf.Metric, s.metric(mf.GetType()))
	}
	if d.rarely(8) && len(mf.Metric) > 1 {
		i, j := d.roll(len(mf.Metric)), d.roll(len(mf.Metric))
		mf.Metric[i], mf.Metric[j] = mf.Metric[j], mf.Metric[i]
	}
}

// grow lets a metric count on.
func (s *sequence) grow(m *dto.Metric) {
	d := s.dice
	if l := m.Label; d.rarely(8) && len(l) > 1 {
		l[0], l[1] = l[1], l[0]
	}
	if m.TimestampMs != nil {
		m.TimestampMs = s.timestamp()
	}
	more := uint64(d.roll(8))
	if c := m.Counter; c != nil {
		c.Value = proto.Float64(c.GetValue() + float64(more))
		c.CreatedTimestamp = s.moved(c.CreatedTimestamp)
		c.Exemplar = s.exemplar()
	}
	if g := m.Gauge; g != nil {
		g.Value = s.number()
	}
	if u := m.Summary; u != nil {
		u.CreatedTimestamp = s.moved(u.CreatedTimestamp)
		if u.SampleCount != nil {
			*u.SampleCount += more
		}
	}
	h := m.Histogram
	if h == nil {
		return
	}
	h.CreatedTimestamp = s.moved(h.CreatedTimestamp)
	if h.SampleCount != nil {
		*h.SampleCount += more
	}
	if h.SampleSum != nil {
		*h.SampleSum += float64(more)
	}
	for i, b := range h.Bucket {
		if b.CumulativeCount != nil && i >= len(h.Bucket)/2 {
			*b.CumulativeCount += more
		}
		if d.rarely(6) {
			b.Exemplar = s.exemplar()
		}
	}
	if d.rarely(10) && len(h.Bucket) > 0 {
		i := d.roll(len(h.Bucket))
		h.Bucket = slices.Delete(h.Bucket, i, i+1)
	}
	for _, deltas := range [][]int64{h.PositiveDelta, h.NegativeDelta} {
		if len(deltas) > 0 {
			deltas[d.roll(len(deltas))] += int64(more)
		}
	}
	if h.ZeroCount != nil {
		*h.ZeroCount += uint64(d.roll(2))
	}
	if d.rarely(8) { // the source merges buckets
		h.ZeroThreshold = proto.Float64(h.GetZeroThreshold() * 4)
		h.Schema = proto.Int32(h.GetSchema() - int32(d.roll(2)))
		*h = dto.Histogram{
			SampleCount: h.SampleCount, SampleSum: h.SampleSum, Bucket: h.Bucket, CreatedTimestamp: h.CreatedTimestamp,
			Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, ZeroCount: proto.Uint64(h.GetZeroCount() + more),
			PositiveSpan: spans(0, 2), PositiveDelta: []int64{int64(20 + more), int64(d.roll(9)) - 4},
		}
	}
}

// moved returns a created timestamp that follows ts.
func (s *sequence) moved(ts *timestamppb.Timestamp) *timestamppb.Timestamp {
	d := s.dice
	switch {
	case d.rarely(8):
		return s.created()
	case ts == nil || !d.rarely(4):
		return ts
	default: // it jitters
		return timestamppb.New(ts.AsTime().Add(time.Duration(d.roll(30)-15) * 100 * time.Millisecond))
	}
}

func (s *sequence) created() *timestamppb.Timestamp {
	d := s.dice
	switch d.roll(8) {
	case 0, 1, 2:
		return nil
	case 3:
		return pick(d, &timestamppb.Timestamp{}, &timestamppb.Timestamp{Seconds: -1}, &timestamppb.Timestamp{Nanos: -5},
			&timestamppb.Timestamp{Seconds: math.MaxInt64}, &timestamppb.Timestamp{Seconds: 5, Nanos: math.MaxInt32})
	default:
		return timestamppb.New(s.now.Add(time.Duration(d.roll(60)-50) * time.Second))
	}
}

func (s *sequence) timestamp() *int64 {
	d := s.dice
	if d.rarely(8) {
		return proto.Int64(pick[int64](d, 0, -1, math.MaxInt64, math.MinInt64, 9223372036854, 9223372036855))
	}
	return proto.Int64(s.now.Add(time.Duration(d.roll(60)-50) * time.Second).UnixMilli())
}

func (s *sequence) number() *float64 {
	d := s.dice
	v := float64(d.roll(100))
	if d.rarely(6) {
		v = pick(d, nan, inf, -inf, staleNaN, -1, math.Copysign(0, -1), 0, math.Float64frombits(0x7ff0000000000003), math.MaxFloat64, 0.1)
	}
	if d.rarely(20) {
		return nil
	}
	return &v
}

func (s *sequence) labels() (list []*dto.LabelPair) {
	d := s.dice
	for range d.roll(4) {
		l := &dto.LabelPair{
			Name:  proto.String(pick(d, "l", "m", "n", "l", "m", "version", "daemon_id", "otel_scope_name", "otel_scope_version", "otel_scope_x", "architecture")),
			Value: proto.String(pick(d, "1", "2", "3", "", "v1", translate.ScopeName, "x86_64", "ü")),
		}
		switch {
		case d.rarely(40):
			l.Name = pick(d, nil, proto.String(""), proto.String("\xff"), proto.String("otel_scope_"), proto.String("otel_scope_schema_url"))
		case d.rarely(40):
			l.Value = pick(d, nil, proto.String("\xff"))
		}
		list = append(list, l)
	}
	return list
}

func (s *sequence) metric(typ dto.MetricType) *dto.Metric {
	d := s.dice
	m := &dto.Metric{Label: s.labels()}
	if d.rarely(6) {
		m.TimestampMs = s.timestamp()
	}
	if d.rarely(20) {
		typ = pick(d, dto.MetricType_COUNTER, dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE, dto.MetricType_SUMMARY)
	}
	if d.rarely(20) {
		return m
	}
	switch typ {
	case dto.MetricType_COUNTER:
		m.Counter = &dto.Counter{Value: s.number(), CreatedTimestamp: s.created(), Exemplar: s.exemplar()}
	case dto.MetricType_GAUGE:
		m.Gauge = &dto.Gauge{Value: s.number()}
	case dto.MetricType_UNTYPED:
		m.Untyped = &dto.Untyped{Value: s.number()}
	case dto.MetricType_SUMMARY:
		m.Summary = s.summary()
	default:
		m.Histogram = s.histogram()
	}
	return m
}

func (s *sequence) summary() *dto.Summary {
	d := s.dice
	u := &dto.Summary{SampleCount: s.count(), SampleSum: s.number(), CreatedTimestamp: s.created()}
	for range d.roll(4) {
		u.Quantile = append(u.Quantile, &dto.Quantile{
			Quantile: proto.Float64(pick(d, 0, 0.5, 0.9, 1, 0.99, 0.5, 0.9, 0.999, 0.25, 0.75, 0.1, -0.1, 2, nan)), Value: s.number(),
		})
	}
	return u
}

func (s *sequence) count() *uint64 {
	d := s.dice
	if d.rarely(12) {
		return pick(d, nil, proto.Uint64(math.MaxUint64), proto.Uint64(1<<63), proto.Uint64(0))
	}
	return proto.Uint64(uint64(20 + d.roll(100)))
}

func (s *sequence) histogram() *dto.Histogram {
	d := s.dice
	h := &dto.Histogram{SampleCount: s.count(), SampleSum: s.number(), CreatedTimestamp: s.created()}
	kind := d.roll(4)
	if kind < 3 {
		n := uint64(0)
		bound := float64(d.roll(3))
		for range d.roll(6) {
			n += uint64(d.roll(5))
			b := &dto.Bucket{UpperBound: proto.Float64(bound), CumulativeCount: proto.Uint64(n)}
			bound += float64(d.roll(3))
			if d.rarely(25) {
				b.UpperBound = pick(d, &nan, &inf, nil, proto.Float64(-1))
			}
			if d.rarely(40) {
				b.CumulativeCountFloat = pick(d, proto.Float64(1), proto.Float64(0))
			}
			if d.rarely(5) {
				b.Exemplar = s.exemplar()
			}
			h.Bucket = append(h.Bucket, b)
		}
		if d.rarely(2) {
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &inf, CumulativeCount: h.SampleCount})
		}
		if d.rarely(30) {
			h.SampleCountFloat = s.number()
		}
	}
	if kind < 2 {
		return h
	}
	h.Schema = proto.Int32(int32(d.roll(5)))
	if d.rarely(15) {
		h.Schema = proto.Int32(pick[int32](d, -4, 8, -53, 9, -5, -2))
	}
	h.ZeroThreshold = proto.Float64(pick(d, 1e-128, 0.5, 1, 4, 0))
	if d.rarely(20) {
		h.ZeroThreshold = pick(d, &nan, &inf, proto.Float64(-1))
	}
	if d.rarely(2) {
		h.ZeroCount = proto.Uint64(uint64(d.roll(10)))
	}
	h.PositiveSpan, h.PositiveDelta = s.buckets()
	if d.rarely(3) {
		h.NegativeSpan, h.NegativeDelta = s.buckets()
	}
	if d.rarely(30) {
		h.PositiveCount, h.ZeroCountFloat = []float64{1}, s.number()
	}
	for range d.roll(3) {
		if e := s.exemplar(); e != nil {
			h.Exemplars = append(h.Exemplars, e)
		}
	}
	return h
}

// buckets returns native buckets.
func (s *sequence) buckets() (list []*dto.BucketSpan, deltas []int64) {
	d := s.dice
	var n int64
	for i := range d.roll(4) {
		offset, length := int32(d.roll(5)), int32(d.roll(4))
		if i == 0 {
			offset -= 2
		}
		if d.rarely(20) {
			offset = pick[int32](d, -3, 1<<30, 1<<14, math.MinInt32, math.MaxInt32, 1024, -1074)
		}
		list = append(list, spans(offset, length)...)
		for range length {
			delta := int64(d.roll(8)) - min(n, 3)
			if d.rarely(60) {
				delta = pick[int64](d, math.MaxInt64, math.MinInt64, -1)
			}
			deltas = append(deltas, delta)
			n += delta
		}
	}
	if d.rarely(30) {
		deltas = append(deltas, 1)
	}
	return list, deltas
}

func (s *sequence) exemplar() *dto.Exemplar {
	d := s.dice
	if !d.rarely(3) {
		return nil
	}
	e := &dto.Exemplar{Value: s.number()}
	if !d.rarely(4) {
		e.Timestamp = cmp.Or(s.created(), timestamppb.New(s.now.Add(-time.Duration(d.roll(20))*time.Second)))
	}
	for range d.roll(4) {
		e.Label = append(e.Label, labels(
			pick(d, "trace_id", "span_id", "k", "", "k\xff"),
			pick(d, "0102030405060708090a0b0c0d0e0f10", "0102030405060708", "v", "", "\xff", "0000000000000000", "XY02030405060708"))...)
	}
	return e
}

func firstDifference(a, b string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			from := max(0, i-400)
			return fmt.Sprintf("got:\n%s\n---\nwant:\n%s", a[from:min(len(a), i+200)], b[from:min(len(b), i+200)])
		}
	}
	return fmt.Sprintf("lengths %d and %d, got:\n%.2000s\n---\nwant:\n%.2000s", len(a), len(b), a[min(len(a), len(b)):], b[min(len(a), len(b)):])
}

// decodeProto decodes a page in the protobuf format. It does not use expfmt's
// decoder, which allocates whatever length a message claims to have.
func decodeProto(page []byte) ([]*dto.MetricFamily, error) {
	r := bytes.NewReader(page)
	opts := protodelim.UnmarshalOptions{MaxSize: int64(max(1, len(page)))} // 0 is no limit
	var families []*dto.MetricFamily
	for r.Len() > 0 {
		mf := &dto.MetricFamily{}
		if err := opts.UnmarshalFrom(r, mf); err != nil {
			return families, err
		}
		families = append(families, mf)
	}
	return families, nil
}
