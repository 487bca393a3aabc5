// Package translate turns Prometheus expositions into OpenTelemetry metrics, in
// one pass from the bytes of delimited protobuf to the bytes of OTLP requests.
//
// It is pure: no I/O, no clock, no logging. It accepts any bytes, and counts
// what it cannot translate. The rules are those of the OpenTelemetry
// specification, compatibility/prometheus_and_openmetrics.md; docs/translation.md
// lists them by number.
package translate

import (
	"hash/maphash"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"otelmetricsplugin/internal/otlp"
)

// ScopeName is the instrumentation scope of every point whose labels name no
// other.
const ScopeName = "otelmetricsplugin/pkg/translate"

// Config configures a [Translator]. The zero value translates every family
// with cumulative temporality, under the resource that the exposition names.
type Config struct {
	// Version is the version of the default instrumentation scope.
	Version string
	// Temporality selects the temporality of counters and histograms; nil is
	// cumulative for both. An exposition is read at collection, so a counter is
	// asked for as an observable counter; a histogram, of which there is no
	// observable kind, as a histogram.
	Temporality sdkmetric.TemporalitySelector
	// Keep reports whether the family of that name is wanted; nil keeps all.
	Keep func(family string) bool
	// Resource wins over what the exposition says of the resource, which wins
	// over Defaults.
	Resource, Defaults []attribute.KeyValue
}

// Result is what became of one exposition.
type Result struct {
	// Samples is the number of samples of the exposition, counted as Prometheus
	// counts the lines of the text format: scrape_samples_scraped.
	Samples int
	// Kept is the number of those in families that Config.Keep wants:
	// scrape_samples_post_metric_relabeling.
	Kept int
	// Dropped counts the points that were not translated, by reason: one of
	// the Drop constants. It is nil if there were none.
	Dropped map[string]int
}

// Translator translates the successive expositions of one target. It remembers
// of the last one what start times and deltas need, and no more. It is not safe
// for concurrent use.
type Translator struct {
	cfg            Config
	seed           maphash.Seed
	sumDelta       bool
	histogramDelta bool

	families map[string]*family
	names    []string // of the families, sorted

	scopes      []scope // the default scope first
	scopePlaces map[string]uint32
	scopesFree  []uint32
	scopeOrder  []uint32
	scopesSeen  uint64

	resource     []byte // encoded
	resourceHash uint64 // of the families that it is from

	page page // under way
	last page // the last one that was translated; missed ones are not

	// Of the exposition under way.
	exposition []byte
	frames     []frame
	w          *otlp.Writer
	result     Result
	indexed    *family // whose series index has
	index      map[uint64]uint32

	scratch scratch
	points  points
}

// points are those that the last one of each kind was made in.
type points struct {
	number      otlp.NumberPoint
	histogram   otlp.HistogramPoint
	exponential otlp.ExponentialPoint
	summary     otlp.SummaryPoint
}

// scratch is room to read one metric in.
type scratch struct {
	gathered           []byte // labels
	labels             []label
	attributes         []byte
	counter            counterValue
	summary            summaryValue
	histogram          histogramValue
	explicit           explicit
	diff               []uint64
	exponential        exponential
	exponentialDiff    exponential
	exemplars          []byte
	exemplarAttributes []byte
}

// forget lets go of the exposition, and of the memory that metrics took which
// are much larger than real ones.
func (x *scratch) forget() {
	const many = 4 << 10
	if max(cap(x.labels), cap(x.histogram.buckets), cap(x.histogram.exemplars), cap(x.summary.quantiles)) > many ||
		max(cap(x.histogram.positive.deltas), cap(x.histogram.negative.deltas)) > 8*many ||
		max(cap(x.histogram.positive.spans), cap(x.histogram.negative.spans)) > 8*many ||
		max(cap(x.gathered), cap(x.attributes), cap(x.exemplars), cap(x.exemplarAttributes)) > 64*many {
		*x = scratch{}
		return
	}
	clear(x.labels[:cap(x.labels)])
	clear(x.histogram.buckets[:cap(x.histogram.buckets)])
	clear(x.histogram.exemplars[:cap(x.histogram.exemplars)])
	x.counter = counterValue{}
}

// New returns a Translator that has seen no exposition.
func New(cfg Config) *Translator {
	defaultScope := scope{Scope: otlp.NewScope(ScopeName, cfg.Version, "", nil), number: 1}
	t := &Translator{
		cfg:         cfg,
		seed:        maphash.MakeSeed(),
		families:    make(map[string]*family),
		scopes:      []scope{defaultScope},
		scopePlaces: map[string]uint32{defaultScope.Key(): 0},
		scopesSeen:  1,
	}
	t.resource = t.mergeResource(nil)
	if sel := cfg.Temporality; sel != nil {
		t.sumDelta = sel(sdkmetric.InstrumentKindObservableCounter) == metricdata.DeltaTemporality
		t.histogramDelta = sel(sdkmetric.InstrumentKindHistogram) == metricdata.DeltaTemporality
	}
	return t
}

// Translate translates an exposition, delimited protobuf of
// io.prometheus.client.MetricFamily, that was scraped at the given time, which
// becomes the timestamp of every sample without one of its own. The points go to
// w, under the resource that the exposition describes. It accepts any bytes and
// keeps none of them; where they are malformed, a message ends.
func (t *Translator) Translate(exposition []byte, at time.Time, w *otlp.Writer) Result {
	t.begin(at)
	t.exposition = exposition[:min(len(exposition), maxExposition)]
	t.readFrames()
	t.describe(t.framesOf(engineInfo), t.framesOf(targetInfo))
	for _, f := range t.framesOf(processStartTime) {
		t.readProcessStart(f)
	}
	t.page.findRestart(t.last)

	t.open(w)
	var f *family
	for i := range t.frames {
		frame := &t.frames[i]
		name := t.bytes(frame.name)
		if f == nil || f.name != string(name) {
			if f != nil {
				f.end(t)
			}
			f = t.familyOf(name)
		}
		t.family(f, frame)
	}
	if f != nil {
		f.end(t)
	}
	t.endVanished()
	t.last = t.page
	t.exposition = nil
	t.scratch.forget()
	t.points = points{}
	return t.end()
}

// Missed notes that the scrape at the given time gave no exposition: every
// series of the last one gets one point without a recorded value. What start
// times and deltas need is kept, so that a series that comes back goes on from
// there.
func (t *Translator) Missed(at time.Time, w *otlp.Writer) Result {
	t.begin(at)
	t.open(w)
	for _, name := range t.names {
		f := t.families[name]
		for i := range f.series {
			t.markStale(f, &f.series[i], t.page.now)
		}
		t.scopes[0].write(t)
		f.kind = 0
	}
	for i := range t.scopes {
		t.scopes[i].page = t.page.number
	}
	return t.end()
}

// begin begins an exposition.
func (t *Translator) begin(at time.Time) {
	t.page = page{number: t.page.number + 1, at: at, now: at.UnixNano(), gaps: maxGaps}
	t.result = Result{}
	t.indexed = nil
}

// open begins to write.
func (t *Translator) open(w *otlp.Writer) {
	t.w = w
	w.Resource(t.resource)
	w.Scope(t.scopes[0].Scope)
}

// end ends an exposition.
func (t *Translator) end() Result {
	t.writeScopes()
	if t.indexed == nil {
		t.index = nil // expositions that keep their order do not need it
	}
	t.w, t.indexed = nil, nil
	return t.result
}

func (t *Translator) keep(family string) bool { return t.cfg.Keep == nil || t.cfg.Keep(family) }

func (t *Translator) drop(reason string, points int) {
	if t.result.Dropped == nil {
		t.result.Dropped = make(map[string]int)
	}
	t.result.Dropped[reason] += points
}

// framesOf returns the frames of that name.
func (t *Translator) framesOf(name string) []frame {
	compare := func(f frame, name string) int {
		switch b := t.bytes(f.name); { // comparisons of a converted string do not copy it
		case string(b) < name:
			return -1
		case string(b) > name:
			return 1
		default:
			return 0
		}
	}
	first, found := slices.BinarySearchFunc(t.frames, name, compare)
	if !found {
		return nil
	}
	n := 1
	for first+n < len(t.frames) && compare(t.frames[first+n], name) == 0 {
		n++
	}
	return t.frames[first : first+n]
}

// familyOf returns the family of that name, nil if the name is invalid.
func (t *Translator) familyOf(name []byte) *family {
	f := t.families[string(name)]
	if f == nil {
		if len(name) == 0 || !utf8.Valid(name) {
			return nil
		}
		f = &family{name: string(name), keep: t.keep(string(name))}
		t.families[f.name] = f
		t.names = append(t.names, f.name)
	}
	return f
}

// endVanished ends the families that are not in the exposition under way.
func (t *Translator) endVanished() {
	if !slices.IsSorted(t.names) {
		slices.Sort(t.names)
	}
	t.names = slices.DeleteFunc(t.names, func(name string) bool {
		f := t.families[name]
		if f.page == t.page.number {
			return false
		}
		f.end(t)
		delete(t.families, name)
		return true
	})
}

// family translates the metrics of a family, nil if it has an invalid name.
func (t *Translator) family(f *family, frame *frame) {
	wanted, drop := true, ""
	switch {
	case f == nil:
		drop = DropInvalidName
		wanted = t.keep(string(t.bytes(frame.name)))
	case frame.typ == gaugeHistogram && f.name != targetInfo:
		drop = DropGaugeHistogram
	}
	if f != nil {
		wanted = f.keep
		f.begin(t, frame)
	}
	translated := wanted && drop == "" && f.name != targetInfo
	if translated && len(f.series) == 0 {
		f.grow(frame)
	}
	samples := 0
	for list := (fields{rest: t.bytes(frame.body)}); list.next(); {
		if !list.isBytes(familyMetric) {
			continue
		}
		var m metric
		m.read(list.bytes, frame.typ, &t.scratch.gathered)
		samples += t.readValue(&m, frame.typ)
		if !translated {
			continue
		}
		if reason := t.metric(f, frame.typ, &m); reason != "" {
			t.drop(reason, 1)
		}
	}
	t.result.Samples += samples
	if wanted {
		t.result.Kept += samples
		if drop != "" {
			t.drop(drop, int(frame.metrics))
		}
	}
}

// readValue reads the value of a metric that has more than a number, into
// t.scratch, and returns how many samples the metric is.
func (t *Translator) readValue(m *metric, typ metricType) (samples int) {
	switch {
	case !m.value.is:
		return 1
	case typ == histogram || typ == gaugeHistogram:
		t.scratch.histogram.read(m.value.bytes)
		return t.scratch.histogram.samples()
	case typ == summary:
		t.scratch.summary.read(m.value.bytes)
		return t.scratch.summary.samples()
	default:
		return 1
	}
}

// metric translates one metric of a family, whose value readValue has read, or
// says why not.
func (t *Translator) metric(f *family, typ metricType, m *metric) (dropped string) {
	s, dropped := t.find(f, m.labels)
	if dropped != "" {
		return dropped
	}
	ts := t.page.now
	if m.timed {
		// OTLP has no time before 1970, Go has none in nanoseconds after 2262.
		if m.timestamp < 0 || m.timestamp > math.MaxInt64/int64(time.Millisecond) {
			return DropInvalidTimestamp
		}
		ts = m.timestamp * int64(time.Millisecond)
	}
	if !m.value.is {
		return DropNoValue
	}
	switch typ {
	case counter:
		t.scratch.counter.read(m.value.bytes)
		return t.counter(f, s, &t.scratch.counter, ts)
	case histogram:
		return t.histogram(f, s, &t.scratch.histogram, ts)
	case summary:
		return t.summary(f, s, &t.scratch.summary, ts)
	default:
		t.gauge(f, s, readValue(m.value.bytes), ts)
		return ""
	}
}
