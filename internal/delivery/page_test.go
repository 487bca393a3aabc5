package delivery

import (
	"bufio"
	"errors"
	"io"
	"os"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
)

func partial(rejected int64, message string) *colmetricpb.ExportMetricsPartialSuccess {
	return &colmetricpb.ExportMetricsPartialSuccess{RejectedDataPoints: rejected, ErrorMessage: message}
}

// realPage is the page of an active swarm manager, roughly translated: its
// size and its shape are the real ones.
func realPage(t testing.TB) *request {
	t.Helper()
	f, err := os.Open("../../testdata/pages/297-active.pb")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	req := page(1, 0)
	sm := req.ResourceMetrics[0].ScopeMetrics[0]
	sm.Metrics = nil
	const at = 1763900000e9
	for r := bufio.NewReader(f); ; {
		var family dto.MetricFamily
		if err := protodelim.UnmarshalFrom(r, &family); errors.Is(err, io.EOF) {
			return req
		} else if err != nil {
			t.Fatal(err)
		}
		m := &metricpb.Metric{Name: family.GetName(), Description: family.GetHelp()}
		sum := &metricpb.Sum{AggregationTemporality: metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}
		histogram := &metricpb.Histogram{AggregationTemporality: sum.AggregationTemporality}
		for _, p := range family.Metric {
			var attrs []*commonpb.KeyValue
			for _, l := range p.Label {
				attrs = append(attrs, text(l.GetName(), l.GetValue()))
			}
			if h := p.Histogram; h != nil {
				point := &metricpb.HistogramDataPoint{Attributes: attrs, TimeUnixNano: at, StartTimeUnixNano: 1, Count: h.GetSampleCount(), Sum: proto.Float64(h.GetSampleSum())}
				for _, b := range h.Bucket {
					point.ExplicitBounds = append(point.ExplicitBounds, b.GetUpperBound())
					point.BucketCounts = append(point.BucketCounts, b.GetCumulativeCount())
				}
				histogram.DataPoints = append(histogram.DataPoints, point)
				continue
			}
			sum.DataPoints = append(sum.DataPoints, &metricpb.NumberDataPoint{Attributes: attrs, TimeUnixNano: at, StartTimeUnixNano: 1,
				Value: &metricpb.NumberDataPoint_AsDouble{AsDouble: p.GetCounter().GetValue() + p.GetGauge().GetValue() + p.GetUntyped().GetValue()}})
		}
		if len(histogram.DataPoints) > 0 {
			m.Data = &metricpb.Metric_Histogram{Histogram: histogram}
		} else {
			m.Data = &metricpb.Metric_Sum{Sum: sum}
		}
		sm.Metrics = append(sm.Metrics, m)
	}
}
