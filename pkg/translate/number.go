package translate

import (
	"cmp"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// gauge translates the value of a gauge or untyped metric: rules 8 and 10.
func (t *Translator) gauge(f *family, s *series, v float64, ts int64) (dropped string) {
	g := t.groupOf(f, s, kindGauge)
	if isStale(v) {
		g.addStale(s, ts)
		return ""
	}
	s.live = true
	g.numbers = append(g.numbers, metricdata.DataPoint[float64]{Attributes: s.attrs, Time: unix(ts), Value: v})
	return ""
}

// noise is how much of a sum of floats may be due to the order in which they
// were added: a source that adds up its parts anew for every page may seem to
// count backwards by as much. It is no reset, and no negative growth.
const noise = 1e-12

// counter translates a counter: rule 7.
func (t *Translator) counter(f *family, s *series, c *dto.Counter, ts int64) (dropped string) {
	v, created := c.GetValue(), nanos(c.GetCreatedTimestamp())
	g := t.groupOf(f, s, kindSum)
	if isStale(v) {
		g.addStale(s, ts)
		return ""
	}
	var start int64
	switch {
	case v < 0:
		return DropNegativeCounter
	case math.IsNaN(v) || math.IsInf(v, 0):
		if t.sumDelta {
			return DropNotFinite
		}
		start = t.startFor(s, created)
	default:
		if v < s.value && s.value-v <= noise*s.value {
			v = s.value
		}
		change, since := t.observe(s, created, ts, v < s.value)
		last := s.value
		s.value = v
		start = s.start
		if t.sumDelta {
			switch change {
			case baseline:
				return DropBaseline
			case grown:
				v -= last
			}
			start = since
		}
	}
	s.live = true
	g.numbers = append(g.numbers, metricdata.DataPoint[float64]{
		Attributes: s.attrs, StartTime: startTime(start, ts), Time: unix(ts), Value: v,
		Exemplars: appendExemplar(nil, c.GetExemplar(), t.sumDelta, start),
	})
	return ""
}

// summary translates a summary: rule 15. It is cumulative whatever the
// temporality.
func (t *Translator) summary(f *family, s *series, m *dto.Summary, ts int64) (dropped string) {
	g := t.groupOf(f, s, kindSummary)
	if isStale(m.GetSampleSum()) {
		g.addStale(s, ts)
		return ""
	}
	if m.SampleCount == nil {
		return DropNoCount
	}
	if m.GetSampleCount() > math.MaxInt64 {
		return DropInvalidCount
	}
	quantiles, ok := quantilesOf(m)
	if !ok {
		return DropInvalidQuantile
	}
	count := float64(m.GetSampleCount())
	t.observe(s, nanos(m.GetCreatedTimestamp()), ts, count < s.value)
	s.value = count
	s.live = true
	g.summaries = append(g.summaries, metricdata.SummaryDataPoint{
		Attributes: s.attrs, StartTime: startTime(s.start, ts), Time: unix(ts),
		Count: m.GetSampleCount(), Sum: m.GetSampleSum(), QuantileValues: quantiles,
	})
	return ""
}

// quantilesOf returns the quantiles of m, increasing. It is not ok if one is
// not within [0, 1], or is there twice with different values.
func quantilesOf(m *dto.Summary) (quantiles []metricdata.QuantileValue, ok bool) {
	if len(m.GetQuantile()) == 0 {
		return nil, true
	}
	quantiles = make([]metricdata.QuantileValue, 0, len(m.GetQuantile()))
	for _, q := range m.GetQuantile() {
		if !(q.GetQuantile() >= 0 && q.GetQuantile() <= 1) {
			return nil, false
		}
		quantiles = append(quantiles, metricdata.QuantileValue{Quantile: q.GetQuantile(), Value: q.GetValue()})
	}
	slices.SortFunc(quantiles, func(a, b metricdata.QuantileValue) int {
		return cmp.Or(cmp.Compare(a.Quantile, b.Quantile), cmp.Compare(a.Value, b.Value))
	})
	// cmp.Compare, unlike ==, finds a NaN equal to a NaN.
	quantiles = slices.CompactFunc(quantiles, func(a, b metricdata.QuantileValue) bool {
		return a.Quantile == b.Quantile && cmp.Compare(a.Value, b.Value) == 0
	})
	for i := range quantiles[1:] {
		if quantiles[i].Quantile == quantiles[i+1].Quantile {
			return nil, false
		}
	}
	return quantiles, true
}
