package translate

import (
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// metricType is the TYPE of a family.
type metricType uint8

const (
	typeUnset metricType = iota // no TYPE, or one that this client_model does not know
	typeCounter
	typeGauge
	typeUntyped
	typeHistogram
	typeGaugeHistogram
	typeSummary
)

// String returns the value of prometheus.type.
func (t metricType) String() string {
	switch t {
	case typeCounter:
		return "counter"
	case typeGauge:
		return "gauge"
	case typeHistogram:
		return "histogram"
	case typeGaugeHistogram:
		return "gaugehistogram"
	case typeSummary:
		return "summary"
	default:
		return "unknown"
	}
}

// typeOf returns the TYPE of mf. It does not use GetType, for which an absent
// type is a counter.
func typeOf(mf *dto.MetricFamily) metricType {
	if mf == nil || mf.Type == nil {
		return typeUnset
	}
	switch *mf.Type {
	case dto.MetricType_COUNTER:
		return typeCounter
	case dto.MetricType_GAUGE:
		return typeGauge
	case dto.MetricType_UNTYPED:
		return typeUntyped
	case dto.MetricType_HISTOGRAM:
		return typeHistogram
	case dto.MetricType_GAUGE_HISTOGRAM:
		return typeGaugeHistogram
	case dto.MetricType_SUMMARY:
		return typeSummary
	default:
		return typeUnset
	}
}

// inferType returns the type of a metric of a family without TYPE. Prometheus'
// own copy of the format is proto3, in which COUNTER, being zero, is absent.
func inferType(m *dto.Metric) metricType {
	switch {
	case m.GetCounter() != nil:
		return typeCounter
	case m.GetGauge() != nil:
		return typeGauge
	case m.GetHistogram() != nil:
		return typeHistogram
	case m.GetSummary() != nil:
		return typeSummary
	default:
		return typeUntyped
	}
}

// countSamples returns the number of samples that Prometheus counts in metrics
// of the given type: their lines in the text format, where client libraries
// always write the +Inf bucket; one for a native histogram.
func countSamples(typ metricType, metrics []*dto.Metric) int {
	if typ != typeHistogram && typ != typeGaugeHistogram && typ != typeSummary && typ != typeUnset {
		return len(metrics)
	}
	n := 0
	for _, m := range metrics {
		switch h, s := m.GetHistogram(), m.GetSummary(); {
		case h != nil && isNative(h):
			n++
		case h != nil:
			n += len(h.GetBucket())
			if !hasInf(h.GetBucket()) {
				n++
			}
			if h.SampleSum != nil {
				n++
			}
			if h.SampleCount != nil || h.SampleCountFloat != nil {
				n++
			}
		case s != nil:
			n += len(s.GetQuantile())
			if s.SampleSum != nil {
				n++
			}
			if s.SampleCount != nil {
				n++
			}
		default:
			n++
		}
	}
	return n
}

// ucum is the specification's table of units, and ratio, which is a unit in
// Prometheus' naming practice.
var ucum = map[string]string{
	"days": "d", "hours": "h", "minutes": "min", "seconds": "s",
	"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns",
	"bytes": "By", "kibibytes": "KiBy", "mebibytes": "MiBy", "gibibytes": "GiBy", "tebibytes": "TiBy",
	"kilobytes": "kBy", "megabytes": "MBy", "gigabytes": "GBy", "terabytes": "TBy",
	"meters": "m", "volts": "V", "amperes": "A", "joules": "J", "watts": "W", "grams": "g",
	"celsius": "Cel", "hertz": "Hz", "percent": "%", "ratio": "1",
}

// unit returns the UCUM unit for a Prometheus unit; one that is not in the
// table is taken to be what it says.
func unit(prometheus string) string {
	if u, ok := ucum[prometheus]; ok {
		return u
	}
	return validUTF8(prometheus)
}

// validUTF8 makes s fit a protobuf string: one that is not UTF-8 would fail the
// whole request.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
