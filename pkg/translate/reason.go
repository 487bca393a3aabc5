package translate

// Reasons for which a point is dropped: the keys of Result.Dropped.
const (
	// DropDuplicate: an earlier point of the exposition has the same name and labels.
	DropDuplicate = "duplicate_series"
	// DropInvalidName: the family's name is empty or not UTF-8.
	DropInvalidName = "invalid_name"
	// DropInvalidLabel: a label's name is empty or repeated, a label is not
	// UTF-8, or there are more than 256 labels.
	DropInvalidLabel = "invalid_label"
	// DropInvalidTimestamp: the sample's timestamp is before 1970 or after
	// 2262, which OTLP or Go cannot express.
	DropInvalidTimestamp = "invalid_timestamp"
	// DropNoValue: the metric has no value of its family's type.
	DropNoValue = "no_value"
	// DropNegativeCounter: a counter is below zero.
	DropNegativeCounter = "negative_counter"
	// DropNoCount: a histogram or summary has no count.
	DropNoCount = "no_count"
	// DropInvalidCount: the count of a histogram or summary is 2^63 or more,
	// which is what a negative or NaN count in the text format is read as.
	DropInvalidCount = "invalid_count"
	// DropInvalidBuckets: the buckets of a histogram decrease, contradict each
	// other or the count, or have a bound that is not a number; or those of a
	// native histogram do not fit its spans or lie where no number can.
	DropInvalidBuckets = "invalid_buckets"
	// DropInvalidQuantile: a quantile of a summary is not within [0, 1], or is
	// there twice with different values.
	DropInvalidQuantile = "invalid_quantile"
	// DropGaugeHistogram: the type is gauge histogram.
	DropGaugeHistogram = "gauge_histogram"
	// DropFloatHistogram: a histogram counts in floats.
	DropFloatHistogram = "float_histogram"
	// DropNativeSchema: a native histogram has a schema other than -4 to 8,
	// custom buckets among them.
	DropNativeSchema = "native_schema"
	// DropNativeWidth: a native histogram would need too many buckets when its
	// gaps are filled.
	DropNativeWidth = "native_width"
	// DropNotFinite: a counter to be exported as deltas is infinite or not a
	// number.
	DropNotFinite = "not_finite"
	// DropBaseline: the first observation of a series to be exported as
	// deltas, which what follows is counted from. Nothing is wrong.
	DropBaseline = "delta_baseline"
)
