package otlp

import "google.golang.org/protobuf/encoding/protowire"

// Field numbers, by message and field.
const (
	requestResourceMetrics protowire.Number = 1

	resourceMetricsResource     protowire.Number = 1
	resourceMetricsScopeMetrics protowire.Number = 2
	resourceMetricsSchemaURL    protowire.Number = 3

	resourceAttributes protowire.Number = 1

	scopeMetricsScope     protowire.Number = 1
	scopeMetricsMetrics   protowire.Number = 2
	scopeMetricsSchemaURL protowire.Number = 3

	scopeName       protowire.Number = 1
	scopeVersion    protowire.Number = 2
	scopeAttributes protowire.Number = 3

	metricName        protowire.Number = 1
	metricDescription protowire.Number = 2
	metricUnit        protowire.Number = 3
	metricMetadata    protowire.Number = 12

	// The data of a metric: a message whose field 1 is its data points.
	dataPoints      protowire.Number = 1
	dataTemporality protowire.Number = 2
	dataIsMonotonic protowire.Number = 3 // of a sum

	keyValueKey   protowire.Number = 1
	keyValueValue protowire.Number = 2

	anyValueString protowire.Number = 1
	anyValueBool   protowire.Number = 2
	anyValueInt    protowire.Number = 3
	anyValueDouble protowire.Number = 4

	// All data points have their times in the same fields.
	pointStart protowire.Number = 2
	pointTime  protowire.Number = 3

	numberAsDouble   protowire.Number = 4
	numberExemplars  protowire.Number = 5
	numberAttributes protowire.Number = 7
	numberFlags      protowire.Number = 8

	histogramCount      protowire.Number = 4
	histogramSum        protowire.Number = 5
	histogramCounts     protowire.Number = 6
	histogramBounds     protowire.Number = 7
	histogramExemplars  protowire.Number = 8
	histogramAttributes protowire.Number = 9
	histogramFlags      protowire.Number = 10

	exponentialAttributes    protowire.Number = 1
	exponentialCount         protowire.Number = 4
	exponentialSum           protowire.Number = 5
	exponentialScale         protowire.Number = 6
	exponentialZeroCount     protowire.Number = 7
	exponentialPositive      protowire.Number = 8
	exponentialNegative      protowire.Number = 9
	exponentialFlags         protowire.Number = 10
	exponentialExemplars     protowire.Number = 11
	exponentialZeroThreshold protowire.Number = 14

	bucketsOffset protowire.Number = 1
	bucketsCounts protowire.Number = 2

	summaryCount      protowire.Number = 4
	summarySum        protowire.Number = 5
	summaryQuantiles  protowire.Number = 6
	summaryAttributes protowire.Number = 7
	summaryFlags      protowire.Number = 8

	quantileQuantile protowire.Number = 1
	quantileValue    protowire.Number = 2

	exemplarTime       protowire.Number = 2
	exemplarAsDouble   protowire.Number = 3
	exemplarSpanID     protowire.Number = 4
	exemplarTraceID    protowire.Number = 5
	exemplarAttributes protowire.Number = 7
)

// noRecordedValue is DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK.
const noRecordedValue = 1

// Kind is a kind of metric data: the number of its field in a metric.
type Kind uint8

// The kinds of metric data.
const (
	Gauge                Kind = 5
	Sum                  Kind = 7
	Histogram            Kind = 9
	ExponentialHistogram Kind = 10
	Summary              Kind = 11
)

// isKind reports whether a field of a metric is its data.
func isKind(n protowire.Number) bool {
	switch Kind(n) {
	case Gauge, Sum, Histogram, ExponentialHistogram, Summary:
		return true
	default:
		return false
	}
}

// attributesField is the field of the attributes in a data point of kind k.
func (k Kind) attributesField() protowire.Number {
	switch k {
	case Histogram:
		return histogramAttributes
	case ExponentialHistogram:
		return exponentialAttributes
	case Summary:
		return summaryAttributes
	default:
		return numberAttributes
	}
}

// exemplarsField is the field of the exemplars in a data point of kind k.
func (k Kind) exemplarsField() protowire.Number {
	switch k {
	case Histogram:
		return histogramExemplars
	case ExponentialHistogram:
		return exponentialExemplars
	default:
		return numberExemplars
	}
}
