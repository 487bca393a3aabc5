package translate

import (
	"strings"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
)

// typeOf returns the type of mf. GetType would take an absent one for counter;
// the specification wants unknown, unless the metrics say more: Prometheus' own
// copy of the format is proto3, in which a counter's type, being zero, is
// absent.
func typeOf(mf *dto.MetricFamily) dto.MetricType {
	if mf != nil && mf.Type != nil {
		return *mf.Type
	}
	if len(mf.GetMetric()) > 0 {
		switch m := mf.GetMetric()[0]; {
		case m.GetCounter() != nil:
			return dto.MetricType_COUNTER
		case m.GetGauge() != nil:
			return dto.MetricType_GAUGE
		case m.GetHistogram() != nil:
			return dto.MetricType_HISTOGRAM
		case m.GetSummary() != nil:
			return dto.MetricType_SUMMARY
		}
	}
	return dto.MetricType_UNTYPED
}

// typeNames are the values of prometheus.type.
var typeNames = map[dto.MetricType]string{
	dto.MetricType_COUNTER:   "counter",
	dto.MetricType_GAUGE:     "gauge",
	dto.MetricType_HISTOGRAM: "histogram",
	dto.MetricType_SUMMARY:   "summary",
	dto.MetricType_UNTYPED:   "unknown",
}

// countSamples returns the number of samples that Prometheus counts in metrics
// of the given type: their lines in the text format, where client libraries
// always write the +Inf bucket; one for a native histogram.
func countSamples(typ dto.MetricType, metrics []*dto.Metric) int {
	n := len(metrics)
	switch typ {
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		for _, m := range metrics {
			h := m.GetHistogram()
			if h == nil || isNative(h) {
				continue
			}
			n += len(h.GetBucket())
			if hasInf(h.GetBucket()) {
				n--
			}
			if h.SampleSum != nil {
				n++
			}
			if h.SampleCount != nil || h.SampleCountFloat != nil {
				n++
			}
		}
	case dto.MetricType_SUMMARY:
		for _, m := range metrics {
			s := m.GetSummary()
			if s == nil {
				continue
			}
			n += len(s.GetQuantile()) - 1
			if s.SampleSum != nil {
				n++
			}
			if s.SampleCount != nil {
				n++
			}
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

// A family's texts are repeated in every request that a page is split to: they
// are cut to what anyone reads. HELP of an engine has 200 bytes at the most.
const (
	maxHelp = 4 << 10
	maxUnit = 64
)

// cut returns at most the first n bytes of s, and no part of a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// validUTF8 makes s fit a protobuf string: one that is not UTF-8 would fail the
// whole request.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
