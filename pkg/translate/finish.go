package translate

import (
	"context"
	"math"

	dto "github.com/prometheus/client_model/go"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
)

// Marks that travel through metricdata as NaNs with payloads that arithmetic
// does not produce.
var (
	// staleNaN marks a point without a recorded value; it is Prometheus' own
	// staleness marker (model/value).
	staleNaN = math.Float64frombits(0x7ff0000000000002)
	// unsetNaN marks a histogram's sum that is not known.
	unsetNaN = math.Float64frombits(0x7ff0000000000003)
)

func isStale(v float64) bool { return math.Float64bits(v) == math.Float64bits(staleNaN) }
func isUnset(v float64) bool { return math.Float64bits(v) == math.Float64bits(unsetNaN) }

// plainNaN returns v, or a NaN that is no mark if v is one.
func plainNaN(v float64) float64 {
	if math.IsNaN(v) {
		return math.NaN()
	}
	return v
}

// scopeID is what a request tells of a scope, but for its attributes.
type scopeID struct{ name, version, schemaURL string }

type contextKey struct{}

// NewContext returns a context that carries what [Finish] needs to know of r.
func NewContext(ctx context.Context, r *Result) context.Context {
	return context.WithValue(ctx, contextKey{}, r)
}

// Finish writes on req what metricdata could not say of the Result that ctx
// carries: the metadata prometheus.type, histogram sums that are unset, and
// the flag of points without a recorded value. It leaves alone what is not of
// that Result, and without one all of req. To call it again changes nothing.
func Finish(ctx context.Context, req *colmetricpb.ExportMetricsServiceRequest) {
	r, ok := ctx.Value(contextKey{}).(*Result)
	if !ok || r == nil {
		return
	}
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			id := scopeID{sm.GetScope().GetName(), sm.GetScope().GetVersion(), sm.GetSchemaUrl()}
			if !r.scopes[id] {
				continue
			}
			for _, m := range sm.GetMetrics() {
				if gauges, ok := r.types[m.GetName()]; ok {
					finishMetric(m, gauges)
				}
			}
		}
	}
}

const noRecordedValue = uint32(metricpb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)

// finishMetric finishes m. The kind of its data tells its type, unless it is a
// gauge: then it is gauges.
func finishMetric(m *metricpb.Metric, gauges dto.MetricType) {
	var typ dto.MetricType
	switch data := m.GetData().(type) {
	case *metricpb.Metric_Gauge:
		typ = gauges
		finishNumbers(data.Gauge.GetDataPoints())
	case *metricpb.Metric_Sum:
		typ = dto.MetricType_COUNTER
		finishNumbers(data.Sum.GetDataPoints())
	case *metricpb.Metric_Histogram:
		typ = dto.MetricType_HISTOGRAM
		for _, dp := range data.Histogram.GetDataPoints() {
			dp.Sum, dp.Flags = finishSum(dp.Sum, dp.Flags)
		}
	case *metricpb.Metric_ExponentialHistogram:
		typ = dto.MetricType_HISTOGRAM
		for _, dp := range data.ExponentialHistogram.GetDataPoints() {
			dp.Sum, dp.Flags = finishSum(dp.Sum, dp.Flags)
		}
	case *metricpb.Metric_Summary:
		typ = dto.MetricType_SUMMARY
		for _, dp := range data.Summary.GetDataPoints() {
			if isStale(dp.GetSum()) {
				dp.Sum, dp.Flags = 0, dp.Flags|noRecordedValue
			}
		}
	default:
		return
	}
	m.Metadata = []*commonpb.KeyValue{{
		Key:   "prometheus.type",
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: typeNames[typ]}},
	}}
}

func finishNumbers(dps []*metricpb.NumberDataPoint) {
	for _, dp := range dps {
		if v, ok := dp.GetValue().(*metricpb.NumberDataPoint_AsDouble); ok && isStale(v.AsDouble) {
			dp.Value, dp.Flags = nil, dp.Flags|noRecordedValue
		}
	}
}

func finishSum(sum *float64, flags uint32) (*float64, uint32) {
	switch {
	case sum == nil:
		return nil, flags
	case isStale(*sum):
		return nil, flags | noRecordedValue
	case isUnset(*sum):
		return nil, flags
	default:
		return sum, flags
	}
}
