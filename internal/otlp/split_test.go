package otlp_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"otelmetricsplugin/internal/otlp"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unmarshal(t testing.TB, b []byte) *colmetricpb.ExportMetricsServiceRequest {
	t.Helper()
	req := &colmetricpb.ExportMetricsServiceRequest{}
	if err := proto.Unmarshal(b, req); err != nil {
		t.Fatal(err)
	}
	return req
}

// pointsIn returns each data point of a request, in order, with its resource,
// scope and metric.
func pointsIn(t testing.TB, req *colmetricpb.ExportMetricsServiceRequest) (points []string) {
	t.Helper()
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				var encoded []string
				empty := &metricpb.Metric{Name: m.Name, Description: m.Description, Unit: m.Unit, Metadata: m.Metadata}
				switch d := m.GetData().(type) {
				case *metricpb.Metric_Gauge:
					encoded = encodeAll(t, d.Gauge.GetDataPoints())
					empty.Data = &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{}}
				case *metricpb.Metric_Sum:
					encoded = encodeAll(t, d.Sum.GetDataPoints())
					empty.Data = &metricpb.Metric_Sum{Sum: &metricpb.Sum{AggregationTemporality: d.Sum.AggregationTemporality, IsMonotonic: d.Sum.IsMonotonic}}
				case *metricpb.Metric_Histogram:
					encoded = encodeAll(t, d.Histogram.GetDataPoints())
					empty.Data = &metricpb.Metric_Histogram{Histogram: &metricpb.Histogram{AggregationTemporality: d.Histogram.AggregationTemporality}}
				case *metricpb.Metric_ExponentialHistogram:
					encoded = encodeAll(t, d.ExponentialHistogram.GetDataPoints())
					empty.Data = &metricpb.Metric_ExponentialHistogram{ExponentialHistogram: &metricpb.ExponentialHistogram{AggregationTemporality: d.ExponentialHistogram.AggregationTemporality}}
				case *metricpb.Metric_Summary:
					encoded = encodeAll(t, d.Summary.GetDataPoints())
					empty.Data = &metricpb.Metric_Summary{Summary: &metricpb.Summary{}}
				}
				head := string(marshal(t, &metricpb.ResourceMetrics{Resource: rm.Resource, SchemaUrl: rm.SchemaUrl,
					ScopeMetrics: []*metricpb.ScopeMetrics{{Scope: sm.Scope, SchemaUrl: sm.SchemaUrl, Metrics: []*metricpb.Metric{empty}}}}))
				for _, p := range encoded {
					points = append(points, head+"|"+p)
				}
			}
		}
	}
	return points
}

func encodeAll[P proto.Message](t testing.TB, points []P) (encoded []string) {
	t.Helper()
	for _, p := range points {
		encoded = append(encoded, string(marshal(t, p)))
	}
	return encoded
}

func text(k, v string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
}

// gauge returns a request with one gauge of so many series.
func gauge(series int) *colmetricpb.ExportMetricsServiceRequest {
	points := make([]*metricpb.NumberDataPoint, series)
	for i := range points {
		points[i] = &metricpb.NumberDataPoint{Attributes: []*commonpb.KeyValue{text("series", fmt.Sprint(i))},
			StartTimeUnixNano: 1, TimeUnixNano: 2, Value: &metricpb.NumberDataPoint_AsInt{AsInt: 3}}
	}
	return &colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("service.name", "dockerd")}},
		ScopeMetrics: []*metricpb.ScopeMetrics{{
			Scope: &commonpb.InstrumentationScope{Name: "test", Version: "1"},
			Metrics: []*metricpb.Metric{{Name: "requests", Description: "Requests.", Unit: "{request}",
				Metadata: []*commonpb.KeyValue{text("prometheus.type", "gauge")},
				Data:     &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: points}}}},
		}},
	}}}
}

// anything returns a request with every type of metric, of random shape.
func anything(r *rand.Rand) *colmetricpb.ExportMetricsServiceRequest {
	word := func(most int) string { return fmt.Sprintf("%0*d", 1+r.IntN(most), r.IntN(1000)) }
	id := 0
	attrs := func() []*commonpb.KeyValue { // unique, so that every point is a series
		id++
		return []*commonpb.KeyValue{text("id", fmt.Sprint(id)), text("padding", word(200))}
	}
	req := &colmetricpb.ExportMetricsServiceRequest{}
	for range 1 + r.IntN(3) {
		rm := &metricpb.ResourceMetrics{SchemaUrl: word(40), Resource: &resourcepb.Resource{Attributes: attrs()}}
		req.ResourceMetrics = append(req.ResourceMetrics, rm)
		for range r.IntN(4) {
			sm := &metricpb.ScopeMetrics{SchemaUrl: word(40), Scope: &commonpb.InstrumentationScope{Name: word(30), Attributes: attrs()}}
			rm.ScopeMetrics = append(rm.ScopeMetrics, sm)
			for range r.IntN(6) {
				m := &metricpb.Metric{Name: word(60), Description: word(150), Unit: "By", Metadata: attrs()}
				sm.Metrics = append(sm.Metrics, m)
				n := r.IntN(40)
				at := uint64(1 + r.IntN(1e9))
				numbers := func() (p []*metricpb.NumberDataPoint) {
					for range n {
						p = append(p, &metricpb.NumberDataPoint{Attributes: attrs(), TimeUnixNano: at, StartTimeUnixNano: 1,
							Value: &metricpb.NumberDataPoint_AsDouble{AsDouble: r.Float64()}})
					}
					return p
				}
				delta := metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
				switch r.IntN(6) {
				case 0:
					m.Data = &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: numbers()}}
				case 1:
					m.Data = &metricpb.Metric_Sum{Sum: &metricpb.Sum{DataPoints: numbers(), AggregationTemporality: delta, IsMonotonic: true}}
				case 2:
					h := &metricpb.Histogram{AggregationTemporality: delta}
					for range n {
						h.DataPoints = append(h.DataPoints, &metricpb.HistogramDataPoint{Attributes: attrs(), TimeUnixNano: at,
							Count: 3, BucketCounts: []uint64{1, 2}, ExplicitBounds: []float64{1}})
					}
					m.Data = &metricpb.Metric_Histogram{Histogram: h}
				case 3:
					h := &metricpb.ExponentialHistogram{AggregationTemporality: delta}
					for range n {
						h.DataPoints = append(h.DataPoints, &metricpb.ExponentialHistogramDataPoint{Attributes: attrs(), TimeUnixNano: at,
							Count: 3, Positive: &metricpb.ExponentialHistogramDataPoint_Buckets{Offset: -3, BucketCounts: []uint64{1, 2}}})
					}
					m.Data = &metricpb.Metric_ExponentialHistogram{ExponentialHistogram: h}
				case 4:
					s := &metricpb.Summary{}
					for range n {
						s.DataPoints = append(s.DataPoints, &metricpb.SummaryDataPoint{Attributes: attrs(), TimeUnixNano: at, Count: 1,
							QuantileValues: []*metricpb.SummaryDataPoint_ValueAtQuantile{{Quantile: 0.5, Value: 2}}})
					}
					m.Data = &metricpb.Metric_Summary{Summary: s}
				}
			}
		}
	}
	return req
}

func TestSplitKeepsEveryPointInOrderWithItsMetricScopeAndResource(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		req := anything(r)
		request := marshal(t, req)
		before := slices.Clone(request)
		limit := 1 + r.IntN(len(request)+200)
		var got []string
		err := otlp.Split(request, limit, func(part []byte, points int) {
			in := pointsIn(t, unmarshal(t, part))
			got = append(got, in...)
			if len(in) != points {
				t.Fatalf("seed %d: a part of %d points is announced with %d", seed, len(in), points)
			}
			if len(part) > limit && points != 1 {
				t.Fatalf("seed %d: %d points in %d bytes, limit %d", seed, points, len(part), limit)
			}
			if points == 0 {
				t.Fatalf("seed %d: a part without points", seed)
			}
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if want := pointsIn(t, req); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d points of %d, or out of order, or with another resource, scope or metric", seed, len(got), len(want))
		}
		if !slices.Equal(before, request) {
			t.Fatalf("seed %d: the request has changed", seed)
		}
	}
}

func TestSplitOfWhatFitsIsOnePart(t *testing.T) {
	for seed := range uint64(20) {
		request := marshal(t, anything(rand.New(rand.NewPCG(seed, 1))))
		points := len(pointsIn(t, unmarshal(t, request)))
		parts := 0
		// A part is smaller than the request, if anything: a metric without
		// points need not appear in it.
		err := otlp.Split(request, len(request)+64, func(part []byte, n int) {
			parts++
			if n != points || len(part) > len(request) {
				t.Errorf("seed %d: a part of %d points in %d bytes, of %d in %d", seed, n, len(part), points, len(request))
			}
		})
		if err != nil || parts != min(points, 1) {
			t.Errorf("seed %d: %d parts, %v", seed, parts, err)
		}
	}
}

func TestSplitFillsItsParts(t *testing.T) {
	request := marshal(t, gauge(10_000))
	parts := 0
	if err := otlp.Split(request, len(request)/10+1, func([]byte, int) { parts++ }); err != nil {
		t.Fatal(err)
	}
	if parts > 11 {
		t.Errorf("%d parts where 10 would nearly do", parts)
	}
}

func TestSplitOfNothingIsNothing(t *testing.T) {
	for _, limit := range []int{0, 1, 1 << 20} {
		request := marshal(t, &colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{{SchemaUrl: "a"}}})
		err := otlp.Split(request, limit, func(_ []byte, points int) {
			t.Errorf("limit %d: a part of %d points", limit, points)
		})
		if err != nil {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func TestSplitOfHalfAlwaysMakesProgress(t *testing.T) {
	// Two points whose headers are most of their size.
	request := marshal(t, gauge(2))
	parts := 0
	err := otlp.Split(request, len(request)/2, func(_ []byte, points int) {
		parts++
		if points != 1 {
			t.Errorf("%d points", points)
		}
	})
	if err != nil || parts != 2 {
		t.Errorf("%d parts, %v", parts, err)
	}
}

func TestSplitHandsOverAPointThatIsTooLargeAlone(t *testing.T) {
	req := gauge(5)
	points := req.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints
	points[2].Attributes[0] = text("series", strings.Repeat("long", 1000))
	var got []int
	var large int
	err := otlp.Split(marshal(t, req), 1000, func(part []byte, points int) {
		got = append(got, points)
		if len(part) > 1000 {
			large++
		}
	})
	if err != nil || large != 1 || !slices.Equal(got, []int{2, 1, 2}) {
		t.Errorf("parts of %v points, %d too large, %v", got, large, err)
	}
}

func TestSplitOfAMalformedRequestIsAnError(t *testing.T) {
	request := marshal(t, gauge(100))
	if err := otlp.Split(request[:len(request)-1], 500, func([]byte, int) {}); err == nil {
		t.Error("a truncated request is split without an error")
	}
}

// BenchmarkSplit shows that the time per byte does not depend on the size.
func BenchmarkSplit(b *testing.B) {
	for _, series := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("points=%d", series), func(b *testing.B) {
			request := marshal(b, gauge(series))
			b.SetBytes(int64(len(request)))
			b.ReportAllocs()
			for b.Loop() {
				if err := otlp.Split(request, 64<<10, func([]byte, int) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
