package translate_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"otelmetricsplugin/internal/otlp"
	"otelmetricsplugin/pkg/translate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is second 0 of the tests' time.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at returns the time of the given second.
func at(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

// millis returns the given second as a Prometheus timestamp.
func millis(s float64) *int64 { return proto.Int64(at(s).UnixMilli()) }

// created returns the given second as a created timestamp.
func created(s float64) *timestamppb.Timestamp { return timestamppb.New(at(s)) }

// processStart returns a line of the text format that says when the process
// started.
func processStart(s float64) string {
	return fmt.Sprintf("process_start_time_seconds %.3f\n", float64(at(s).UnixMilli())/1000)
}

// text decodes a page in the text format, sorted by family.
func text(t testing.TB, page string) []*dto.MetricFamily {
	t.Helper()
	families, err := decodeText([]byte(page))
	if err != nil {
		t.Fatalf("decoding the text page: %v\n%s", err, page)
	}
	return families
}

func decodeText(page []byte) ([]*dto.MetricFamily, error) {
	p := expfmt.NewTextParser(model.UTF8Validation)
	byName, err := p.TextToMetricFamilies(bytes.NewReader(page))
	var families []*dto.MetricFamily
	for _, mf := range byName {
		families = append(families, mf)
	}
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return families, err
}

// recorded returns a page of a real engine.
func recorded(t testing.TB, name string) []*dto.MetricFamily {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("../../testdata/pages", name))
	if err != nil {
		t.Fatal(err)
	}
	decode := decodeText
	if strings.HasSuffix(name, ".pb") {
		decode = decodeProto
	}
	families, err := decode(page)
	if err != nil {
		t.Fatalf("decoding %s: %v", name, err)
	}
	return families
}

// What follows builds pages as the protobuf format has them.

func family(name string, typ dto.MetricType, metrics ...*dto.Metric) *dto.MetricFamily {
	return &dto.MetricFamily{Name: proto.String(name), Type: typ.Enum(), Metric: metrics}
}

func labels(pairs ...string) []*dto.LabelPair {
	var list []*dto.LabelPair
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, &dto.LabelPair{Name: proto.String(pairs[i]), Value: proto.String(pairs[i+1])})
	}
	return list
}

func counter(v float64, pairs ...string) *dto.Metric {
	return &dto.Metric{Label: labels(pairs...), Counter: &dto.Counter{Value: proto.Float64(v)}}
}

func gauge(v float64, pairs ...string) *dto.Metric {
	return &dto.Metric{Label: labels(pairs...), Gauge: &dto.Gauge{Value: proto.Float64(v)}}
}

func histogram(h *dto.Histogram, pairs ...string) *dto.Metric {
	return &dto.Metric{Label: labels(pairs...), Histogram: h}
}

func buckets(boundsAndCounts ...float64) []*dto.Bucket {
	var list []*dto.Bucket
	for i := 0; i < len(boundsAndCounts); i += 2 {
		list = append(list, &dto.Bucket{
			UpperBound: proto.Float64(boundsAndCounts[i]), CumulativeCount: proto.Uint64(uint64(boundsAndCounts[i+1])),
		})
	}
	return list
}

func spans(offsetsAndLengths ...int32) []*dto.BucketSpan {
	var list []*dto.BucketSpan
	for i := 0; i < len(offsetsAndLengths); i += 2 {
		list = append(list, &dto.BucketSpan{
			Offset: proto.Int32(offsetsAndLengths[i]), Length: proto.Uint32(uint32(offsetsAndLengths[i+1])),
		})
	}
	return list
}

// native returns a native histogram with positive buckets.
func native(schema int32, sum float64, zero uint64, spans []*dto.BucketSpan, deltas ...int64) *dto.Histogram {
	count := int64(zero)
	var n int64
	for _, d := range deltas {
		n += d
		count += n
	}
	return &dto.Histogram{
		SampleCount: proto.Uint64(uint64(count)), SampleSum: proto.Float64(sum),
		Schema: proto.Int32(schema), ZeroCount: proto.Uint64(zero), ZeroThreshold: proto.Float64(1e-128),
		PositiveSpan: spans, PositiveDelta: deltas,
	}
}

// encode encodes families as an exposition: delimited protobuf. Where a list
// has a nil, the exposition has an empty message.
func encode(t testing.TB, families ...*dto.MetricFamily) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, mf := range families {
		if _, err := protodelim.MarshalTo(&b, mf); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// translated is what became of an exposition.
type translated struct {
	translate.Result
	request *colmetricpb.ExportMetricsServiceRequest // empty if there are no points
}

// scopes returns the scopes with points.
func (r translated) scopes() []*metricpb.ScopeMetrics { return scopesOf(r.request) }

// implementation is the translator, or the reference.
type implementation interface {
	translate(t testing.TB, exposition []byte, at time.Time) translated
	missed(t testing.TB, at time.Time) translated
}

var implementations = map[string]func(translate.Config) implementation{
	"translator": newSubject,
	"reference":  newReferenceSubject,
}

// subject is the translator, whose request is unmarshalled.
type subject struct {
	translator *translate.Translator
	w          *otlp.Writer
}

func newSubject(cfg translate.Config) implementation {
	return &subject{translate.New(cfg), otlp.NewWriter(0, nil)}
}

func (s *subject) translate(t testing.TB, exposition []byte, at time.Time) translated {
	t.Helper()
	return s.written(t, func(w *otlp.Writer) translate.Result { return s.translator.Translate(exposition, at, w) })
}

func (s *subject) missed(t testing.TB, at time.Time) translated {
	t.Helper()
	return s.written(t, func(w *otlp.Writer) translate.Result { return s.translator.Missed(at, w) })
}

func (s *subject) written(t testing.TB, write func(*otlp.Writer) translate.Result) translated {
	t.Helper()
	r := translated{request: &colmetricpb.ExportMetricsServiceRequest{}}
	parts := 0
	s.w.Reset(math.MaxInt, func(request []byte, points int) {
		parts++
		if err := proto.Unmarshal(request, r.request); err != nil {
			t.Errorf("the request cannot be read: %v", err)
		}
		if n := countPoints(r.request); n != points || n == 0 {
			t.Errorf("emitted %d points as %d", n, points)
		}
	})
	r.Result = write(s.w)
	s.w.Close()
	if parts > 1 {
		t.Errorf("%d parts within the limit of one", parts)
	}
	return r
}

// referenceSubject is the reference, which decodes.
type referenceSubject struct{ *reference }

func newReferenceSubject(cfg translate.Config) implementation {
	return referenceSubject{newReference(cfg)}
}

func (s referenceSubject) translate(t testing.TB, exposition []byte, at time.Time) translated {
	t.Helper()
	families, err := decodeProto(exposition)
	if err != nil {
		t.Fatal(err)
	}
	request, result := s.reference.translate(families, at)
	return translated{result, request}
}

func (s referenceSubject) missed(_ testing.TB, at time.Time) translated {
	request, result := s.reference.missed(at)
	return translated{result, request}
}

func countPoints(req *colmetricpb.ExportMetricsServiceRequest) (n int) {
	for _, sm := range scopesOf(req) {
		for _, m := range sm.GetMetrics() {
			n += len(m.GetGauge().GetDataPoints()) + len(m.GetSum().GetDataPoints()) + len(m.GetHistogram().GetDataPoints()) +
				len(m.GetExponentialHistogram().GetDataPoints()) + len(m.GetSummary().GetDataPoints())
		}
	}
	return n
}

// translateOnce translates one exposition, at the given second, by a new
// translator.
func translateOnce(t testing.TB, cfg translate.Config, s float64, families ...*dto.MetricFamily) translated {
	t.Helper()
	return newSubject(cfg).translate(t, encode(t, families...), at(s))
}

// render shows a request, all that is in it, a line each for every scope,
// metric and point. The default scope goes without saying when it is the first
// one; times are seconds.
func render(req *colmetricpb.ExportMetricsServiceRequest) string {
	var b strings.Builder
	for _, rm := range req.GetResourceMetrics() {
		if attrs := rm.GetResource().GetAttributes(); len(attrs) > 0 {
			fmt.Fprintf(&b, "resource %s\n", renderAttrs(attrs))
		}
		for i, sm := range rm.GetScopeMetrics() {
			sc := sm.GetScope()
			if sc.GetName() != translate.ScopeName || sc.GetVersion() != "v1" || len(sc.GetAttributes()) > 0 || sm.GetSchemaUrl() != "" {
				fmt.Fprintf(&b, "scope %q %q %q %s\n", sc.GetName(), sc.GetVersion(), sm.GetSchemaUrl(), renderAttrs(sc.GetAttributes()))
			} else if i > 0 {
				fmt.Fprintln(&b, "default scope")
			}
			for _, m := range sm.GetMetrics() {
				renderMetric(&b, m)
			}
		}
	}
	return b.String()
}

func renderMetric(b *strings.Builder, m *metricpb.Metric) {
	fmt.Fprintf(b, "%s", m.GetName())
	for _, md := range m.GetMetadata() {
		fmt.Fprintf(b, " %s=%s", md.GetKey(), md.GetValue().GetStringValue())
	}
	if m.GetUnit() != "" {
		fmt.Fprintf(b, " unit=%s", m.GetUnit())
	}
	if m.GetDescription() != "" {
		fmt.Fprintf(b, " description=%q", m.GetDescription())
	}
	switch d := m.GetData().(type) {
	case *metricpb.Metric_Gauge:
		fmt.Fprintf(b, ": gauge\n")
		renderNumbers(b, d.Gauge.GetDataPoints())
	case *metricpb.Metric_Sum:
		fmt.Fprintf(b, ": %s sum\n", temporality(d.Sum.GetAggregationTemporality()))
		if !d.Sum.GetIsMonotonic() {
			fmt.Fprintf(b, "  not monotonic\n")
		}
		renderNumbers(b, d.Sum.GetDataPoints())
	case *metricpb.Metric_Histogram:
		fmt.Fprintf(b, ": %s histogram\n", temporality(d.Histogram.GetAggregationTemporality()))
		for _, p := range d.Histogram.GetDataPoints() {
			renderPoint(b, p.GetAttributes(), p.GetStartTimeUnixNano(), p.GetTimeUnixNano(), p.GetFlags())
			renderCount(b, p.GetCount(), p.Sum, p.Min, p.Max)
			fmt.Fprintf(b, " bounds=%v counts=%v", p.GetExplicitBounds(), p.GetBucketCounts())
			renderExemplars(b, p.GetExemplars())
		}
	case *metricpb.Metric_ExponentialHistogram:
		fmt.Fprintf(b, ": %s exponential histogram\n", temporality(d.ExponentialHistogram.GetAggregationTemporality()))
		for _, p := range d.ExponentialHistogram.GetDataPoints() {
			renderPoint(b, p.GetAttributes(), p.GetStartTimeUnixNano(), p.GetTimeUnixNano(), p.GetFlags())
			renderCount(b, p.GetCount(), p.Sum, p.Min, p.Max)
			fmt.Fprintf(b, " scale=%d zero=%d threshold=%g positive=%d%v negative=%d%v", p.GetScale(), p.GetZeroCount(), p.GetZeroThreshold(),
				p.GetPositive().GetOffset(), p.GetPositive().GetBucketCounts(),
				p.GetNegative().GetOffset(), p.GetNegative().GetBucketCounts())
			renderExemplars(b, p.GetExemplars())
		}
	case *metricpb.Metric_Summary:
		fmt.Fprintf(b, ": summary\n")
		for _, p := range d.Summary.GetDataPoints() {
			renderPoint(b, p.GetAttributes(), p.GetStartTimeUnixNano(), p.GetTimeUnixNano(), p.GetFlags())
			renderCount(b, p.GetCount(), &p.Sum, nil, nil)
			for _, q := range p.GetQuantileValues() {
				fmt.Fprintf(b, " q%g=%g", q.GetQuantile(), q.GetValue())
			}
			fmt.Fprintln(b)
		}
	default:
		fmt.Fprintf(b, ": %T\n", d)
	}
}

func temporality(t metricpb.AggregationTemporality) string {
	return strings.ToLower(strings.TrimPrefix(t.String(), "AGGREGATION_TEMPORALITY_"))
}

func renderNumbers(b *strings.Builder, points []*metricpb.NumberDataPoint) {
	for _, p := range points {
		renderPoint(b, p.GetAttributes(), p.GetStartTimeUnixNano(), p.GetTimeUnixNano(), p.GetFlags())
		switch v := p.GetValue().(type) {
		case *metricpb.NumberDataPoint_AsDouble:
			fmt.Fprintf(b, " %g", v.AsDouble)
		case nil:
		default:
			fmt.Fprintf(b, " %T", v)
		}
		renderExemplars(b, p.GetExemplars())
	}
}

func renderPoint(b *strings.Builder, attrs []*commonpb.KeyValue, start, ts uint64, flags uint32) {
	fmt.Fprintf(b, "  %s %s..%s", renderAttrs(attrs), renderTime(start), renderTime(ts))
	if flags == uint32(metricpb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) {
		fmt.Fprintf(b, " no recorded value")
	} else if flags != 0 {
		fmt.Fprintf(b, " flags=%d", flags)
	}
}

func renderCount(b *strings.Builder, count uint64, sum, minimum, maximum *float64) {
	fmt.Fprintf(b, " count=%d", count)
	for name, v := range map[string]*float64{"min": minimum, "max": maximum} {
		if v != nil {
			fmt.Fprintf(b, " %s=%g", name, *v)
		}
	}
	if sum != nil {
		fmt.Fprintf(b, " sum=%g", *sum)
	}
}

func renderExemplars(b *strings.Builder, exemplars []*metricpb.Exemplar) {
	fmt.Fprintln(b)
	for _, e := range exemplars {
		fmt.Fprintf(b, "    exemplar %g at %s trace=%x span=%x %s\n",
			e.GetAsDouble(), renderTime(e.GetTimeUnixNano()), e.GetTraceId(), e.GetSpanId(), renderAttrs(e.GetFilteredAttributes()))
	}
}

// renderTime shows a time in seconds of the tests' time, or its year if that
// is another one, or - if there is none.
func renderTime(ns uint64) string {
	at := time.Unix(0, int64(ns)).UTC()
	switch {
	case ns == 0:
		return "-"
	case at.Year() != epoch.Year():
		return at.Format("2006")
	default:
		return fmt.Sprintf("%g", at.Sub(epoch).Seconds())
	}
}

func renderAttrs(attrs []*commonpb.KeyValue) string {
	parts := make([]string, len(attrs))
	for i, kv := range attrs {
		parts[i] = fmt.Sprintf("%s=%q", kv.GetKey(), kv.GetValue().GetStringValue())
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// step is one scrape and what it must lead to.
type step struct {
	at      float64             // seconds
	text    string              // the page, or
	proto   []*dto.MetricFamily // the page; neither is a missed scrape
	want    string              // the rendered request
	dropped map[string]int
}

// scenario is a sequence of scrapes of one target.
type scenario struct {
	name  string
	delta bool
	keep  func(string) bool
	steps []step
}

// run plays each scenario to the translator and to the reference.
func run(t *testing.T, scenarios []scenario) {
	t.Helper()
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			cfg := translate.Config{Version: "v1", Keep: sc.keep}
			if sc.delta {
				cfg.Temporality = sdkmetric.DeltaTemporalitySelector
			}
			for name, newImplementation := range implementations {
				tr := newImplementation(cfg)
				for _, st := range sc.steps {
					r := translateStep(t, tr, st)
					if got, want := render(r.request), unindent(st.want); got != want {
						t.Errorf("%s, at %g s:\ngot:\n%s\nwant:\n%s", name, st.at, got, want)
					}
					if !mapsEqual(r.Dropped, st.dropped) {
						t.Errorf("%s, at %g s: dropped %v, want %v", name, st.at, r.Dropped, st.dropped)
					}
				}
			}
		})
	}
}

func translateStep(t *testing.T, tr implementation, st step) translated {
	t.Helper()
	switch {
	case st.text != "":
		return tr.translate(t, encode(t, text(t, unindent(st.text))...), at(st.at))
	case st.proto != nil:
		return tr.translate(t, encode(t, st.proto...), at(st.at))
	default:
		return tr.missed(t, at(st.at))
	}
}

func mapsEqual(a, b map[string]int) bool {
	return len(a) == 0 && len(b) == 0 || fmt.Sprint(a) == fmt.Sprint(b)
}

// unindent takes from every line of s the tabs that its first line begins
// with, and an empty first line.
func unindent(s string) string {
	s = strings.TrimPrefix(s, "\n")
	indent := s[:len(s)-len(strings.TrimLeft(s, "\t"))]
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, indent)
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\t")
}

var (
	nan      = math.NaN()
	inf      = math.Inf(1)
	staleNaN = math.Float64frombits(0x7ff0000000000002) // prometheus/model/value.StaleNaN
)
