package otlp

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// written is what a Writer emitted.
type written struct {
	parts  []*colmetricpb.ExportMetricsServiceRequest
	sizes  []int
	points []int
}

func (w *written) emit(t *testing.T) func([]byte, int) {
	return func(request []byte, points int) {
		t.Helper()
		part := &colmetricpb.ExportMetricsServiceRequest{}
		if err := proto.Unmarshal(request, part); err != nil {
			t.Fatalf("a part cannot be read: %v", err)
		}
		if n, err := CountPoints(request); n != points || err != nil {
			t.Errorf("a part of %d points was emitted as one of %d: %v", n, points, err)
		}
		w.parts = append(w.parts, part)
		w.sizes = append(w.sizes, len(request))
		w.points = append(w.points, points)
	}
}

// whole returns the one part.
func (w *written) whole(t *testing.T) *colmetricpb.ExportMetricsServiceRequest {
	t.Helper()
	if len(w.parts) != 1 {
		t.Fatalf("%d parts, want one", len(w.parts))
	}
	return w.parts[0]
}

func equal(t *testing.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", prototext.Format(got), prototext.Format(want))
	}
}

func keyValue(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func attributesFor(k Kind) []byte {
	return AppendAttribute(AppendAttribute(nil, k, []byte("k"), []byte("v")), k, []byte("l"), []byte("ü"))
}

// TestEveryPointIsReadBack writes a point of each kind, with every field, and
// one of each kind that has no recorded value.
func TestEveryPointIsReadBack(t *testing.T) {
	const start, at = 1_000_000_001, 2_000_000_002
	attributes := []*commonpb.KeyValue{keyValue("k", "v"), keyValue("l", "ü")}
	exemplar := Exemplar{
		Time: 1_500_000_000, Value: 0.5, SpanID: []byte("12345678"), TraceID: []byte("0123456789abcdef"),
		Attributes: AppendExemplarAttribute(nil, []byte("e"), []byte("x")),
	}
	exemplars := []*metricpb.Exemplar{{
		TimeUnixNano: 1_500_000_000, Value: &metricpb.Exemplar_AsDouble{AsDouble: 0.5},
		SpanId: []byte("12345678"), TraceId: []byte("0123456789abcdef"),
		FilteredAttributes: []*commonpb.KeyValue{keyValue("e", "x")},
	}, {
		Value: &metricpb.Exemplar_AsDouble{},
	}}
	encoded := func(k Kind) []byte {
		var none Exemplar
		return none.Append(exemplar.Append(nil, k), k)
	}
	times, stale := Times{Start: start, Time: at}, Times{Time: at, NoRecordedValue: true}
	var got written
	w := NewWriter(1<<20, got.emit(t))
	w.Resource(Resource([]attribute.KeyValue{
		attribute.String("s", "v"), attribute.Bool("b", true), attribute.Int("i", -1), attribute.Float64("f", 1.5), attribute.IntSlice("x", []int{1, 2}),
	}))
	w.Scope(NewScope("name", "version", "url", []attribute.KeyValue{attribute.String("a", "b")}))
	head, metadata := Head("name", "description", "unit"), Metadata("key", "value")
	w.Metric(NewMetric(Gauge, true, head, metadata))
	w.Point(&NumberPoint{Times: times, Attributes: attributesFor(Gauge), Value: -1.5, Exemplars: encoded(Gauge)})
	w.Point(&NumberPoint{Times: stale, Value: 5})
	w.Metric(NewMetric(Sum, false, head, metadata))
	w.Point(&NumberPoint{Times: times, Attributes: attributesFor(Sum), Exemplars: encoded(Sum)})
	w.Metric(NewMetric(Sum, true, Head("bare", "", ""), nil))
	w.Point(&NumberPoint{})
	w.Metric(NewMetric(Histogram, false, head, metadata))
	w.Point(&HistogramPoint{
		Times: times, Attributes: attributesFor(Histogram), Count: 6, Sum: 7, HasSum: true,
		Bounds: []float64{-1, 0, 1.5}, Counts: []uint64{1, 2, 0, 3}, Exemplars: encoded(Histogram),
	})
	w.Point(&HistogramPoint{Times: stale})
	w.Metric(NewMetric(ExponentialHistogram, true, head, metadata))
	w.Point(&ExponentialPoint{
		Times: times, Attributes: attributesFor(ExponentialHistogram), Count: 1 << 40, Sum: -7, HasSum: true, Scale: -3,
		ZeroCount: 8, ZeroThreshold: 1e-9, Exemplars: encoded(ExponentialHistogram),
		Positive: Buckets{Offset: -200, Counts: []uint64{1, 0, 1 << 40}}, Negative: Buckets{Offset: 5, Counts: []uint64{9}},
	})
	w.Point(&ExponentialPoint{Times: stale})
	w.Metric(NewMetric(Summary, true, head, metadata))
	w.Point(&SummaryPoint{
		Times: times, Attributes: attributesFor(Summary), Count: 3, Sum: 4.5,
		Quantiles: []Quantile{{0, 1}, {0.5, 0}, {0.9, math.Copysign(0, -1)}, {1, math.NaN()}},
	})
	w.Point(&SummaryPoint{Times: stale})
	w.Close()

	const flags = uint32(metricpb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)
	const (
		cumulative = metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
		delta      = metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	)
	metric := func(m *metricpb.Metric) *metricpb.Metric {
		m.Name, m.Description, m.Unit, m.Metadata = "name", "description", "unit", []*commonpb.KeyValue{keyValue("key", "value")}
		return m
	}
	equal(t, got.whole(t), &colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			keyValue("s", "v"),
			{Key: "b", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}},
			{Key: "i", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: -1}}},
			{Key: "f", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 1.5}}},
			keyValue("x", "[1,2]"),
		}},
		ScopeMetrics: []*metricpb.ScopeMetrics{{
			Scope: &commonpb.InstrumentationScope{
				Name: "name", Version: "version", Attributes: []*commonpb.KeyValue{keyValue("a", "b")},
			},
			SchemaUrl: "url",
			Metrics: []*metricpb.Metric{
				metric(&metricpb.Metric{Data: &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: []*metricpb.NumberDataPoint{{
					Attributes: attributes, StartTimeUnixNano: start, TimeUnixNano: at,
					Value: &metricpb.NumberDataPoint_AsDouble{AsDouble: -1.5}, Exemplars: exemplars,
				}, {TimeUnixNano: at, Flags: flags}}}}}),
				metric(&metricpb.Metric{Data: &metricpb.Metric_Sum{Sum: &metricpb.Sum{
					AggregationTemporality: cumulative, IsMonotonic: true, DataPoints: []*metricpb.NumberDataPoint{{
						Attributes: attributes, StartTimeUnixNano: start, TimeUnixNano: at,
						Value: &metricpb.NumberDataPoint_AsDouble{}, Exemplars: exemplars,
					}},
				}}}),
				{Name: "bare", Data: &metricpb.Metric_Sum{Sum: &metricpb.Sum{
					AggregationTemporality: delta, IsMonotonic: true,
					DataPoints: []*metricpb.NumberDataPoint{{Value: &metricpb.NumberDataPoint_AsDouble{}}},
				}}},
				metric(&metricpb.Metric{Data: &metricpb.Metric_Histogram{Histogram: &metricpb.Histogram{
					AggregationTemporality: cumulative, DataPoints: []*metricpb.HistogramDataPoint{{
						Attributes: attributes, StartTimeUnixNano: start, TimeUnixNano: at, Count: 6, Sum: proto.Float64(7),
						ExplicitBounds: []float64{-1, 0, 1.5}, BucketCounts: []uint64{1, 2, 0, 3}, Exemplars: exemplars,
					}, {TimeUnixNano: at, Flags: flags}},
				}}}),
				metric(&metricpb.Metric{Data: &metricpb.Metric_ExponentialHistogram{ExponentialHistogram: &metricpb.ExponentialHistogram{
					AggregationTemporality: delta, DataPoints: []*metricpb.ExponentialHistogramDataPoint{{
						Attributes: attributes, StartTimeUnixNano: start, TimeUnixNano: at, Count: 1 << 40, Sum: proto.Float64(-7),
						Scale: -3, ZeroCount: 8, ZeroThreshold: 1e-9, Exemplars: exemplars,
						Positive: &metricpb.ExponentialHistogramDataPoint_Buckets{Offset: -200, BucketCounts: []uint64{1, 0, 1 << 40}},
						Negative: &metricpb.ExponentialHistogramDataPoint_Buckets{Offset: 5, BucketCounts: []uint64{9}},
					}, {
						TimeUnixNano: at, Flags: flags,
						Positive: &metricpb.ExponentialHistogramDataPoint_Buckets{}, Negative: &metricpb.ExponentialHistogramDataPoint_Buckets{},
					}},
				}}}),
				metric(&metricpb.Metric{Data: &metricpb.Metric_Summary{Summary: &metricpb.Summary{DataPoints: []*metricpb.SummaryDataPoint{{
					Attributes: attributes, StartTimeUnixNano: start, TimeUnixNano: at, Count: 3, Sum: 4.5,
					QuantileValues: []*metricpb.SummaryDataPoint_ValueAtQuantile{
						{Value: 1}, {Quantile: 0.5}, {Quantile: 0.9, Value: math.Copysign(0, -1)}, {Quantile: 1, Value: math.NaN()},
					},
				}, {TimeUnixNano: at, Flags: flags}}}}}),
			},
		}},
	}}})
}

func TestNothingIsWrittenWithoutPoints(t *testing.T) {
	var got written
	w := NewWriter(100, got.emit(t))
	w.Close()
	w.Resource(Resource(nil))
	w.Scope(NewScope("s", "", "", nil))
	w.Metric(NewMetric(Gauge, false, Head("m", "", ""), nil))
	w.Close()
	w.Metric(NewMetric(Gauge, false, Head("n", "", ""), nil))
	w.Scope(NewScope("t", "", "", nil))
	w.Close()
	if len(got.parts) != 0 {
		t.Errorf("parts %v", got.parts)
	}
}

// random makes points, metrics and scopes at random.
type random struct{ *rand.Rand }

func (r random) text() string {
	n := r.IntN(12)
	switch r.IntN(30) {
	case 0:
		n = 100 + r.IntN(100) // about a varint's first border
	case 1:
		n = 16200 + r.IntN(400) // about its second
	}
	return strings.Repeat("x", n)
}

func (r random) times() Times {
	return Times{Start: r.Int64N(2) * r.Int64(), Time: r.Int64N(2) * r.Int64(), NoRecordedValue: r.IntN(6) == 0}
}

func (r random) float() float64 {
	list := []float64{0, 1, -1, math.Copysign(0, -1), math.NaN(), math.Inf(1), r.NormFloat64()}
	return list[r.IntN(len(list))]
}

func (r random) uint() uint64 { return r.Uint64() >> r.IntN(65) }

func (r random) uints() (list []uint64) {
	for range r.IntN(4) * r.IntN(8) {
		list = append(list, r.uint())
	}
	return list
}

func (r random) buckets() Buckets {
	return Buckets{Offset: int32(r.Uint32() >> r.IntN(33)), Counts: r.uints()}
}

func (r random) attributes(k Kind) (b []byte) {
	for range r.IntN(4) {
		b = AppendAttribute(b, k, []byte("k"+r.text()), []byte(r.text()))
	}
	return b
}

func (r random) exemplars(k Kind) (b []byte) {
	for range max(0, r.IntN(5)-2) {
		e := Exemplar{Time: r.Int64N(2) * r.Int64(), Value: r.float()}
		if r.IntN(2) == 0 {
			e.TraceID, e.SpanID = make([]byte, 16), make([]byte, 8)
		}
		for range r.IntN(3) {
			e.Attributes = AppendExemplarAttribute(e.Attributes, []byte(r.text()), []byte(r.text()))
		}
		b = e.Append(b, k)
	}
	return b
}

func (r random) point(k Kind) Point {
	times, attributes := r.times(), r.attributes(k)
	switch k {
	case Histogram:
		p := &HistogramPoint{
			Times: times, Attributes: attributes, Count: r.uint(), Sum: r.float(), HasSum: r.IntN(2) == 0,
			Counts: r.uints(), Exemplars: r.exemplars(k),
		}
		for range p.Counts {
			p.Bounds = append(p.Bounds, r.float())
		}
		return p
	case ExponentialHistogram:
		return &ExponentialPoint{
			Times: times, Attributes: attributes, Count: r.uint(), Sum: r.float(), HasSum: r.IntN(2) == 0,
			Scale: int32(r.IntN(40) - 20), ZeroCount: r.uint(), ZeroThreshold: math.Abs(r.float()),
			Positive: r.buckets(), Negative: r.buckets(), Exemplars: r.exemplars(k),
		}
	case Summary:
		p := &SummaryPoint{Times: times, Attributes: attributes, Count: r.uint(), Sum: r.float()}
		for range r.IntN(4) {
			p.Quantiles = append(p.Quantiles, Quantile{r.Float64() * float64(r.IntN(2)), r.float()})
		}
		return p
	default:
		return &NumberPoint{Times: times, Attributes: attributes, Value: r.float(), Exemplars: r.exemplars(k)}
	}
}

var kinds = []Kind{Gauge, Sum, Histogram, ExponentialHistogram, Summary}

func (r random) kind() Kind { return kinds[r.IntN(len(kinds))] }

func (r random) metric(k Kind) Metric {
	var metadata []byte
	if r.IntN(2) == 0 {
		metadata = Metadata("type", r.text())
	}
	return NewMetric(k, r.IntN(2) == 0, Head("m"+r.text(), r.text(), r.text()), metadata)
}

// write writes a random request.
func (r random) write(w *Writer) {
	for range 1 + r.IntN(2) {
		w.Resource(Resource([]attribute.KeyValue{attribute.Int64("r", r.Int64()), attribute.String("s", r.text())}))
		for range r.IntN(4) {
			w.Scope(NewScope(r.text(), r.text(), r.text(), []attribute.KeyValue{attribute.Int64("s", r.Int64())}))
			for range r.IntN(4) {
				k := r.kind()
				w.Metric(r.metric(k))
				var delimited []byte
				for range r.IntN(6) {
					delimited = AppendDelimited(delimited, r.point(k))
					w.Point(r.point(k))
				}
				w.Delimited(delimited)
			}
		}
	}
}

func TestPointsSayHowLargeTheyAre(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 2))}
	points := []Point{&NumberPoint{}, &HistogramPoint{}, &ExponentialPoint{}, &SummaryPoint{}, Raw(nil), Raw("abc")}
	for range 5000 {
		points = append(points, r.point(r.kind()))
	}
	for _, p := range points {
		if got, want := p.size(), len(p.append(nil)); got != want {
			t.Errorf("%T %+v says %d bytes and appends %d", p, p, got, want)
		}
	}
}

func TestPartsAreWithinTheLimitAndMakeUpTheWhole(t *testing.T) {
	same := NewWriter(0, nil) // used again and again
	for seed := range uint64(500) {
		var whole, parts written
		w := NewWriter(math.MaxInt, whole.emit(t))
		random{rand.New(rand.NewPCG(seed, 0))}.write(w)
		w.Close()
		limit := 100 + int(seed*37%4000)
		if seed%10 == 0 {
			limit = 0 // each point alone
		}
		same.Reset(limit, parts.emit(t))
		random{rand.New(rand.NewPCG(seed, 0))}.write(same)
		same.Close()
		for i, size := range parts.sizes {
			if size > limit && parts.points[i] > 1 {
				t.Errorf("seed %d: a part of %d bytes with %d points, the limit is %d", seed, size, parts.points[i], limit)
			}
		}
		if len(whole.parts) == 0 {
			whole.parts = append(whole.parts, &colmetricpb.ExportMetricsServiceRequest{})
		}
		equal(t, join(parts.parts), whole.whole(t))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// join joins parts to the request that they are parts of, by what tells
// resources, scopes and metrics apart.
func join(parts []*colmetricpb.ExportMetricsServiceRequest) *colmetricpb.ExportMetricsServiceRequest {
	whole := &colmetricpb.ExportMetricsServiceRequest{}
	for _, part := range parts {
		for _, rm := range part.ResourceMetrics {
			last := lastOf(whole.ResourceMetrics)
			if last == nil || !proto.Equal(last.Resource, rm.Resource) || last.SchemaUrl != rm.SchemaUrl {
				whole.ResourceMetrics = append(whole.ResourceMetrics, rm)
				continue
			}
			for _, sm := range rm.ScopeMetrics {
				scope := lastOf(last.ScopeMetrics)
				if !proto.Equal(scope.Scope, sm.Scope) || scope.SchemaUrl != sm.SchemaUrl {
					last.ScopeMetrics = append(last.ScopeMetrics, sm)
					continue
				}
				for _, m := range sm.Metrics {
					metric := lastOf(scope.Metrics)
					if what(metric) != what(m) {
						scope.Metrics = append(scope.Metrics, m)
						continue
					}
					joinPoints(metric, m)
				}
			}
		}
	}
	return whole
}

func lastOf[T any](list []*T) *T {
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// what is a metric but for its points.
func what(m *metricpb.Metric) string {
	return fmt.Sprintf("%q %q %q %v %T %v %v", m.Name, m.Description, m.Unit, m.Metadata, m.Data,
		m.GetSum().GetAggregationTemporality(),
		max(m.GetHistogram().GetAggregationTemporality(), m.GetExponentialHistogram().GetAggregationTemporality()))
}

func joinPoints(into, m *metricpb.Metric) {
	switch d := m.Data.(type) {
	case *metricpb.Metric_Gauge:
		into.GetGauge().DataPoints = append(into.GetGauge().DataPoints, d.Gauge.DataPoints...)
	case *metricpb.Metric_Sum:
		into.GetSum().DataPoints = append(into.GetSum().DataPoints, d.Sum.DataPoints...)
	case *metricpb.Metric_Histogram:
		into.GetHistogram().DataPoints = append(into.GetHistogram().DataPoints, d.Histogram.DataPoints...)
	case *metricpb.Metric_ExponentialHistogram:
		into.GetExponentialHistogram().DataPoints = append(into.GetExponentialHistogram().DataPoints, d.ExponentialHistogram.DataPoints...)
	case *metricpb.Metric_Summary:
		into.GetSummary().DataPoints = append(into.GetSummary().DataPoints, d.Summary.DataPoints...)
	}
}

// TestLengthsOfAnyNumberOfBytes writes messages around the sizes at which their
// length takes another byte, by a Writer that has reserved room for more or
// less of it.
func TestLengthsOfAnyNumberOfBytes(t *testing.T) {
	w := NewWriter(0, nil)
	for _, border := range []int{1, 1 << 7, 1 << 14, 1 << 21} {
		for size := max(0, border-120); size < border+20; size++ {
			if border > 1<<14 && size%7 != 0 {
				continue // these are slow
			}
			for _, size := range []int{size, 3} {
				var got written
				w.Reset(math.MaxInt, got.emit(t))
				w.Metric(NewMetric(Gauge, false, Head("m", "", ""), nil))
				w.Point(&NumberPoint{Attributes: AppendAttribute(nil, Gauge, []byte("k"), make([]byte, size))})
				w.Close()
				p := got.whole(t).ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints[0]
				if n := len(p.Attributes[0].Value.GetStringValue()); n != size {
					t.Fatalf("an attribute of %d bytes has %d", size, n)
				}
			}
		}
	}
}

func TestAppendAppendsThePointsOfARequest(t *testing.T) {
	for seed := range uint64(300) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		var whole written
		var request []byte
		w := NewWriter(math.MaxInt, func(b []byte, points int) {
			whole.emit(t)(b, points)
			request = slices.Clone(b)
		})
		r.write(w)
		w.Close()

		var got written
		limit := 200 + r.IntN(4000)
		w.Reset(limit, got.emit(t))
		w.Resource(Resource([]attribute.KeyValue{attribute.String("own", "resource")}))
		w.Metric(NewMetric(Gauge, false, Head("first", "", ""), nil))
		w.Point(&NumberPoint{Value: 1})
		if err := w.Append(request); err != nil {
			t.Fatal(err)
		}
		w.Close()
		for i, size := range got.sizes {
			if size > limit && got.points[i] > 1 {
				t.Errorf("seed %d: a part of %d bytes with %d points, the limit is %d", seed, size, got.points[i], limit)
			}
		}
		want := &metricpb.ResourceMetrics{
			Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{keyValue("own", "resource")}},
			ScopeMetrics: []*metricpb.ScopeMetrics{{Scope: &commonpb.InstrumentationScope{}, Metrics: []*metricpb.Metric{{
				Name: "first", Data: &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: []*metricpb.NumberDataPoint{
					{Value: &metricpb.NumberDataPoint_AsDouble{AsDouble: 1}},
				}}},
			}}}},
		}
		for _, part := range whole.parts {
			for _, rm := range part.ResourceMetrics {
				want.ScopeMetrics = append(want.ScopeMetrics, rm.ScopeMetrics...)
			}
		}
		equal(t, join(got.parts), &colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{want}})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestAppendOfWhatIsNotARequestIsAnError(t *testing.T) {
	var got written
	w := NewWriter(1<<20, got.emit(t))
	for _, request := range []string{"\xff", "\x0a", "\x0a\x05ab", "\x0a\x02\x12\x09", "\x0a\x04\x12\x02\x12\x09"} {
		if err := w.Append([]byte(request)); err == nil {
			t.Errorf("%q was appended", request)
		}
	}
	w.Close()
	if len(got.parts) > 0 {
		t.Errorf("parts %v", got.parts)
	}
}

func TestResetForgetsWhatWasNotEmitted(t *testing.T) {
	var before, after written
	w := NewWriter(1<<20, before.emit(t))
	w.Resource(Resource([]attribute.KeyValue{attribute.String("old", "x")}))
	w.Scope(NewScope("old", "", "", nil))
	w.Metric(NewMetric(Sum, true, Head("old", "", ""), nil))
	w.Point(&NumberPoint{Value: 1})
	w.Reset(1<<20, after.emit(t))
	w.Metric(NewMetric(Gauge, true, Head("new", "", ""), nil))
	w.Point(&NumberPoint{Value: 2})
	w.Close()
	if len(before.parts) > 0 {
		t.Errorf("emitted %v", before.parts)
	}
	rm := after.whole(t).ResourceMetrics[0]
	if len(rm.Resource.Attributes) > 0 || rm.ScopeMetrics[0].Scope.Name != "" || rm.ScopeMetrics[0].Metrics[0].Name != "new" {
		t.Errorf("kept %v", rm)
	}
}

func TestResetGivesBackThePeak(t *testing.T) {
	emit := func([]byte, int) {}
	w := NewWriter(64<<20, emit)
	cycle := func(points int) {
		w.Metric(NewMetric(Gauge, false, Head("m", "", ""), nil))
		for range points {
			w.Point(&NumberPoint{Times: Times{Time: 1}, Value: 1})
		}
		w.Close()
		w.Reset(64<<20, emit)
	}
	cycle(1_000_000)
	cycle(10)
	if got := cap(w.buf); got > 128<<10 {
		t.Errorf("a buffer of %d KiB after a small request", got>>10)
	}
	cycle(10_000)
	before := cap(w.buf)
	if cycle(10_000); before == 0 || cap(w.buf) != before {
		t.Errorf("a buffer of %d bytes became one of %d for a request of the same size", before, cap(w.buf))
	}
}

func TestAttributesMoveToAnotherKind(t *testing.T) {
	for _, from := range append(kinds, 0) {
		for _, to := range kinds {
			attributes := attributesFor(from)
			MoveAttributes(attributes, to)
			if string(attributes) != string(attributesFor(to)) {
				t.Errorf("from %d to %d: %x, want %x", from, to, attributes, attributesFor(to))
			}
			var each []string
			EachAttribute(attributes, func(a []byte) {
				kv := &commonpb.KeyValue{}
				_, rest := consumeLength(a)
				if err := proto.Unmarshal(rest, kv); err != nil {
					t.Error(err)
				}
				each = append(each, kv.GetKey()+"="+kv.GetValue().GetStringValue())
			})
			if fmt.Sprint(each) != "[k=v l=ü]" {
				t.Errorf("attributes %v", each)
			}
		}
	}
}

// consumeLength cuts the length off a value.
func consumeLength(b []byte) (n int, rest []byte) { return int(b[0]), b[1:] }

func TestKeysTellScopesApart(t *testing.T) {
	a := []attribute.KeyValue{attribute.String("a", "b")}
	scopes := []Scope{
		NewScope("", "", "", nil), NewScope("x", "", "", nil), NewScope("", "x", "", nil), NewScope("", "", "x", nil),
		NewScope("x", "x", "", nil), NewScope("x", "", "x", nil), NewScope("", "", "", a), NewScope("x", "", "", a), NewScope("x\x00", "", "", nil),
	}
	keys := make(map[string]bool)
	for _, s := range scopes {
		keys[s.Key()] = true
	}
	if len(keys) != len(scopes) {
		t.Errorf("%d keys of %d scopes", len(keys), len(scopes))
	}
	if one, other := NewScope("x", "y", "z", a), NewScope("x", "y", "z", a); one.Key() != other.Key() {
		t.Error("two keys of one scope")
	}
}
