package translate

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// maxLabels bounds the labels of a series. attribute.Set keeps a Go type for
// every length above ten, for good.
const maxLabels = 256

// family is what is remembered of a family, and the points of the page under
// way.
type family struct {
	name        string
	description string
	unit        string
	page        uint64 // the last one that the family is on

	gauges     dto.MetricType // of its gauges: gauge or untyped, which are one metric
	gaugesPage uint64         // the last one with any

	series []*series // on that page, in its order
	old    []*series // on the page before, while that page is under way
	next   int       // in old, where the next metric is expected
	expect int       // number of metrics, but for those of a second family of that name
	index  map[uint64]*series

	groups map[groupKey]*group
	bounds []float64 // of the last histogram; mostly, all have the same
}

// begin starts the page of the given number, unless the family was already
// seen on it: what the first of a name says is kept.
func (f *family) begin(mf *dto.MetricFamily, typ dto.MetricType, number uint64) {
	if (typ == dto.MetricType_GAUGE || typ == dto.MetricType_UNTYPED) && f.gaugesPage != number {
		f.gauges, f.gaugesPage = typ, number
	}
	if f.page == number {
		return
	}
	f.page = number
	f.series, f.old = slices.Grow(f.old[:0], len(mf.GetMetric())), f.series
	f.next = 0
	f.expect = len(mf.GetMetric())
	f.unit = unit(cut(mf.GetUnit(), maxUnit))
	f.description = validUTF8(cut(mf.GetHelp(), maxHelp))
}

// sharedBounds returns bounds as they may be kept.
func (f *family) sharedBounds(bounds []float64) []float64 {
	if !slices.Equal(f.bounds, bounds) {
		f.bounds = slices.Clone(bounds)
	}
	return f.bounds
}

// endVanished ends every series that was on the last page and is not on p,
// and frees it.
func (f *family) endVanished(p *page) {
	if f.page != p.number {
		f.series, f.old = f.old[:0], f.series
	}
	for _, s := range f.old {
		if s.page != p.number {
			s.end(p)
		}
	}
	clear(f.old)
	f.old = f.old[:0]
	f.index = nil
	if len(f.series) < cap(f.series)/4 {
		f.series = slices.Clip(slices.Clone(f.series))
	}
	if len(f.series) < cap(f.old)/4 {
		f.old = nil
	}
}

// sortedGroups returns the groups in a fixed order within each scope.
func (f *family) sortedGroups() []*group {
	groups := make([]*group, 0, len(f.groups))
	for _, g := range f.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(a.kind, b.kind) })
	return groups
}

// series is what is remembered of a series from one page to the next. Times
// are Unix nanoseconds; 0 is unknown.
type series struct {
	hash  uint64
	attrs attribute.Set
	scope *scope
	group *group // of its last point; nil before the first
	page  uint64 // the last one that the series is on

	live     bool // its last point has a value
	observed bool // what follows is set
	created  int64
	start    int64 // in effect
	time     int64 // of the last observation

	// The last observation, by the kind of the group.
	value       float64 // a summary's count
	explicit    *explicit
	exponential *exponential
}

// find returns the series of f with the given labels, made if it is new, and
// marks it as seen.
func (t *Translator) find(f *family, labels []*dto.LabelPair) (s *series, dropped string) {
	h := t.hash(labels)
	// Pages keep their order: the series is nearly always the next one of the
	// last page, or the one after it where one vanished.
	for i := f.next; i < len(f.old) && i < f.next+2; i++ {
		if s := f.old[i]; s.hash == h && s.page != t.page.number {
			f.next = i + 1
			t.see(f, s)
			return s, ""
		}
	}
	if f.index == nil {
		f.index = make(map[uint64]*series, max(len(f.old), f.expect))
		for _, list := range [][]*series{f.old, f.series} {
			for _, s := range list {
				f.index[s.hash] = s
			}
		}
	}
	if s = f.index[h]; s == nil {
		if s = t.newSeries(labels); s == nil {
			return nil, DropInvalidLabel
		}
		s.hash = h
		f.index[h] = s
	} else if s.page == t.page.number {
		return nil, DropDuplicate
	}
	t.see(f, s)
	return s, ""
}

// see notes that s is on the page under way.
func (t *Translator) see(f *family, s *series) {
	s.page = t.page.number
	s.keep(&t.page)
	f.series = append(f.series, s)
}

// keep keeps what s refers to from being forgotten at the end of p.
func (s *series) keep(p *page) {
	s.scope.page = p.number
	if s.group != nil {
		s.group.page = p.number
	}
}

// hash identifies a set of labels within a family, whatever their order and
// leaving out empty values. It is keyed, so a page cannot be made to collide,
// and by chance two of n series do with a probability of n²/2⁶⁵.
func (t *Translator) hash(labels []*dto.LabelPair) uint64 {
	var sum uint64
	for _, l := range labels {
		if v := l.GetValue(); v != "" {
			hi, lo := bits.Mul64(
				maphash.String(t.seed, l.GetName())^0x9e3779b97f4a7c15,
				maphash.String(t.seed, v)^0xd1b54a32d192ed03)
			sum += hi ^ lo
		}
	}
	return sum
}

// newSeries returns a series with the given labels, or nil if they are
// invalid.
func (t *Translator) newSeries(labels []*dto.LabelPair) *series {
	attrs := t.scratch.attrs[:0]
	var sc instrumentation.Scope
	var scopeAttrs []attribute.KeyValue
	scoped := false
	for _, l := range labels {
		name, value := l.GetName(), l.GetValue()
		if value == "" {
			continue
		}
		if name == "" || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil
		}
		key, ok := strings.CutPrefix(name, "otel_scope_")
		if !ok {
			attrs = append(attrs, t.scratch.attribute(len(attrs), name, value))
			continue
		}
		scoped = true
		value = strings.Clone(value)
		var field *string
		switch key {
		case "":
			return nil
		case "name":
			field = &sc.Name
		case "version":
			field = &sc.Version
		case "schema_url":
			field = &sc.SchemaURL
		default:
			scopeAttrs = append(scopeAttrs, attribute.String(strings.Clone(key), value))
			continue
		}
		if *field != "" {
			return nil // a repeated name
		}
		*field = value
	}
	if len(attrs) > maxLabels || len(scopeAttrs) > maxLabels {
		return nil
	}
	if !scoped {
		sc = instrumentation.Scope{Name: ScopeName, Version: t.cfg.Version}
	}
	s := &series{attrs: attribute.NewSet(attrs...)}
	sc.Attributes = attribute.NewSet(scopeAttrs...)
	if s.attrs.Len() != len(attrs) || sc.Attributes.Len() != len(scopeAttrs) {
		return nil // a repeated name
	}
	t.scratch.attrs = attrs
	if s.scope = t.scopes[sc]; s.scope == nil {
		t.scopesSeen++
		s.scope = &scope{Scope: sc, number: t.scopesSeen}
		t.scopes[sc] = s.scope
	}
	return s
}

// end gives a series that has a value a last point that has none.
func (s *series) end(p *page) {
	if s.live {
		s.group.addStale(s, p.now)
	}
}

// groupOf returns the group for points of s of the given kind.
func (t *Translator) groupOf(f *family, s *series, k kind) *group {
	if s.group != nil && s.group.kind == k {
		return s.group
	}
	if s.group != nil {
		// The series changed its type: another stream begins. The old one gets
		// no last point: to a backend that tells series by name and attributes
		// it would be a second point of the new one, at the same time.
		s.live = false
		s.observed, s.value, s.explicit, s.exponential = false, 0, nil, nil
	}
	key := groupKey{s.scope, k}
	if s.group = f.groups[key]; s.group == nil {
		s.group = &group{groupKey: key}
		if len(f.groups) == 0 && k <= kindSum {
			s.group.numbers = make([]metricdata.DataPoint[float64], 0, f.expect) // mostly, all are of one group
		}
		f.groups[key] = s.group
	}
	s.group.page = t.page.number
	return s.group
}

// scope is an instrumentation scope, and its metrics of the page under way.
type scope struct {
	instrumentation.Scope
	number  uint64 // in the order of appearance
	page    uint64 // the last one with a series of the scope
	metrics []metricdata.Metrics
}

// kind is the kind of data of a group.
type kind uint8

const (
	kindGauge kind = iota
	kindSum
	kindHistogram
	kindExponential
	kindSummary
)

type groupKey struct {
	scope *scope
	kind  kind
}

// group holds the points of a family that make one metric.
type group struct {
	groupKey
	page         uint64 // the last one with a series of the group
	numbers      []metricdata.DataPoint[float64]
	histograms   []metricdata.HistogramDataPoint[float64]
	exponentials []metricdata.ExponentialHistogramDataPoint[float64]
	summaries    []metricdata.SummaryDataPoint
}

// reset empties the group for another page, with the room that the last one
// took.
func (g *group) reset() {
	g.numbers = reuse(g.numbers)
	g.histograms = reuse(g.histograms)
	g.exponentials = reuse(g.exponentials)
	g.summaries = reuse(g.summaries)
}

func reuse[S ~[]E, E any](s S) S {
	if len(s) < cap(s)/4 {
		return nil
	}
	clear(s)
	return s[:0]
}

// data returns the points of g on the page under way, or nil if there are none.
func (t *Translator) data(g *group) metricdata.Aggregation {
	switch {
	case len(g.numbers) > 0 && g.kind == kindGauge:
		return metricdata.Gauge[float64]{DataPoints: g.numbers}
	case len(g.numbers) > 0:
		return metricdata.Sum[float64]{DataPoints: g.numbers, Temporality: temporality(t.sumDelta), IsMonotonic: true}
	case len(g.histograms) > 0:
		return metricdata.Histogram[float64]{DataPoints: g.histograms, Temporality: temporality(t.histogramsDelta)}
	case len(g.exponentials) > 0:
		return metricdata.ExponentialHistogram[float64]{DataPoints: g.exponentials, Temporality: temporality(t.histogramsDelta)}
	case len(g.summaries) > 0:
		return metricdata.Summary{DataPoints: g.summaries}
	default:
		return nil
	}
}

func temporality(delta bool) metricdata.Temporality {
	if delta {
		return metricdata.DeltaTemporality
	}
	return metricdata.CumulativeTemporality
}

// addStale adds a point of s without a recorded value.
func (g *group) addStale(s *series, ts int64) {
	s.live = false
	at := unix(ts)
	switch g.kind {
	case kindGauge, kindSum:
		g.numbers = append(g.numbers, metricdata.DataPoint[float64]{Attributes: s.attrs, Time: at, Value: staleNaN})
	case kindHistogram:
		g.histograms = append(g.histograms, metricdata.HistogramDataPoint[float64]{Attributes: s.attrs, Time: at, Sum: staleNaN})
	case kindExponential:
		g.exponentials = append(g.exponentials, metricdata.ExponentialHistogramDataPoint[float64]{Attributes: s.attrs, Time: at, Sum: staleNaN})
	case kindSummary:
		g.summaries = append(g.summaries, metricdata.SummaryDataPoint{Attributes: s.attrs, Time: at, Sum: staleNaN})
	}
}
