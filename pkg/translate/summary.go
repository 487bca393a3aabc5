package translate

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"otelmetricsplugin/internal/otlp"
)

// summaryValue is a Summary message.
type summaryValue struct {
	count     uint64
	hasCount  bool
	sum       float64
	hasSum    bool
	quantiles []otlp.Quantile
	created   timestamp
}

func (m *summaryValue) read(b []byte) {
	*m = summaryValue{quantiles: m.quantiles[:0]}
	for f := (fields{rest: b}); f.next(); {
		switch {
		case f.isVarint(1):
			m.count, m.hasCount = f.value, true
		case f.isDouble(2):
			m.sum, m.hasSum = f.double(), true
		case f.isBytes(3):
			m.quantiles = append(m.quantiles, readQuantile(f.bytes))
		case f.isBytes(4):
			m.created.read(f.bytes)
		}
	}
}

func readQuantile(b []byte) (q otlp.Quantile) {
	for f := (fields{rest: b}); f.next(); {
		switch {
		case f.isDouble(1):
			q.Quantile = f.double()
		case f.isDouble(2):
			q.Value = f.double()
		}
	}
	return q
}

// samples is the number of lines that m has in the text format.
func (m *summaryValue) samples() int {
	return len(m.quantiles) + count(m.hasSum) + count(m.hasCount)
}

func count(has bool) int {
	if has {
		return 1
	}
	return 0
}

// summary translates a summary: rule 15. It is cumulative whatever the
// temporality.
func (t *Translator) summary(f *family, s *series, m *summaryValue, ts int64) (dropped string) {
	f.setKind(s, otlp.Summary)
	switch {
	case isStale(m.sum):
		t.writeStale(f, s, ts)
		return ""
	case !m.hasCount:
		return DropNoCount
	case m.count > math.MaxInt64:
		return DropInvalidCount
	case !m.sortQuantiles():
		return DropInvalidQuantile
	}
	value := float64(m.count)
	t.observe(s, m.created.unixNano(), ts, value < s.value)
	s.value = value
	s.live = true
	t.points.summary = otlp.SummaryPoint{
		Times: otlp.Times{Start: startTime(s.start, ts), Time: ts}, Attributes: f.attributesOf(s),
		Count: m.count, Sum: m.sum, Quantiles: m.quantiles,
	}
	t.write(f, s, &t.points.summary)
	return ""
}

// byQuantile orders the quantiles of a summary, those of one number by their
// value.
type byQuantile summaryValue

func (m *byQuantile) Len() int { return len(m.quantiles) }
func (m *byQuantile) Less(i, j int) bool {
	a, b := m.quantiles[i], m.quantiles[j]
	return cmp.Or(cmp.Compare(a.Quantile, b.Quantile), cmp.Compare(a.Value, b.Value)) < 0
}
func (m *byQuantile) Swap(i, j int) { m.quantiles[i], m.quantiles[j] = m.quantiles[j], m.quantiles[i] }

// sortQuantiles sorts the quantiles and drops repeated ones. It reports false
// if one is not within [0, 1], or is there twice with different values.
func (m *summaryValue) sortQuantiles() bool {
	for _, q := range m.quantiles {
		if !(q.Quantile >= 0 && q.Quantile <= 1) {
			return false
		}
	}
	sort.Sort((*byQuantile)(m))
	// cmp.Compare, unlike ==, finds a NaN equal to a NaN.
	m.quantiles = slices.CompactFunc(m.quantiles, func(a, b otlp.Quantile) bool {
		return a.Quantile == b.Quantile && cmp.Compare(a.Value, b.Value) == 0
	})
	for i := range len(m.quantiles) - 1 {
		if m.quantiles[i].Quantile == m.quantiles[i+1].Quantile {
			return false
		}
	}
	return true
}
