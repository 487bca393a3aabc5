package translate_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/pkg/translate"
)

// TestAFaultLeavesTheRestOfThePageUntouched puts each fault on a page with
// families of every type, as a family of its own and into the one of its type,
// on one page of three and on all of them: the other points are those of the
// same pages without the fault.
func TestAFaultLeavesTheRestOfThePageUntouched(t *testing.T) {
	exemplar := func(trace, span string) *dto.Exemplar {
		return &dto.Exemplar{Value: proto.Float64(1), Label: labels("trace_id", trace, "span_id", span)}
	}
	ofCounter := func(v float64, e *dto.Exemplar) *dto.Metric {
		m := counter(v, "fault", "1")
		m.Counter.Exemplar = e
		return m
	}
	ofGauge := func(v float64) *dto.Metric { return gauge(v, "fault", "1") }
	ofHistogram := func(h *dto.Histogram) *dto.Metric { return histogram(h, "fault", "1") }
	at := func(ms int64, m *dto.Metric) *dto.Metric {
		m.TimestampMs = &ms
		return m
	}
	const (
		typeCounter   = dto.MetricType_COUNTER
		typeGauge     = dto.MetricType_GAUGE
		typeHistogram = dto.MetricType_HISTOGRAM
		typeSummary   = dto.MetricType_SUMMARY
	)
	many := native(0, 1, 0, spans(0, 1, 1<<30, 1), 1, 0)
	for _, fault := range []struct {
		name    string
		family  string // its own; "" is fault, or that of its type
		typ     dto.MetricType
		metrics []*dto.Metric
		dropped string // "" is exported
	}{
		{"exemplar with ids of a wrong length", "", typeCounter, []*dto.Metric{ofCounter(1, exemplar("abc", "0123456789abcdef01"))}, ""},
		{"exemplar with ids that are not hexadecimal", "", typeCounter, []*dto.Metric{ofCounter(1, exemplar("zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "zzzzzzzzzzzzzzzz"))}, ""},
		{"duplicate counter", "", typeCounter, []*dto.Metric{ofCounter(1, nil), ofCounter(2, nil)}, translate.DropDuplicate},
		{"duplicate gauge", "", typeGauge, []*dto.Metric{ofGauge(1), ofGauge(1)}, translate.DropDuplicate},
		{"decreasing buckets", "", typeHistogram, []*dto.Metric{ofHistogram(&dto.Histogram{SampleCount: proto.Uint64(3), Bucket: buckets(1, 3, 2, 2)})}, translate.DropInvalidBuckets},
		{"histogram without a count", "", typeHistogram, []*dto.Metric{ofHistogram(&dto.Histogram{Bucket: buckets(1, 3)})}, translate.DropNoCount},
		{"summary without a count", "", typeSummary, []*dto.Metric{{Label: labels("fault", "1"), Summary: &dto.Summary{SampleSum: proto.Float64(1)}}}, translate.DropNoCount},
		{"span with an offset of 2^30", "", typeHistogram, []*dto.Metric{ofHistogram(native(8, 1, 0, spans(1<<30, 1), 1))}, translate.DropInvalidBuckets},
		{"second span with an offset of 2^30", "", typeHistogram, []*dto.Metric{ofHistogram(many)}, translate.DropInvalidBuckets},
		{"gap as wide as the schema allows", "", typeHistogram, []*dto.Metric{ofHistogram(native(8, 1, 0, spans(0, 1, 1<<17, 1), 1, 0))}, translate.DropNativeWidth},
		{"empty label value", "", typeGauge, []*dto.Metric{gauge(1, "fault", "1", "empty", "")}, ""},
		{"empty label name", "", typeGauge, []*dto.Metric{gauge(1, "fault", "1", "", "x")}, translate.DropInvalidLabel},
		{"UTF-8 name", "zürich.temperatur °C", typeGauge, []*dto.Metric{ofGauge(1)}, ""},
		{"UTF-8 label", "", typeGauge, []*dto.Metric{gauge(1, "fault", "1", "größe", "ü")}, ""},
		{"name that is not UTF-8", "\xff", typeGauge, []*dto.Metric{ofGauge(1)}, translate.DropInvalidName},
		{"label that is not UTF-8", "", typeGauge, []*dto.Metric{gauge(1, "fault", "\xff")}, translate.DropInvalidLabel},
		{"timestamp 0", "", typeCounter, []*dto.Metric{at(0, ofCounter(1, nil))}, ""},
		{"timestamp in the future", "", typeCounter, []*dto.Metric{at(epoch.AddDate(1, 0, 0).UnixMilli(), ofCounter(1, nil))}, ""},
		{"timestamp before 1970", "", typeGauge, []*dto.Metric{at(-1, ofGauge(1))}, translate.DropInvalidTimestamp},
		{"timestamp beyond all", "", typeGauge, []*dto.Metric{at(math.MaxInt64, ofGauge(1))}, translate.DropInvalidTimestamp},
		{"NaN gauge", "", typeGauge, []*dto.Metric{ofGauge(nan)}, ""},
		{"NaN counter", "", typeCounter, []*dto.Metric{ofCounter(nan, nil)}, ""},
		{"infinite gauge", "", typeGauge, []*dto.Metric{ofGauge(-inf)}, ""},
		{"infinite counter", "", typeCounter, []*dto.Metric{ofCounter(inf, nil)}, ""},
		{"NaN bound", "", typeHistogram, []*dto.Metric{ofHistogram(&dto.Histogram{SampleCount: proto.Uint64(3), Bucket: buckets(nan, 3)})}, translate.DropInvalidBuckets},
		{"infinite sum", "", typeHistogram, []*dto.Metric{ofHistogram(&dto.Histogram{SampleCount: proto.Uint64(3), SampleSum: proto.Float64(inf)})}, ""},
		{"negative counter", "", typeCounter, []*dto.Metric{ofCounter(-1, nil)}, translate.DropNegativeCounter},
		{"counter of negative infinity", "", typeCounter, []*dto.Metric{ofCounter(-inf, nil)}, translate.DropNegativeCounter},
		{"metric without a value", "", typeCounter, []*dto.Metric{{Label: labels("fault", "1")}}, translate.DropNoValue},
	} {
		t.Run(fault.name, func(t *testing.T) {
			for _, selector := range []sdkmetric.TemporalitySelector{
				sdkmetric.CumulativeTemporalitySelector, sdkmetric.DeltaTemporalitySelector, sdkmetric.LowMemoryTemporalitySelector,
			} {
				cumulative := selector(sdkmetric.InstrumentKindHistogram) == sdkmetric.CumulativeTemporalitySelector(sdkmetric.InstrumentKindHistogram)
				want, _ := play(t, selector, nil)
				for _, always := range []bool{false, true} {
					for _, place := range []string{"first", "last", "inside"} {
						if place == "inside" && fault.family != "" {
							continue
						}
						name := fault.family
						if name == "" {
							name = "fault"
						}
						got, dropped := play(t, selector, func(i int, page []*dto.MetricFamily) []*dto.MetricFamily {
							if i != 1 && !always {
								return page
							}
							switch place {
							case "first":
								return slices.Insert(page, 0, family(name, fault.typ, fault.metrics...))
							case "last":
								return append(page, family(name, fault.typ, fault.metrics...))
							}
							for _, mf := range page {
								if mf.GetType() == fault.typ && strings.HasPrefix(mf.GetName(), "b_") {
									mf.Metric = slices.Insert(mf.Metric, 1, fault.metrics...)
								}
							}
							return page
						})
						if got != want {
							t.Errorf("%s, always %v: got:\n%s\nwant:\n%s", place, always, got, want)
						}
						families := 1
						if place == "inside" && fault.typ == typeHistogram {
							families = 2 // classic and native
						}
						wantDropped := map[string]int{}
						if fault.dropped != "" {
							wantDropped[fault.dropped] = families
						}
						if cumulative && !mapsEqual(dropped, wantDropped) {
							t.Errorf("%s: dropped %v, want %v", place, dropped, wantDropped)
						}
					}
				}
			}
		})
	}
}

// play renders the points, but for those of a fault, of three pages that
// change puts it on, and tells what the second one's were dropped for.
func play(t *testing.T, selector sdkmetric.TemporalitySelector, change func(i int, page []*dto.MetricFamily) []*dto.MetricFamily) (points string, dropped map[string]int) {
	tr := newSubject(translate.Config{Version: "v1", Temporality: selector})
	for i := range 3 {
		page := bystanders(i)
		if change != nil {
			page = change(i, page)
		}
		r := tr.translate(t, encode(t, page...), at(float64(10*(i+1))))
		req := r.request
		withoutFaults(req)
		points += fmt.Sprintf("page %d\n", i) + render(req)
		if i == 1 {
			dropped = r.Dropped
		}
	}
	return points, dropped
}

// bystanders returns the i-th page of families of every type that grow, one
// series of each for two pages only.
func bystanders(i int) []*dto.MetricFamily {
	n := uint64(i + 1)
	page := []*dto.MetricFamily{
		family("b_counter", dto.MetricType_COUNTER),
		family("b_gauge", dto.MetricType_GAUGE),
		family("b_histogram", dto.MetricType_HISTOGRAM),
		family("b_native", dto.MetricType_HISTOGRAM),
		family("b_summary", dto.MetricType_SUMMARY),
		family("b_untyped", dto.MetricType_UNTYPED),
		family("process_start_time_seconds", dto.MetricType_GAUGE, gauge(float64(epoch.Unix()+1))),
		family("target_info", dto.MetricType_GAUGE, gauge(1, "a", "b")),
	}
	for l := range 2 {
		if l == 1 && i == 2 {
			break
		}
		pairs := labels("l", fmt.Sprint(l))
		c := &dto.Counter{Value: proto.Float64(float64(n)), CreatedTimestamp: created(2), Exemplar: &dto.Exemplar{
			Value: proto.Float64(1), Timestamp: created(float64(10*i + 9)),
			Label: labels("trace_id", "0123456789abcdef0123456789abcdef", "span_id", "0123456789abcdef"),
		}}
		for f, m := range []*dto.Metric{
			{Counter: c},
			{Gauge: &dto.Gauge{Value: proto.Float64(float64(n))}},
			{Histogram: &dto.Histogram{SampleCount: proto.Uint64(3 * n), SampleSum: proto.Float64(float64(n)), Bucket: buckets(1, float64(n), 2, float64(2*n))}},
			{Histogram: native(3, float64(n), n, spans(5, 2), int64(n), 0)},
			{Summary: &dto.Summary{SampleCount: &n, SampleSum: proto.Float64(float64(n)), Quantile: []*dto.Quantile{{Quantile: proto.Float64(0.5), Value: proto.Float64(1)}}}},
			{Untyped: &dto.Untyped{Value: proto.Float64(float64(n))}},
		} {
			m.Label = pairs
			page[f].Metric = append(page[f].Metric, m)
		}
	}
	return page
}

// withoutFaults takes out of req the points with the attribute fault.
func withoutFaults(req *colmetricpb.ExportMetricsServiceRequest) {
	faulty := func(attrs []*commonpb.KeyValue) bool {
		return slices.ContainsFunc(attrs, func(kv *commonpb.KeyValue) bool { return kv.GetKey() == "fault" })
	}
	for _, sm := range scopesOf(req) {
		sm.Metrics = slices.DeleteFunc(sm.Metrics, func(m *metricpb.Metric) bool {
			switch d := m.GetData().(type) {
			case *metricpb.Metric_Gauge:
				d.Gauge.DataPoints = withoutFaulty(d.Gauge.DataPoints, faulty)
				return len(d.Gauge.DataPoints) == 0
			case *metricpb.Metric_Sum:
				d.Sum.DataPoints = withoutFaulty(d.Sum.DataPoints, faulty)
				return len(d.Sum.DataPoints) == 0
			case *metricpb.Metric_Histogram:
				d.Histogram.DataPoints = withoutFaulty(d.Histogram.DataPoints, faulty)
				return len(d.Histogram.DataPoints) == 0
			case *metricpb.Metric_ExponentialHistogram:
				d.ExponentialHistogram.DataPoints = withoutFaulty(d.ExponentialHistogram.DataPoints, faulty)
				return len(d.ExponentialHistogram.DataPoints) == 0
			case *metricpb.Metric_Summary:
				d.Summary.DataPoints = withoutFaulty(d.Summary.DataPoints, faulty)
				return len(d.Summary.DataPoints) == 0
			}
			return false
		})
	}
}

func withoutFaulty[P interface{ GetAttributes() []*commonpb.KeyValue }](points []P, faulty func([]*commonpb.KeyValue) bool) []P {
	return slices.DeleteFunc(points, func(p P) bool { return faulty(p.GetAttributes()) })
}
