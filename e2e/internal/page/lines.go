package page

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// Line is one sample of the text format.
type Line struct {
	Value float64
	Grows bool // part of a counter, a histogram or a summary's count and sum
}

// Lines returns the samples of the families as a Prometheus server stores
// them, by name and sorted labels: a histogram in its buckets, sum and count.
// The given labels are added to each, as a server adds its target's.
func Lines(families []*dto.MetricFamily, target ...string) map[string]Line {
	all := map[string]Line{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := slices.Clone(target)
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" {
					labels = append(labels, Label(l.GetName(), l.GetValue()))
				}
			}
			add := func(suffix string, value float64, grows bool, more ...string) {
				all[f.GetName()+suffix+Join(slices.Concat(labels, more))] = Line{value, grows}
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				add("", m.GetCounter().GetValue(), true)
			case dto.MetricType_GAUGE:
				add("", m.GetGauge().GetValue(), false)
			case dto.MetricType_UNTYPED:
				add("", m.GetUntyped().GetValue(), false)
			case dto.MetricType_HISTOGRAM:
				for _, b := range m.GetHistogram().GetBucket() {
					add("_bucket", float64(b.GetCumulativeCount()), true, Label("le", float(b.GetUpperBound())))
				}
				add("_bucket", float64(m.GetHistogram().GetSampleCount()), true, Label("le", "+Inf"))
				add("_sum", m.GetHistogram().GetSampleSum(), true)
				add("_count", float64(m.GetHistogram().GetSampleCount()), true)
			case dto.MetricType_SUMMARY:
				for _, q := range m.GetSummary().GetQuantile() {
					add("", q.GetValue(), false, Label("quantile", float(q.GetQuantile())))
				}
				add("_sum", m.GetSummary().GetSampleSum(), true)
				add("_count", float64(m.GetSummary().GetSampleCount()), true)
			}
		}
	}
	return all
}

// Types returns the type of each family, by its name.
func Types(families []*dto.MetricFamily) map[string]string {
	all := map[string]string{}
	for _, f := range families {
		all[f.GetName()] = f.GetType().String()
	}
	return all
}

// CompareLines is [Compare] for samples.
func CompareLines(before, after, got map[string]Line) (wrong, unsettled []Diff) {
	for key, g := range got {
		b, a := before[key], after[key]
		if _, known := after[key]; !known {
			wrong = append(wrong, Diff{key, "is not on the page"})
			continue
		}
		switch {
		case a.Grows && !(b.Value <= g.Value && g.Value <= a.Value):
			wrong = append(wrong, Diff{key, fmt.Sprintf("value %v, want %v to %v", g.Value, b.Value, a.Value)})
		case !a.Grows && moved(strings.SplitN(key, "{", 2)[0], b.Value, g.Value, a.Value):
			unsettled = append(unsettled, Diff{key, fmt.Sprintf("value %v, want %v", g.Value, b.Value)})
		}
	}
	for key := range before {
		if _, ok := got[key]; !ok {
			wrong = append(wrong, Diff{key, "is missing"})
		}
	}
	return sorted(wrong), sorted(unsettled)
}

func float(v float64) string {
	if math.IsInf(v, +1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
