package delivery

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// anything returns a request with every type of metric, of random shape.
func anything(r *rand.Rand) *request {
	word := func(most int) string { return fmt.Sprintf("%0*d", 1+r.IntN(most), r.IntN(1000)) }
	id := 0
	attrs := func() []*commonpb.KeyValue { // unique, so that every point is a series
		id++
		return []*commonpb.KeyValue{text("id", fmt.Sprint(id)), text("padding", word(200))}
	}
	req := &request{}
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

func TestSplitKeepsEveryPointWithItsMetricScopeAndResource(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		req := anything(r)
		before := proto.Clone(req)
		limit := 1 + r.IntN(proto.Size(req)+200)
		want, got := ledger{}, ledger{}
		want.add(req)
		total := 0
		split(req, limit, func(part *request, points int) {
			data, err := cached.Marshal(part)
			if err != nil {
				t.Fatal(err)
			}
			var back request
			if err := proto.Unmarshal(data, &back); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got.add(&back)
			if n := countPoints(&back); n != points {
				t.Fatalf("seed %d: a part of %d points was announced with %d", seed, n, points)
			}
			if len(data) > limit && points != 1 {
				t.Fatalf("seed %d: %d points in %d bytes, limit %d", seed, points, len(data), limit)
			}
			total += points
		})
		if d := compare(t, want, got); d != 0 {
			t.Fatalf("seed %d: %d points twice", seed, d)
		}
		if total != countPoints(req) {
			t.Fatalf("seed %d: %d points of %d", seed, total, countPoints(req))
		}
		if !proto.Equal(before, req) {
			t.Fatalf("seed %d: split changed the request", seed)
		}
	}
}

func TestSplitFillsItsParts(t *testing.T) {
	req := page(1, 10_000)
	limit := proto.Size(req)/10 + 1
	parts := 0
	split(req, limit, func(*request, int) { parts++ })
	if parts > 11 {
		t.Errorf("%d parts where 10 would nearly do", parts)
	}
}

func TestSplitOfNothingIsNothing(t *testing.T) {
	for _, limit := range []int{0, 1, 1 << 20} {
		split(&request{ResourceMetrics: []*metricpb.ResourceMetrics{{SchemaUrl: "a"}}}, limit, func(_ *request, points int) {
			t.Errorf("limit %d: a part of %d points", limit, points)
		})
	}
}

func TestSplitOfHalfAlwaysMakesProgress(t *testing.T) {
	// Two points whose headers are most of their size.
	req := page(1, 2)
	parts := 0
	split(req, proto.Size(req)/2, func(_ *request, points int) {
		parts++
		if points != 1 {
			t.Errorf("%d points", points)
		}
	})
	if parts != 2 {
		t.Errorf("%d parts", parts)
	}
}
