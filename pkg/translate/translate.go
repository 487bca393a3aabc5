// Package translate turns Prometheus metric families into OpenTelemetry metric
// data.
//
// In comes one decoded page and the time it was scraped; out goes a [Result]:
// scopes of metricdata, what the page says of its resource, and a count of
// every sample kept and every point dropped. The output depends on the page
// and on the pages before it alone: no I/O, no clock of its own, no logging.
//
// What metricdata cannot say (prometheus.type, an unset histogram sum, a
// series that vanished) is written on the outgoing request by [Finish].
//
// The rules are those of the OpenTelemetry specification,
// compatibility/prometheus_and_openmetrics.md; docs/translation.md tells them
// to users, by number.
package translate

import (
	"cmp"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// ScopeName is the instrumentation scope of every point whose labels name no
// other.
const ScopeName = "otelmetricsplugin/pkg/translate"

// Config configures a [Translator]. The zero value translates every family
// with cumulative temporality.
type Config struct {
	// Version is the version of the default instrumentation scope.
	Version string
	// Temporality selects the temporality of counters and histograms; nil is
	// cumulative for both. A page is read at collection, so a counter is asked
	// for as an observable counter; a histogram, of which there is no
	// observable kind, as a histogram.
	Temporality sdkmetric.TemporalitySelector
	// Keep reports whether the family of that name is wanted; nil keeps all.
	Keep func(family string) bool
}

// Translator translates the successive pages of one target. It remembers of
// the last page what start times and deltas need, and no more. It is not safe
// for concurrent use.
type Translator struct {
	cfg             Config
	seed            maphash.Seed
	sumDelta        bool
	histogramsDelta bool

	families   map[string]*family
	scopes     map[instrumentation.Scope]*scope
	scopesSeen uint64

	page page // under way
	last page // the last one that was translated; missed ones are not

	scratch scratch
	arena   arena // bucket counts of the Result
}

// New returns a Translator that has seen no page.
func New(cfg Config) *Translator {
	t := &Translator{
		cfg:      cfg,
		seed:     maphash.MakeSeed(),
		families: make(map[string]*family),
		scopes:   make(map[instrumentation.Scope]*scope),
	}
	if sel := cfg.Temporality; sel != nil {
		t.sumDelta = sel(sdkmetric.InstrumentKindObservableCounter) == metricdata.DeltaTemporality
		t.histogramsDelta = sel(sdkmetric.InstrumentKindHistogram) == metricdata.DeltaTemporality
	}
	return t
}

// Result is one translated page. It is valid until the next call on the
// Translator that returned it.
type Result struct {
	// Scopes holds the points, by instrumentation scope. Scopes are in the order
	// in which they first appeared, metrics in that of their names.
	Scopes []metricdata.ScopeMetrics
	// Resource is what the page says of the process that it came from, sorted
	// by key. It is empty where the page says nothing (an engine's page in its
	// first seconds): what an earlier page said then still holds.
	Resource []attribute.KeyValue
	// Samples is the number of samples on the page, counted as Prometheus
	// counts the lines of the text format: scrape_samples_scraped.
	Samples int
	// Kept is the number of those in families that Config.Keep wants:
	// scrape_samples_post_metric_relabeling.
	Kept int
	// Dropped counts the points that were not translated, by reason: one of
	// the Drop constants.
	Dropped map[string]int

	types  map[string]dto.MetricType // of the gauges of that name; all other data tells its type
	scopes map[scopeID]bool          // of Scopes
}

// Translate translates one page that was scraped at the given time, which
// becomes the timestamp of every sample without one of its own. It accepts any
// page, whatever it holds, and counts what cannot be translated in
// Result.Dropped. Of the families it keeps nothing.
func (t *Translator) Translate(families []*dto.MetricFamily, at time.Time) *Result {
	r := t.begin(at)
	t.page.findProcessStart(families, t.last)
	for _, mf := range families {
		typ := typeOf(mf)
		samples := countSamples(typ, mf.GetMetric())
		r.Samples += samples
		if t.cfg.Keep != nil && !t.cfg.Keep(mf.GetName()) {
			continue
		}
		r.Kept += samples
		if mf.GetName() != targetInfo {
			t.family(mf, typ, r)
		}
	}
	r.Resource = resourceOf(families)
	for _, f := range t.families {
		f.endVanished(&t.page)
	}
	t.last = t.page
	return t.end(r)
}

// Missed tells the Translator that the scrape at the given time gave no page:
// every series of the last page gets one point without a recorded value. What
// start times and deltas need of the last page is kept, so that a series that
// comes back goes on from there.
func (t *Translator) Missed(at time.Time) *Result {
	r := t.begin(at)
	for _, f := range t.families {
		for _, s := range f.series {
			s.end(&t.page)
			s.keep(&t.page)
		}
	}
	return t.end(r)
}

// begin starts a page, and with it the end of the Result before.
func (t *Translator) begin(at time.Time) *Result {
	t.page = page{number: t.page.number + 1, at: at, now: at.UnixNano(), gaps: maxGaps}
	t.arena.reset()
	for _, f := range t.families {
		for _, g := range f.groups {
			g.reset()
		}
	}
	for _, sc := range t.scopes {
		sc.metrics = reuse(sc.metrics)
	}
	return &Result{
		Dropped: make(map[string]int),
		types:   make(map[string]dto.MetricType, len(t.families)),
		scopes:  make(map[scopeID]bool, len(t.scopes)),
	}
}

// end gathers the points of the page under way into r, and forgets the
// families, groups and scopes that have no series left.
func (t *Translator) end(r *Result) *Result {
	for _, name := range slices.Sorted(maps.Keys(t.families)) {
		f := t.families[name]
		r.types[name] = f.gauges
		for _, g := range f.sortedGroups() {
			if data := t.data(g); data != nil {
				g.scope.metrics = append(g.scope.metrics, metricdata.Metrics{
					Name: name, Description: f.description, Unit: f.unit, Data: data,
				})
			}
			if g.page != t.page.number {
				delete(f.groups, g.groupKey)
			}
		}
		if len(f.series) == 0 {
			delete(t.families, name)
		}
	}
	r.Scopes = make([]metricdata.ScopeMetrics, 0, len(t.scopes))
	byNumber := func(a, b *scope) int { return cmp.Compare(a.number, b.number) }
	for _, sc := range slices.SortedFunc(maps.Values(t.scopes), byNumber) {
		if len(sc.metrics) > 0 {
			r.Scopes = append(r.Scopes, metricdata.ScopeMetrics{Scope: sc.Scope, Metrics: sc.metrics})
			r.scopes[scopeID{sc.Name, sc.Version, sc.SchemaURL}] = true
		}
		if sc.page != t.page.number {
			delete(t.scopes, sc.Scope)
		}
	}
	return r
}

// family translates the metrics of one family.
func (t *Translator) family(mf *dto.MetricFamily, typ dto.MetricType, r *Result) {
	name := mf.GetName()
	switch {
	case name == "" || !utf8.ValidString(name):
		r.Dropped[DropInvalidName] += len(mf.GetMetric())
		return
	case typ == dto.MetricType_GAUGE_HISTOGRAM:
		r.Dropped[DropGaugeHistogram] += len(mf.GetMetric())
		return
	}
	f := t.families[name]
	if f == nil {
		f = &family{name: strings.Clone(name), groups: make(map[groupKey]*group)}
		t.families[f.name] = f
	}
	f.begin(mf, typ, t.page.number)
	for _, m := range mf.GetMetric() {
		if reason := t.metric(f, typ, m); reason != "" {
			r.Dropped[reason]++
		}
	}
}

// metric translates one metric of a family, or says why not.
func (t *Translator) metric(f *family, typ dto.MetricType, m *dto.Metric) (dropped string) {
	if m == nil {
		return DropNoValue
	}
	s, dropped := t.find(f, m.GetLabel())
	if dropped != "" {
		return dropped
	}
	ts := t.page.now
	if ms := m.TimestampMs; ms != nil {
		// OTLP has no time before 1970, Go has none in nanoseconds after 2262.
		if *ms < 0 || *ms > math.MaxInt64/int64(time.Millisecond) {
			return DropInvalidTimestamp
		}
		ts = *ms * int64(time.Millisecond)
	}
	switch typ {
	case dto.MetricType_COUNTER:
		if m.GetCounter() != nil {
			return t.counter(f, s, m.GetCounter(), ts)
		}
	case dto.MetricType_GAUGE:
		if m.GetGauge() != nil {
			return t.gauge(f, s, m.GetGauge().GetValue(), ts)
		}
	case dto.MetricType_UNTYPED:
		if m.GetUntyped() != nil {
			return t.gauge(f, s, m.GetUntyped().GetValue(), ts)
		}
	case dto.MetricType_HISTOGRAM:
		if m.GetHistogram() != nil {
			return t.histogram(f, s, m.GetHistogram(), ts)
		}
	case dto.MetricType_SUMMARY:
		if m.GetSummary() != nil {
			return t.summary(f, s, m.GetSummary(), ts)
		}
	}
	return DropNoValue
}
