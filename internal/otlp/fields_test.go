package otlp

import (
	"testing"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestFieldNumbers holds every constant against the descriptors, its wire type
// included.
func TestFieldNumbers(t *testing.T) {
	const (
		message    = protoreflect.MessageKind
		text       = protoreflect.StringKind
		fixed      = protoreflect.Fixed64Kind
		double     = protoreflect.DoubleKind
		sint32     = protoreflect.Sint32Kind
		uint32Kind = protoreflect.Uint32Kind
		uint64Kind = protoreflect.Uint64Kind
		enum       = protoreflect.EnumKind
		boolean    = protoreflect.BoolKind
		bytes      = protoreflect.BytesKind
		int64Kind  = protoreflect.Int64Kind
	)
	type field struct {
		message proto.Message
		name    protoreflect.Name
		number  protowire.Number
		kind    protoreflect.Kind
	}
	list := []field{
		{&colmetricpb.ExportMetricsServiceRequest{}, "resource_metrics", requestResourceMetrics, message},
		{&metricpb.ResourceMetrics{}, "resource", resourceMetricsResource, message},
		{&metricpb.ResourceMetrics{}, "scope_metrics", resourceMetricsScopeMetrics, message},
		{&metricpb.ResourceMetrics{}, "schema_url", resourceMetricsSchemaURL, text},
		{&resourcepb.Resource{}, "attributes", resourceAttributes, message},
		{&metricpb.ScopeMetrics{}, "scope", scopeMetricsScope, message},
		{&metricpb.ScopeMetrics{}, "metrics", scopeMetricsMetrics, message},
		{&metricpb.ScopeMetrics{}, "schema_url", scopeMetricsSchemaURL, text},
		{&commonpb.InstrumentationScope{}, "name", scopeName, text},
		{&commonpb.InstrumentationScope{}, "version", scopeVersion, text},
		{&commonpb.InstrumentationScope{}, "attributes", scopeAttributes, message},
		{&metricpb.Metric{}, "name", metricName, text},
		{&metricpb.Metric{}, "description", metricDescription, text},
		{&metricpb.Metric{}, "unit", metricUnit, text},
		{&metricpb.Metric{}, "metadata", metricMetadata, message},
		{&metricpb.Metric{}, "gauge", protowire.Number(Gauge), message},
		{&metricpb.Metric{}, "sum", protowire.Number(Sum), message},
		{&metricpb.Metric{}, "histogram", protowire.Number(Histogram), message},
		{&metricpb.Metric{}, "exponential_histogram", protowire.Number(ExponentialHistogram), message},
		{&metricpb.Metric{}, "summary", protowire.Number(Summary), message},
		{&metricpb.Gauge{}, "data_points", dataPoints, message},
		{&metricpb.Sum{}, "data_points", dataPoints, message},
		{&metricpb.Histogram{}, "data_points", dataPoints, message},
		{&metricpb.ExponentialHistogram{}, "data_points", dataPoints, message},
		{&metricpb.Summary{}, "data_points", dataPoints, message},
		{&metricpb.Sum{}, "aggregation_temporality", dataTemporality, enum},
		{&metricpb.Histogram{}, "aggregation_temporality", dataTemporality, enum},
		{&metricpb.ExponentialHistogram{}, "aggregation_temporality", dataTemporality, enum},
		{&metricpb.Sum{}, "is_monotonic", dataIsMonotonic, boolean},
		{&commonpb.KeyValue{}, "key", keyValueKey, text},
		{&commonpb.KeyValue{}, "value", keyValueValue, message},
		{&commonpb.AnyValue{}, "string_value", anyValueString, text},
		{&commonpb.AnyValue{}, "bool_value", anyValueBool, boolean},
		{&commonpb.AnyValue{}, "int_value", anyValueInt, int64Kind},
		{&commonpb.AnyValue{}, "double_value", anyValueDouble, double},

		{&metricpb.NumberDataPoint{}, "as_double", numberAsDouble, double},
		{&metricpb.NumberDataPoint{}, "exemplars", numberExemplars, message},
		{&metricpb.NumberDataPoint{}, "attributes", numberAttributes, message},
		{&metricpb.NumberDataPoint{}, "flags", numberFlags, uint32Kind},
		{&metricpb.NumberDataPoint{}, "exemplars", Gauge.exemplarsField(), message},
		{&metricpb.NumberDataPoint{}, "exemplars", Sum.exemplarsField(), message},
		{&metricpb.NumberDataPoint{}, "attributes", Gauge.attributesField(), message},
		{&metricpb.NumberDataPoint{}, "attributes", Sum.attributesField(), message},

		{&metricpb.HistogramDataPoint{}, "count", histogramCount, fixed},
		{&metricpb.HistogramDataPoint{}, "sum", histogramSum, double},
		{&metricpb.HistogramDataPoint{}, "bucket_counts", histogramCounts, fixed},
		{&metricpb.HistogramDataPoint{}, "explicit_bounds", histogramBounds, double},
		{&metricpb.HistogramDataPoint{}, "exemplars", histogramExemplars, message},
		{&metricpb.HistogramDataPoint{}, "attributes", histogramAttributes, message},
		{&metricpb.HistogramDataPoint{}, "flags", histogramFlags, uint32Kind},
		{&metricpb.HistogramDataPoint{}, "exemplars", Histogram.exemplarsField(), message},
		{&metricpb.HistogramDataPoint{}, "attributes", Histogram.attributesField(), message},

		{&metricpb.ExponentialHistogramDataPoint{}, "attributes", exponentialAttributes, message},
		{&metricpb.ExponentialHistogramDataPoint{}, "count", exponentialCount, fixed},
		{&metricpb.ExponentialHistogramDataPoint{}, "sum", exponentialSum, double},
		{&metricpb.ExponentialHistogramDataPoint{}, "scale", exponentialScale, sint32},
		{&metricpb.ExponentialHistogramDataPoint{}, "zero_count", exponentialZeroCount, fixed},
		{&metricpb.ExponentialHistogramDataPoint{}, "positive", exponentialPositive, message},
		{&metricpb.ExponentialHistogramDataPoint{}, "negative", exponentialNegative, message},
		{&metricpb.ExponentialHistogramDataPoint{}, "flags", exponentialFlags, uint32Kind},
		{&metricpb.ExponentialHistogramDataPoint{}, "exemplars", exponentialExemplars, message},
		{&metricpb.ExponentialHistogramDataPoint{}, "zero_threshold", exponentialZeroThreshold, double},
		{&metricpb.ExponentialHistogramDataPoint{}, "exemplars", ExponentialHistogram.exemplarsField(), message},
		{&metricpb.ExponentialHistogramDataPoint{}, "attributes", ExponentialHistogram.attributesField(), message},
		{&metricpb.ExponentialHistogramDataPoint_Buckets{}, "offset", bucketsOffset, sint32},
		{&metricpb.ExponentialHistogramDataPoint_Buckets{}, "bucket_counts", bucketsCounts, uint64Kind},

		{&metricpb.SummaryDataPoint{}, "count", summaryCount, fixed},
		{&metricpb.SummaryDataPoint{}, "sum", summarySum, double},
		{&metricpb.SummaryDataPoint{}, "quantile_values", summaryQuantiles, message},
		{&metricpb.SummaryDataPoint{}, "attributes", summaryAttributes, message},
		{&metricpb.SummaryDataPoint{}, "flags", summaryFlags, uint32Kind},
		{&metricpb.SummaryDataPoint{}, "attributes", Summary.attributesField(), message},
		{&metricpb.SummaryDataPoint_ValueAtQuantile{}, "quantile", quantileQuantile, double},
		{&metricpb.SummaryDataPoint_ValueAtQuantile{}, "value", quantileValue, double},

		{&metricpb.Exemplar{}, "time_unix_nano", exemplarTime, fixed},
		{&metricpb.Exemplar{}, "as_double", exemplarAsDouble, double},
		{&metricpb.Exemplar{}, "span_id", exemplarSpanID, bytes},
		{&metricpb.Exemplar{}, "trace_id", exemplarTraceID, bytes},
		{&metricpb.Exemplar{}, "filtered_attributes", exemplarAttributes, message},
	}
	for _, point := range []proto.Message{
		&metricpb.NumberDataPoint{}, &metricpb.HistogramDataPoint{}, &metricpb.ExponentialHistogramDataPoint{}, &metricpb.SummaryDataPoint{},
	} {
		list = append(list,
			field{point, "start_time_unix_nano", pointStart, fixed},
			field{point, "time_unix_nano", pointTime, fixed})
	}
	for _, f := range list {
		d := f.message.ProtoReflect().Descriptor()
		got := d.Fields().ByName(f.name)
		if got == nil {
			t.Errorf("%s has no field %s", d.FullName(), f.name)
			continue
		}
		if got.Number() != f.number || got.Kind() != f.kind {
			t.Errorf("%s is %d, %s, not %d, %s", got.FullName(), got.Number(), got.Kind(), f.number, f.kind)
		}
		if got.IsList() && got.Kind() != message && !got.IsPacked() {
			t.Errorf("%s is not packed", got.FullName())
		}
	}
	if got := uint32Of(metricpb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK); got != noRecordedValue {
		t.Errorf("the flag of no recorded value is %d", got)
	}
}

func uint32Of(flag metricpb.DataPointFlags) uint32 { return uint32(flag) }

// TestEveryKindOfDataIsKnown: a metric has no other data, so that Append and
// Split find all points.
func TestEveryKindOfDataIsKnown(t *testing.T) {
	data := (&metricpb.Metric{}).ProtoReflect().Descriptor().Oneofs().ByName("data").Fields()
	for i := range data.Len() {
		if f := data.Get(i); !isKind(f.Number()) {
			t.Errorf("%s is not a kind", f.FullName())
		}
	}
}
