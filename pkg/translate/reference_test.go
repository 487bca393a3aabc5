package translate_test

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"otelmetricsplugin/pkg/translate"
)

// reference translates as docs/translation.md says, plainly and slowly: from
// decoded families to the generated OTLP types, with a map of series by their
// labels. The translator is held against it.
type reference struct {
	cfg            translate.Config
	sumDelta       bool
	histogramDelta bool

	families map[string]*refFamily
	scopes   []*refScope          // those of the series, in the order in which they first appeared
	said     []attribute.KeyValue // of the resource, by the last exposition that said anything

	page, last refPage
}

// refPage is what holds for an exposition as a whole. Times are Unix
// nanoseconds; 0 is unknown.
type refPage struct {
	seen         bool
	at           time.Time
	now          int64
	processStart int64
	restarted    bool // the process began after the last exposition
	gaps         int  // empty native buckets that may still be filled in

	dropped map[string]int
	names   []string              // of families, in the order of their metrics
	texts   map[string]*refFamily // by name
	points  map[string][]refPoint // by name
}

type refFamily struct {
	description, unit string
	gauges            dto.MetricType // gauge or untyped: what its gauges are
	series            []*refSeries   // in the order of the last exposition
	byKey             map[string]*refSeries
}

func (f *refFamily) add(s *refSeries) {
	f.series = append(f.series, s)
	f.byKey[s.key] = s
}

type refScope struct {
	key       string
	scope     *commonpb.InstrumentationScope
	schemaURL string
	isDefault bool
}

type refSeries struct {
	key        string // tells series of a family: scope and attributes
	attributes []*commonpb.KeyValue
	scope      *refScope

	kind     refKind // of its last point, or noKind
	live     bool    // its last point has a value
	observed bool    // what follows is set
	created  int64
	start    int64
	time     int64

	value       float64 // of a counter; the count of a summary
	explicit    *refExplicit
	exponential *refExponential
}

type refKind int

const (
	noKind refKind = iota
	gaugeKind
	sumKind
	histogramKind
	exponentialKind
	summaryKind
)

// refPoint is a data point: a pointer to one of the generated types.
type refPoint struct {
	scope *refScope
	kind  refKind
	point any
}

func newReference(cfg translate.Config) *reference {
	r := &reference{cfg: cfg, families: make(map[string]*refFamily)}
	if cfg.Temporality != nil {
		r.sumDelta = cfg.Temporality(sdkmetric.InstrumentKindObservableCounter) == metricdata.DeltaTemporality
		r.histogramDelta = cfg.Temporality(sdkmetric.InstrumentKindHistogram) == metricdata.DeltaTemporality
	}
	return r
}

func (r *reference) translate(families []*dto.MetricFamily, at time.Time) (*colmetricpb.ExportMetricsServiceRequest, translate.Result) {
	var result translate.Result
	r.begin(at)
	// One that has no metrics says nothing.
	families = slices.DeleteFunc(slices.Clone(families), func(mf *dto.MetricFamily) bool { return len(mf.GetMetric()) == 0 })
	slices.SortStableFunc(families, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	r.findProcessStart(families)
	if said := refResource(families); len(said) > 0 {
		r.said = said
	}

	onPage := make(map[string]*refFamily) // with the series of this exposition
	for _, mf := range families {
		typ := refTypeOf(mf)
		samples := refSamples(typ, mf.GetMetric())
		result.Samples += samples
		if r.cfg.Keep != nil && !r.cfg.Keep(mf.GetName()) {
			continue
		}
		result.Kept += samples
		if mf.GetName() != "target_info" {
			r.family(onPage, mf, typ)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.families)) {
		r.endVanished(name, onPage[name])
	}
	r.families = onPage
	r.last = r.page
	request := r.request()
	result.Dropped = r.page.dropped
	return request, result
}

func (r *reference) missed(at time.Time) (*colmetricpb.ExportMetricsServiceRequest, translate.Result) {
	r.begin(at)
	for _, name := range slices.Sorted(maps.Keys(r.families)) {
		r.page.show(name, r.families[name])
		for _, s := range r.families[name].series {
			if s.live {
				r.stale(name, s)
			}
		}
	}
	return r.request(), translate.Result{}
}

func (r *reference) begin(at time.Time) {
	r.page = refPage{seen: true, at: at, now: at.UnixNano(), gaps: 1 << 20,
		texts: make(map[string]*refFamily), points: make(map[string][]refPoint)}
}

// show notes that the metrics of f come next in the request.
func (p *refPage) show(name string, f *refFamily) {
	p.names = append(p.names, name)
	p.texts[name] = f
}

func (r *reference) drop(reason string) {
	if r.page.dropped == nil {
		r.page.dropped = make(map[string]int)
	}
	r.page.dropped[reason]++
}

func (r *reference) family(onPage map[string]*refFamily, mf *dto.MetricFamily, typ dto.MetricType) {
	name := mf.GetName()
	for range mf.GetMetric() {
		switch {
		case name == "" || !utf8.ValidString(name):
			r.drop(translate.DropInvalidName)
		case typ == dto.MetricType_GAUGE_HISTOGRAM:
			r.drop(translate.DropGaugeHistogram)
		}
	}
	if name == "" || !utf8.ValidString(name) {
		return
	}
	f := onPage[name]
	if f == nil { // what the first of a name says is kept
		f = &refFamily{
			description: refValid(refCut(mf.GetHelp(), 4<<10)),
			unit:        refUnit(refCut(mf.GetUnit(), 64)),
			gauges:      -1,
			byKey:       make(map[string]*refSeries),
		}
		onPage[name] = f
		r.page.show(name, f)
	}
	if f.gauges < 0 && (typ == dto.MetricType_GAUGE || typ == dto.MetricType_UNTYPED) {
		f.gauges = typ
	}
	for _, m := range mf.GetMetric() {
		if typ == dto.MetricType_GAUGE_HISTOGRAM {
			break
		}
		if reason := r.metric(f, name, typ, m); reason != "" {
			r.drop(reason)
		}
	}
}

// endVanished ends each series of the last exposition that is not on this one.
func (r *reference) endVanished(name string, now *refFamily) {
	before := r.families[name]
	if now == nil {
		now = &refFamily{}
		r.page.show(name, before)
	} else if now.gauges < 0 {
		now.gauges = before.gauges
	}
	for _, s := range before.series {
		if s.live && now.byKey[s.key] == nil {
			r.stale(name, s)
		}
	}
}

func (r *reference) metric(f *refFamily, name string, typ dto.MetricType, m *dto.Metric) (dropped string) {
	s := r.newSeries(m.GetLabel())
	if s == nil {
		return translate.DropInvalidLabel
	}
	if f.byKey[s.key] != nil {
		return translate.DropDuplicate
	}
	if before := r.families[name]; before != nil && before.byKey[s.key] != nil {
		s = before.byKey[s.key]
	}
	f.add(s)

	ts := r.page.now
	if m.TimestampMs != nil {
		if *m.TimestampMs < 0 || *m.TimestampMs > math.MaxInt64/int64(time.Millisecond) {
			return translate.DropInvalidTimestamp
		}
		ts = *m.TimestampMs * 1e6
	}
	switch {
	case typ == dto.MetricType_COUNTER && m.Counter != nil:
		return r.counter(name, s, m.Counter, ts)
	case typ == dto.MetricType_GAUGE && m.Gauge != nil:
		return r.gauge(name, s, m.Gauge.GetValue(), ts)
	case typ == dto.MetricType_UNTYPED && m.Untyped != nil:
		return r.gauge(name, s, m.Untyped.GetValue(), ts)
	case typ == dto.MetricType_HISTOGRAM && m.Histogram != nil:
		return r.histogram(name, s, m.Histogram, ts)
	case typ == dto.MetricType_SUMMARY && m.Summary != nil:
		return r.summary(name, s, m.Summary, ts)
	default:
		return translate.DropNoValue
	}
}

// Series.

// newSeries returns a series with the given labels, or nil if they are invalid.
func (r *reference) newSeries(labels []*dto.LabelPair) *refSeries {
	attributes, scopeAttributes, scope := map[string]string{}, map[string]string{}, map[string]string{}
	for _, l := range labels {
		name, value := l.GetName(), l.GetValue()
		if value == "" {
			continue
		}
		if name == "" || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil
		}
		into := attributes
		if key, ok := strings.CutPrefix(name, "otel_scope_"); ok {
			switch name = key; key {
			case "":
				return nil
			case "name", "version", "schema_url":
				into = scope
			default:
				into = scopeAttributes
			}
		}
		if _, repeated := into[name]; repeated {
			return nil
		}
		into[name] = value
	}
	if len(attributes) > 256 || len(scopeAttributes) > 256 {
		return nil
	}
	if len(scope)+len(scopeAttributes) == 0 {
		scope = map[string]string{"name": translate.ScopeName, "version": r.cfg.Version}
	}
	sc := &refScope{
		scope: &commonpb.InstrumentationScope{
			Name: scope["name"], Version: scope["version"], Attributes: refAttributes(scopeAttributes),
		},
		schemaURL: scope["schema_url"],
	}
	sc.key = fmt.Sprintf("%q %q %q %q", sc.scope.Name, sc.scope.Version, sc.schemaURL, renderAttrs(sc.scope.Attributes))
	sc.isDefault = sc.scope.Name == translate.ScopeName && sc.scope.Version == r.cfg.Version &&
		sc.schemaURL == "" && len(sc.scope.Attributes) == 0
	s := &refSeries{attributes: refAttributes(attributes)}
	s.key = sc.key + renderAttrs(s.attributes)
	for _, known := range r.scopes {
		if known.key == sc.key {
			s.scope = known
			return s
		}
	}
	r.scopes = append(r.scopes, sc)
	s.scope = sc
	return s
}

// refAttributes returns attributes sorted by key.
func refAttributes(values map[string]string) (attributes []*commonpb.KeyValue) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		attributes = append(attributes, refString(key, values[key]))
	}
	return attributes
}

func refString(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// become makes s a series of the given kind. One that was of another kind
// begins as a new one.
func (s *refSeries) become(k refKind) {
	if s.kind != noKind && s.kind != k {
		s.live = false
		s.observed, s.value, s.explicit, s.exponential = false, 0, nil, nil
	}
	s.kind = k
}

func (r *reference) add(name string, s *refSeries, point any) {
	s.live = true
	r.page.points[name] = append(r.page.points[name], refPoint{s.scope, s.kind, point})
}

// stale adds a point without a recorded value.
func (r *reference) stale(name string, s *refSeries) {
	const flags = uint32(metricpb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)
	at := uint64(r.page.now)
	var point any
	switch s.kind {
	case gaugeKind, sumKind:
		point = &metricpb.NumberDataPoint{Attributes: s.attributes, TimeUnixNano: at, Flags: flags}
	case histogramKind:
		point = &metricpb.HistogramDataPoint{Attributes: s.attributes, TimeUnixNano: at, Flags: flags}
	case exponentialKind:
		point = &metricpb.ExponentialHistogramDataPoint{
			Attributes: s.attributes, TimeUnixNano: at, Flags: flags,
			Positive: &metricpb.ExponentialHistogramDataPoint_Buckets{}, Negative: &metricpb.ExponentialHistogramDataPoint_Buckets{},
		}
	case summaryKind:
		point = &metricpb.SummaryDataPoint{Attributes: s.attributes, TimeUnixNano: at, Flags: flags}
	}
	r.add(name, s, point)
	s.live = false
}

func refStale(v float64) bool { return math.Float64bits(v) == 0x7ff0000000000002 }

// Gauges, counters and summaries.

func (r *reference) gauge(name string, s *refSeries, v float64, ts int64) (dropped string) {
	s.become(gaugeKind)
	if refStale(v) {
		r.staleAt(name, s, ts)
		return ""
	}
	r.add(name, s, &metricpb.NumberDataPoint{
		Attributes: s.attributes, TimeUnixNano: uint64(ts), Value: &metricpb.NumberDataPoint_AsDouble{AsDouble: v},
	})
	return ""
}

// staleAt adds the staleness marker that the exposition itself has for a
// series.
func (r *reference) staleAt(name string, s *refSeries, ts int64) {
	now := r.page.now
	r.page.now = ts
	r.stale(name, s)
	r.page.now = now
}

func (r *reference) counter(name string, s *refSeries, c *dto.Counter, ts int64) (dropped string) {
	v, created := c.GetValue(), refNanos(c.GetCreatedTimestamp())
	s.become(sumKind)
	if refStale(v) {
		r.staleAt(name, s, ts)
		return ""
	}
	if v < 0 {
		return translate.DropNegativeCounter
	}
	var start int64
	if math.IsNaN(v) || math.IsInf(v, 0) {
		if r.sumDelta {
			return translate.DropNotFinite
		}
		start = created
		if start == 0 && s.observed {
			start = s.start
		} else if start == 0 {
			start = r.page.processStart
		}
	} else {
		if v < s.value && s.value-v <= 1e-12*s.value {
			v = s.value // noise
		}
		last := s.value
		change, since := r.observe(s, created, ts, v < last)
		s.value = v
		start = s.start
		if r.sumDelta {
			switch change {
			case refBaseline:
				return translate.DropBaseline
			case refGrown:
				v -= last
			}
			start = since
		}
	}
	p := &metricpb.NumberDataPoint{
		Attributes: s.attributes, StartTimeUnixNano: refStart(start, ts), TimeUnixNano: uint64(ts),
		Value: &metricpb.NumberDataPoint_AsDouble{AsDouble: v},
	}
	if c.GetExemplar() != nil {
		p.Exemplars = refExemplars([]*dto.Exemplar{c.GetExemplar()}, r.sumDelta, start)
	}
	r.add(name, s, p)
	return ""
}

func (r *reference) summary(name string, s *refSeries, m *dto.Summary, ts int64) (dropped string) {
	s.become(summaryKind)
	if refStale(m.GetSampleSum()) {
		r.staleAt(name, s, ts)
		return ""
	}
	if m.SampleCount == nil {
		return translate.DropNoCount
	}
	if *m.SampleCount > math.MaxInt64 {
		return translate.DropInvalidCount
	}
	values := make(map[float64]float64)
	for _, q := range m.GetQuantile() {
		if !(q.GetQuantile() >= 0 && q.GetQuantile() <= 1) {
			return translate.DropInvalidQuantile
		}
		quantile := q.GetQuantile() + 0 // not -0
		if v, ok := values[quantile]; ok && cmp.Compare(v, q.GetValue()) != 0 {
			return translate.DropInvalidQuantile
		}
		values[quantile] = q.GetValue()
	}
	count := float64(*m.SampleCount)
	r.observe(s, refNanos(m.GetCreatedTimestamp()), ts, count < s.value)
	s.value = count
	p := &metricpb.SummaryDataPoint{
		Attributes: s.attributes, StartTimeUnixNano: refStart(s.start, ts), TimeUnixNano: uint64(ts),
		Count: *m.SampleCount, Sum: m.GetSampleSum(),
	}
	for _, q := range slices.Sorted(maps.Keys(values)) {
		p.QuantileValues = append(p.QuantileValues, &metricpb.SummaryDataPoint_ValueAtQuantile{Quantile: q, Value: values[q]})
	}
	r.add(name, s, p)
	return ""
}

// Histograms.

type refExplicit struct {
	count  uint64
	sum    *float64
	bounds []float64
	counts []uint64
}

func (r *reference) histogram(name string, s *refSeries, h *dto.Histogram, ts int64) (dropped string) {
	if !refIsNative(h) {
		return r.classic(name, s, h, ts)
	}
	if refStale(h.GetSampleSum()) {
		s.become(exponentialKind)
		r.staleAt(name, s, ts)
		return ""
	}
	e, dropped := r.readNative(h)
	switch {
	case dropped == "":
		return r.native(name, s, h, e, ts)
	case len(h.GetBucket()) > 0:
		return r.classic(name, s, h, ts)
	default:
		return dropped
	}
}

func (r *reference) classic(name string, s *refSeries, h *dto.Histogram, ts int64) (dropped string) {
	if refStale(h.GetSampleSum()) {
		s.become(histogramKind)
		r.staleAt(name, s, ts)
		return ""
	}
	cur, dropped := refReadClassic(h)
	if dropped != "" {
		return dropped
	}
	s.become(histogramKind)
	last := s.explicit
	if last == nil {
		last = &refExplicit{}
	}
	grown, ok := cur.since(last)
	change, since := r.observe(s, refNanos(h.GetCreatedTimestamp()), ts, !ok)
	s.explicit = cur
	shown, start := cur, s.start
	if r.histogramDelta {
		switch change {
		case refBaseline:
			return translate.DropBaseline
		case refGrown:
			shown = grown
		}
		start = since
	}
	r.add(name, s, &metricpb.HistogramDataPoint{
		Attributes: s.attributes, StartTimeUnixNano: refStart(start, ts), TimeUnixNano: uint64(ts),
		Count: shown.count, Sum: shown.sum, ExplicitBounds: shown.bounds, BucketCounts: shown.counts,
		Exemplars: refExemplars(refBucketExemplars(h), r.histogramDelta, start),
	})
	return ""
}

func refReadClassic(h *dto.Histogram) (e *refExplicit, dropped string) {
	count := h.GetSampleCount()
	switch {
	case refIsFloat(h.SampleCount, h.SampleCountFloat):
		return nil, translate.DropFloatHistogram
	case h.SampleCount == nil:
		return nil, translate.DropNoCount
	case count > math.MaxInt64:
		return nil, translate.DropInvalidCount
	}
	for _, b := range h.GetBucket() {
		switch {
		case math.IsNaN(b.GetUpperBound()):
			return nil, translate.DropInvalidBuckets
		case refIsFloat(b.CumulativeCount, b.CumulativeCountFloat):
			return nil, translate.DropFloatHistogram
		}
	}
	cumulative := make(map[float64]uint64)
	for _, b := range h.GetBucket() {
		if n, ok := cumulative[b.GetUpperBound()]; ok && n != b.GetCumulativeCount() {
			return nil, translate.DropInvalidBuckets
		}
		cumulative[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	e = &refExplicit{count: count, sum: h.SampleSum}
	var below uint64
	for _, bound := range slices.Sorted(maps.Keys(cumulative)) {
		n := cumulative[bound]
		switch {
		case n < below:
			return nil, translate.DropInvalidBuckets
		case math.IsInf(bound, 1):
			continue
		case n > count:
			return nil, translate.DropInvalidBuckets
		}
		e.bounds = append(e.bounds, bound)
		e.counts = append(e.counts, n-below)
		below = n
	}
	e.counts = append(e.counts, count-below)
	return e, ""
}

// below returns how many observations were at most bound, which is one of e.
func (e *refExplicit) below(bound float64) (n uint64) {
	for i, b := range e.bounds {
		if b <= bound {
			n += e.counts[i]
		}
	}
	return n
}

// since returns by how much each bucket grew since last, in the buckets that
// both have; it is not ok if any decreased.
func (e *refExplicit) since(last *refExplicit) (grown *refExplicit, ok bool) {
	grown = &refExplicit{count: e.count - last.count, sum: refSumSince(e.sum, last.sum)}
	for _, b := range e.bounds {
		if len(last.counts) == 0 || slices.Contains(last.bounds, b) {
			grown.bounds = append(grown.bounds, b)
		}
	}
	var before, beforeLast uint64
	bucket := func(upTo, upToLast uint64) bool {
		n, nLast := upTo-before, upToLast-beforeLast
		grown.counts = append(grown.counts, n-nLast)
		before, beforeLast = upTo, upToLast
		return n >= nLast
	}
	ok = true
	for _, b := range grown.bounds {
		ok = bucket(e.below(b), last.below(b)) && ok
	}
	ok = bucket(e.count, last.count) && ok
	return grown, ok
}

func refSumSince(sum, last *float64) *float64 {
	if last == nil {
		return nil
	}
	if sum == nil {
		return nil
	}
	d := *sum - *last
	switch {
	case math.IsNaN(d) || math.IsInf(d, 0):
		return nil
	case d < 0 && -d <= 1e-12*math.Abs(*last):
		d = 0 // noise
	}
	return &d
}

func refIsFloat(n *uint64, f *float64) bool { return f != nil && (n == nil || *f > 0) }

type refExponential struct {
	count              uint64
	sum                *float64
	scale              int32
	threshold          float64
	zero               uint64
	positive, negative refSide
}

type refSide struct {
	offset int32
	counts []uint64
}

func refIsNative(h *dto.Histogram) bool {
	return len(h.GetPositiveSpan()) > 0 || len(h.GetNegativeSpan()) > 0 || h.GetZeroThreshold() > 0 || h.GetZeroCount() > 0
}

func (r *reference) native(name string, s *refSeries, h *dto.Histogram, cur *refExponential, ts int64) (dropped string) {
	s.become(exponentialKind)
	last := s.exponential
	if last == nil {
		last = &refExponential{}
	}
	grown, ok := cur.since(last)
	change, since := r.observe(s, refNanos(h.GetCreatedTimestamp()), ts, !ok)
	s.exponential = cur
	shown, start := cur, s.start
	if r.histogramDelta {
		switch change {
		case refBaseline:
			return translate.DropBaseline
		case refGrown:
			shown = grown
		}
		start = since
	}
	exemplars := h.GetExemplars()
	if len(exemplars) == 0 {
		exemplars = refBucketExemplars(h)
	}
	r.add(name, s, &metricpb.ExponentialHistogramDataPoint{
		Attributes: s.attributes, StartTimeUnixNano: refStart(start, ts), TimeUnixNano: uint64(ts),
		Count: shown.count, Sum: shown.sum, Scale: shown.scale, ZeroCount: shown.zero, ZeroThreshold: shown.threshold,
		Positive:  &metricpb.ExponentialHistogramDataPoint_Buckets{Offset: shown.positive.offset, BucketCounts: shown.positive.counts},
		Negative:  &metricpb.ExponentialHistogramDataPoint_Buckets{Offset: shown.negative.offset, BucketCounts: shown.negative.counts},
		Exemplars: refExemplars(exemplars, r.histogramDelta, start),
	})
	return ""
}

func (r *reference) readNative(h *dto.Histogram) (e *refExponential, dropped string) {
	switch {
	case h.GetSampleCountFloat() > 0, h.GetZeroCountFloat() > 0, len(h.GetPositiveCount()) > 0, len(h.GetNegativeCount()) > 0:
		return nil, translate.DropFloatHistogram
	case h.GetSchema() < -4 || h.GetSchema() > 8:
		return nil, translate.DropNativeSchema
	case !(h.GetZeroThreshold() >= 0 && h.GetZeroThreshold() <= math.MaxFloat64):
		return nil, translate.DropInvalidBuckets
	case h.GetZeroCount() > math.MaxInt64:
		return nil, translate.DropInvalidCount
	}
	e = &refExponential{scale: h.GetSchema(), sum: h.SampleSum, threshold: h.GetZeroThreshold() + 0, zero: h.GetZeroCount()}
	var positive, negative uint64
	if e.positive, positive, dropped = r.readSide(h.GetSchema(), h.GetPositiveSpan(), h.GetPositiveDelta()); dropped != "" {
		return nil, dropped
	}
	if e.negative, negative, dropped = r.readSide(h.GetSchema(), h.GetNegativeSpan(), h.GetNegativeDelta()); dropped != "" {
		return nil, dropped
	}
	e.count = e.zero + positive
	if e.count > math.MaxInt64 || e.count+negative > math.MaxInt64 {
		return nil, translate.DropInvalidCount
	}
	e.count += negative
	return e, ""
}

// readSide returns the buckets of one sign, and their count. Counts of buckets
// that no finite number can be in are left out; those of others with one are
// invalid.
func (r *reference) readSide(schema int32, spans []*dto.BucketSpan, deltas []int64) (d refSide, sum uint64, dropped string) {
	length := 0
	for _, s := range spans {
		length += int(s.GetLength())
	}
	if length != len(deltas) {
		return d, 0, translate.DropInvalidBuckets
	}
	if len(spans) == 0 {
		return d, 0, ""
	}
	first := int64(spans[0].GetOffset())
	if first == math.MinInt32 {
		return d, 0, translate.DropInvalidBuckets
	}
	d.offset = int32(first - 1)
	// The bucket i has the upper bound 2^(i * 2^-schema).
	width := math.Ldexp(1, -int(schema))
	lowest, highest := int64(math.Ceil(-1074/width)), int64(math.Floor(1024/width))
	var count int64
	index := first
	for i, s := range spans {
		if i > 0 {
			if s.GetOffset() < 0 {
				return d, 0, translate.DropInvalidBuckets
			}
			index += int64(s.GetOffset())
		}
		for range s.GetLength() {
			delta := deltas[0]
			deltas = deltas[1:]
			if delta > math.MaxInt64-count || count+delta < 0 {
				return d, 0, translate.DropInvalidBuckets
			}
			count += delta
			if count > 0 && (index < lowest || index > highest+1) {
				return d, 0, translate.DropInvalidBuckets
			}
			if index >= lowest && index <= highest {
				if index-first >= 1<<14 {
					return d, 0, translate.DropNativeWidth
				}
				gap := int(index-first) - len(d.counts)
				if gap > r.page.gaps {
					return d, 0, translate.DropNativeWidth
				}
				r.page.gaps -= gap
				d.counts = append(d.counts, make([]uint64, gap)...)
				d.counts = append(d.counts, uint64(count))
				if sum += uint64(count); sum > math.MaxInt64 {
					return d, 0, translate.DropInvalidCount
				}
			}
			index++
		}
	}
	return d, sum, ""
}

// since returns by how much e grew since last, after whose buckets were merged
// as e's were; it is not ok if anything decreased.
func (e *refExponential) since(last *refExponential) (grown *refExponential, ok bool) {
	g := *e
	g.sum = refSumSince(e.sum, last.sum)
	g.positive.counts = slices.Clone(e.positive.counts)
	g.negative.counts = slices.Clone(e.negative.counts)
	if last.count == 0 {
		return &g, true
	}
	if e.scale > last.scale || e.threshold < last.threshold && last.zero > 0 {
		return &g, false
	}
	zero, ok := last.zero, true
	take := func(from refSide, before refSide) {
		for i, n := range before.counts {
			index := before.offset + int32(i)
			if n == 0 {
				continue
			}
			if upper := math.Exp2(math.Ldexp(float64(index)+1, -int(last.scale))); e.threshold > last.threshold && upper <= e.threshold*(1+1e-9) {
				zero += n
				continue
			}
			at := int(index>>(last.scale-e.scale)) - int(from.offset)
			if at < 0 || at >= len(from.counts) || from.counts[at] < n {
				ok = false
				continue
			}
			from.counts[at] -= n
		}
	}
	take(g.positive, last.positive)
	take(g.negative, last.negative)
	ok = ok && g.zero >= zero
	g.zero -= zero
	g.count -= last.count
	return &g, ok
}

// Exemplars.

func refBucketExemplars(h *dto.Histogram) (list []*dto.Exemplar) {
	for _, b := range h.GetBucket() {
		if b.GetExemplar() != nil {
			list = append(list, b.GetExemplar())
		}
	}
	return list
}

func refExemplars(exemplars []*dto.Exemplar, delta bool, start int64) (list []*metricpb.Exemplar) {
	for _, e := range exemplars {
		at := refNanos(e.GetTimestamp())
		if delta && at != 0 && at < start {
			continue // of an earlier point
		}
		x := &metricpb.Exemplar{TimeUnixNano: uint64(at), Value: &metricpb.Exemplar_AsDouble{AsDouble: e.GetValue()}}
		for _, l := range e.GetLabel() {
			name, value := refValid(l.GetName()), refValid(l.GetValue())
			if name == "" || value == "" {
				continue
			}
			if id := refID(value, 16); name == "trace_id" && x.TraceId == nil && id != nil {
				x.TraceId = id
				continue
			}
			if id := refID(value, 8); name == "span_id" && x.SpanId == nil && id != nil {
				x.SpanId = id
				continue
			}
			x.FilteredAttributes = append(x.FilteredAttributes, refString(name, value))
		}
		list = append(list, x)
	}
	return list
}

func refID(s string, n int) []byte {
	id, err := hex.DecodeString(s)
	if err != nil || len(id) != n || strings.Trim(s, "0") == "" {
		return nil
	}
	return id
}

// Start times and resets.

func (r *reference) findProcessStart(families []*dto.MetricFamily) {
	p, last := &r.page, r.last
	for _, mf := range families {
		if mf.GetName() != "process_start_time_seconds" || len(mf.GetMetric()) != 1 {
			continue
		}
		m := mf.GetMetric()[0]
		v := m.GetUntyped().GetValue()
		if m.GetGauge() != nil {
			v = m.GetGauge().GetValue()
		}
		ms := math.Round(v * 1e3)
		if ms > 0 && ms <= float64(p.now/1e6) {
			p.processStart = int64(ms) * 1e6
		}
	}
	if p.processStart == 0 || !last.seen {
		return
	}
	age, elapsed := time.Duration(p.now-p.processStart), p.at.Sub(last.at)
	if last.processStart == 0 {
		p.restarted = age < elapsed
		return
	}
	lastAge := time.Duration(last.now - last.processStart)
	p.restarted = age < elapsed+time.Second && age < lastAge+elapsed-time.Second
}

type refChange int

const (
	refBaseline refChange = iota // what was counted since the last exposition is not known
	refGrown                     // by the difference to the last observation
	refFromZero                  // by all that is counted now
)

// observe notes an observation of s, and returns how it continues the one
// before and since when a delta counts.
func (r *reference) observe(s *refSeries, created, ts int64, decreased bool) (refChange, int64) {
	const jitter = int64(time.Second)
	p := &r.page
	lastCreated, lastTime, first := s.created, s.time, !s.observed
	s.observed, s.created, s.time = true, created, ts
	if first {
		s.start = cmp.Or(created, p.processStart)
		inside := p.restarted
		if created != 0 {
			inside = created >= r.last.now
		}
		if r.last.seen && inside && s.start <= ts {
			return refFromZero, s.start
		}
		return refBaseline, 0
	}
	if created != 0 && (lastCreated == 0 || created-s.start > jitter || s.start-created > jitter) {
		s.start = created
	}
	moved := created-lastCreated > jitter
	if lastCreated == 0 {
		moved = created >= lastTime
	}
	switch {
	case created != 0 && moved:
		s.start = created
		if created < lastTime || created > ts {
			return refFromZero, lastTime
		}
		return refFromZero, created
	case created == 0 && p.restarted:
		s.start = max(p.processStart, lastTime)
		return refFromZero, s.start
	case decreased:
		if created == 0 {
			s.start = lastTime
		}
		return refFromZero, lastTime
	default:
		return refGrown, lastTime
	}
}

func refNanos(ts *timestamppb.Timestamp) int64 {
	sec, nsec := ts.GetSeconds(), int64(ts.GetNanos())
	if sec < 0 || sec >= math.MaxInt64/int64(time.Second) || nsec < 0 || nsec >= 1e9 {
		return 0
	}
	return sec*1e9 + nsec
}

// refStart returns the start time of a point at ts, 0 if it has none.
func refStart(start, ts int64) uint64 {
	if start > ts {
		return 0
	}
	return uint64(start)
}

// Families.

func refTypeOf(mf *dto.MetricFamily) dto.MetricType {
	if mf.Type != nil {
		return *mf.Type
	}
	switch m := mf.GetMetric()[0]; {
	case m.GetCounter() != nil:
		return dto.MetricType_COUNTER
	case m.GetGauge() != nil:
		return dto.MetricType_GAUGE
	case m.GetHistogram() != nil:
		return dto.MetricType_HISTOGRAM
	case m.GetSummary() != nil:
		return dto.MetricType_SUMMARY
	default:
		return dto.MetricType_UNTYPED
	}
}

// refSamples counts the lines that metrics have in the text format, and one for
// a native histogram.
func refSamples(typ dto.MetricType, metrics []*dto.Metric) (n int) {
	for _, m := range metrics {
		h, s := m.GetHistogram(), m.GetSummary()
		switch {
		case (typ == dto.MetricType_HISTOGRAM || typ == dto.MetricType_GAUGE_HISTOGRAM) && h != nil && !refIsNative(h):
			n += len(h.GetBucket())
			if !slices.ContainsFunc(h.GetBucket(), func(b *dto.Bucket) bool { return math.IsInf(b.GetUpperBound(), 1) }) {
				n++
			}
			if h.SampleSum != nil {
				n++
			}
			if h.SampleCount != nil || h.SampleCountFloat != nil {
				n++
			}
		case typ == dto.MetricType_SUMMARY && s != nil:
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

func refUnit(prometheus string) string {
	units := map[string]string{
		"days": "d", "hours": "h", "minutes": "min", "seconds": "s",
		"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns",
		"bytes": "By", "kibibytes": "KiBy", "mebibytes": "MiBy", "gibibytes": "GiBy", "tebibytes": "TiBy",
		"kilobytes": "kBy", "megabytes": "MBy", "gigabytes": "GBy", "terabytes": "TBy",
		"meters": "m", "volts": "V", "amperes": "A", "joules": "J", "watts": "W", "grams": "g",
		"celsius": "Cel", "hertz": "Hz", "percent": "%", "ratio": "1",
	}
	if u, ok := units[prometheus]; ok {
		return u
	}
	return refValid(prometheus)
}

// refCut returns at most n bytes of s, and no part of a character.
func refCut(s string, n int) string {
	for len(s) > n && n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:min(len(s), n)]
}

func refValid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// The resource.

func refResource(families []*dto.MetricFamily) (attributes []attribute.KeyValue) {
	engine := map[string]string{
		"daemon_id": "service.instance.id", "version": "service.version", "architecture": "host.arch",
		"os_type": "os.type", "os": "os.description", "os_version": "os.version",
	}
	arch := map[string]string{
		"x86_64": "amd64", "i386": "x86", "i686": "x86", "aarch64": "arm64", "armv6l": "arm32", "armv7l": "arm32", "ppc64le": "ppc64",
	}
	isEngine := make(map[string]bool)
	for _, key := range engine {
		isEngine[key] = true
	}
	values := make(map[string]string)
	each := func(family string, f func(name, value string)) {
		for _, mf := range families {
			for _, m := range mf.GetMetric() {
				for _, l := range m.GetLabel() {
					if mf.GetName() == family && l.GetName() != "" && l.GetValue() != "" {
						f(refValid(l.GetName()), refValid(l.GetValue()))
					}
				}
			}
		}
	}
	each("engine_daemon_engine_info", func(name, value string) {
		if name == "architecture" && arch[value] != "" {
			value = arch[value]
		}
		if engine[name] != "" {
			values[engine[name]] = value
		}
	})
	each("target_info", func(name, value string) {
		switch {
		case name == "service_name" && (value == "unknown_service" || strings.HasPrefix(value, "unknown_service:")):
		case name == "telemetry_sdk_language", name == "telemetry_sdk_name", name == "telemetry_sdk_version":
		default:
			values[name] = value
		}
	})
	// What the engine says of itself is the last to go.
	keys := slices.Sorted(maps.Keys(values))
	sort.SliceStable(keys, func(i, j int) bool { return isEngine[keys[i]] && !isEngine[keys[j]] })
	size := 0
	for i, key := range keys {
		size += len(key) + len(values[key])
		if i == 128 || size > 16<<10 {
			break
		}
		attributes = append(attributes, attribute.String(key, values[key]))
	}
	return attributes
}

func (r *reference) resource() *resourcepb.Resource {
	res := resource.NewSchemaless(slices.Concat(r.cfg.Defaults, r.said, r.cfg.Resource)...)
	pb := &resourcepb.Resource{}
	for _, kv := range res.Attributes() {
		v := refString(string(kv.Key), kv.Value.String())
		switch kv.Value.Type() {
		case attribute.BOOL:
			v.Value.Value = &commonpb.AnyValue_BoolValue{BoolValue: kv.Value.AsBool()}
		case attribute.INT64:
			v.Value.Value = &commonpb.AnyValue_IntValue{IntValue: kv.Value.AsInt64()}
		case attribute.FLOAT64:
			v.Value.Value = &commonpb.AnyValue_DoubleValue{DoubleValue: kv.Value.AsFloat64()}
		}
		pb.Attributes = append(pb.Attributes, v)
	}
	return pb
}

// The request.

// request returns the points of the exposition: those of the default scope
// first, then those of the others in the order in which they first appeared.
// Then it forgets the scopes that have no series left.
func (r *reference) request() *colmetricpb.ExportMetricsServiceRequest {
	scopes := slices.Clone(r.scopes)
	sort.SliceStable(scopes, func(i, j int) bool { return scopes[i].isDefault && !scopes[j].isDefault })
	rm := &metricpb.ResourceMetrics{Resource: r.resource()}
	for _, sc := range scopes {
		sm := &metricpb.ScopeMetrics{Scope: sc.scope, SchemaUrl: sc.schemaURL}
		for _, name := range r.page.names {
			sm.Metrics = append(sm.Metrics, r.metrics(sc, name)...)
		}
		if len(sm.Metrics) > 0 {
			rm.ScopeMetrics = append(rm.ScopeMetrics, sm)
		}
	}
	r.scopes = slices.DeleteFunc(r.scopes, func(sc *refScope) bool {
		for _, f := range r.families {
			if slices.ContainsFunc(f.series, func(s *refSeries) bool { return s.scope == sc }) {
				return false
			}
		}
		return true
	})
	if len(rm.ScopeMetrics) == 0 {
		return &colmetricpb.ExportMetricsServiceRequest{}
	}
	return &colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{rm}}
}

// metrics returns the metrics of a family in a scope: one of each kind, in the
// order of the kinds. In the default scope, the kind of the first point is first.
func (r *reference) metrics(sc *refScope, name string) (metrics []*metricpb.Metric) {
	byKind := make(map[refKind][]any)
	var first refKind
	for _, p := range r.page.points[name] {
		if p.scope == sc {
			byKind[p.kind] = append(byKind[p.kind], p.point)
			if first == noKind && sc.isDefault {
				first = p.kind
			}
		}
	}
	kinds := slices.Sorted(maps.Keys(byKind))
	sort.SliceStable(kinds, func(i, j int) bool { return kinds[i] == first && kinds[j] != first })
	for _, k := range kinds {
		metrics = append(metrics, r.oneMetric(name, k, byKind[k]))
	}
	return metrics
}

func (r *reference) oneMetric(name string, k refKind, points []any) *metricpb.Metric {
	f := r.page.texts[name]
	m := &metricpb.Metric{Name: name, Description: f.description, Unit: f.unit}
	typ := map[refKind]string{
		sumKind: "counter", histogramKind: "histogram", exponentialKind: "histogram", summaryKind: "summary",
	}[k]
	switch k {
	case gaugeKind:
		typ = "gauge"
		if f.gauges == dto.MetricType_UNTYPED {
			typ = "unknown"
		}
		m.Data = &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: refPoints[*metricpb.NumberDataPoint](points)}}
	case sumKind:
		m.Data = &metricpb.Metric_Sum{Sum: &metricpb.Sum{
			DataPoints: refPoints[*metricpb.NumberDataPoint](points), AggregationTemporality: refTemporality(r.sumDelta), IsMonotonic: true,
		}}
	case histogramKind:
		m.Data = &metricpb.Metric_Histogram{Histogram: &metricpb.Histogram{
			DataPoints: refPoints[*metricpb.HistogramDataPoint](points), AggregationTemporality: refTemporality(r.histogramDelta),
		}}
	case exponentialKind:
		m.Data = &metricpb.Metric_ExponentialHistogram{ExponentialHistogram: &metricpb.ExponentialHistogram{
			DataPoints: refPoints[*metricpb.ExponentialHistogramDataPoint](points), AggregationTemporality: refTemporality(r.histogramDelta),
		}}
	case summaryKind:
		m.Data = &metricpb.Metric_Summary{Summary: &metricpb.Summary{DataPoints: refPoints[*metricpb.SummaryDataPoint](points)}}
	}
	m.Metadata = []*commonpb.KeyValue{refString("prometheus.type", typ)}
	return m
}

func refPoints[P any](points []any) (list []P) {
	for _, p := range points {
		list = append(list, p.(P))
	}
	return list
}

func refTemporality(delta bool) metricpb.AggregationTemporality {
	if delta {
		return metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	}
	return metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
}
