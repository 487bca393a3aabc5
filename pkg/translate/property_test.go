package translate_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"otelmetricsplugin/pkg/translate"
)

var (
	seedFlag  = flag.Uint64("property.seed", 0, "the one seed of the property test to run; 0 is new ones")
	countFlag = flag.Int("property.count", 2000, "the number of sequences of the property test")
)

// TestGrowthIsExact plays random sequences of scrapes of a source that counts,
// starts anew, loses series and gets them back, changes types and buckets, and
// dates samples as it likes, while the clock is set; and compares every
// exported point with what the source knows of itself.
//
// What no one can tell from outside does not happen:
//   - a reset without a created timestamp and with a count that is not less;
//   - one, while scrapes are missed, after another that nobody saw;
//   - one whose created timestamp is not more than a second after the one
//     before, by jitter or since the clock was set back;
//   - a step of the clock beside process_start_time_seconds: it takes a
//     monotonic reading that tells of no step, and times of a test have none.
//
// A first observation is known to be from zero only where its start is between
// the last page and its own timestamp: samples dated before that, and series
// created just before a step back of the clock, begin with a baseline.
func TestGrowthIsExact(t *testing.T) {
	first, count := *seedFlag, uint64(1)
	if first == 0 {
		first, count = uint64(time.Now().UnixNano()), uint64(*countFlag)
	}
	for name, newImplementation := range implementations {
		n := count
		if name == "reference" { // it is slow, and the translator is held against it elsewhere
			n = max(1, count/5)
		}
		for seed := first; seed < first+n; seed++ {
			if err := newSource(seed).play(t, newImplementation); err != nil {
				t.Errorf("%s, -property.seed %d: %v", name, seed, err)
				break
			}
		}
	}
}

// source is a process with metrics.
type source struct {
	*rand.Rand
	selector     sdkmetric.TemporalitySelector
	created      bool // tells created timestamps
	tellsStart   bool // tells process_start_time_seconds
	asText       bool
	now          time.Time
	processStart time.Time
	series       []*sourceSeries

	lastPage  time.Time // the last good one
	restarted bool      // since then
}

// sourceSeries is a series of the source, and what of it was observed.
type sourceSeries struct {
	family string
	typ    dto.MetricType
	native bool
	labels []string
	gone   bool          // not on the page
	dated  time.Duration // its samples, after the scrape; 0 is not
	hidden uint          // bit i: the classic bucket i is not on the page

	// Since the series began, by bucket; only the first one is used by a
	// counter. Native buckets are of the given schema, from index 0.
	counts  []uint64
	sum     float64
	schema  int32
	created time.Time
	life    int // number of times it began

	observed        bool
	observedKey     string
	observedLife    int
	observedCreated time.Time
	observedTime    time.Time
	observedSum     float64
	observedN       uint64
	live            bool      // its last point had a value
	start           time.Time // in effect
	expected        float64
	exported        float64 // the sum of its deltas
}

// delta reports whether the series is exported with delta temporality.
func (s *source) delta(series *sourceSeries) bool {
	kind := sdkmetric.InstrumentKindHistogram
	switch series.typ {
	case dto.MetricType_GAUGE, dto.MetricType_SUMMARY:
		return false
	case dto.MetricType_COUNTER:
		kind = sdkmetric.InstrumentKindObservableCounter
	}
	return s.selector(kind) == metricdata.DeltaTemporality
}

func newSource(seed uint64) *source {
	s := &source{Rand: rand.New(rand.NewPCG(seed, 0)), now: epoch, processStart: epoch.Add(-time.Hour)}
	s.selector = []sdkmetric.TemporalitySelector{
		sdkmetric.CumulativeTemporalitySelector, sdkmetric.DeltaTemporalitySelector, sdkmetric.LowMemoryTemporalitySelector,
	}[s.IntN(3)]
	s.tellsStart = s.IntN(2) == 0
	switch s.IntN(3) {
	case 0:
		s.asText = true
	case 1:
		s.created = true
	}
	for f := range 1 + s.IntN(4) {
		proto := sourceSeries{family: fmt.Sprintf("f%d", f), created: s.processStart}
		proto.typ, proto.native = s.someType()
		for i := range 1 + s.IntN(5) {
			series := proto
			series.labels = []string{"l", fmt.Sprint(i)}
			series.counts = make([]uint64, 1+s.IntN(4))
			if series.native {
				series.counts = make([]uint64, 16)
				series.schema = 3
			}
			s.observe(&series)
			s.series = append(s.series, &series)
		}
	}
	return s
}

// someType returns the type of a family, and whether its histograms are native.
func (s *source) someType() (typ dto.MetricType, native bool) {
	switch s.IntN(6) {
	case 0:
		return dto.MetricType_GAUGE, false
	case 1:
		return dto.MetricType_SUMMARY, false
	case 2, 3:
		return dto.MetricType_HISTOGRAM, !s.asText && s.IntN(2) == 0
	default:
		return dto.MetricType_COUNTER, false
	}
}

// observe lets the series count up to 20 observations.
func (s *source) observe(series *sourceSeries) {
	for range s.IntN(21) {
		series.counts[s.IntN(len(series.counts))]++
		series.sum += float64(s.IntN(100))
	}
}

func (series *sourceSeries) begin(at time.Time) {
	clear(series.counts)
	series.sum = 0
	series.created = at
	series.life++
	if series.native {
		series.counts, series.schema = make([]uint64, 16), 3
	}
}

func (series *sourceSeries) n() uint64 { return total(series.counts) }

// tick lets time pass and things happen.
func (s *source) tick() (missed bool) {
	if !s.tellsStart && s.IntN(15) == 0 {
		s.now = s.now.Add(time.Duration(s.IntN(7200)-3600) * time.Second)
	}
	last := s.now
	s.now = s.now.Add(time.Duration(2000+s.IntN(30000)) * time.Millisecond)
	between := last.Add(s.now.Sub(last) * time.Duration(60+s.IntN(40)) / 100).Truncate(time.Millisecond)
	missed = s.IntN(8) == 0
	if s.IntN(20) == 0 && (s.tellsStart || s.created) && !slices.ContainsFunc(s.series, func(series *sourceSeries) bool {
		return s.created && !series.seenToBegin(between)
	}) {
		s.processStart = between
		s.restarted = true
		for _, series := range s.series {
			series.begin(between)
		}
	}
	changed := ""
	if s.IntN(15) == 0 && !missed {
		changed = fmt.Sprintf("f%d", s.IntN(4))
	}
	typ, native := s.someType()
	for _, series := range s.series {
		if s.IntN(20) == 0 {
			series.dated = time.Duration(s.IntN(7200)-3600) * time.Second
		}
		if s.IntN(10) == 0 {
			series.hidden = s.Uint()
		}
		switch {
		case s.IntN(15) == 0:
			series.gone = !series.gone
		case series.gone && s.IntN(3) == 0:
			series.gone = false
		}
		if series.family == changed && (series.typ != typ || series.native != native) {
			series.typ, series.native = typ, native
			series.begin(between)
			s.observe(series)
			continue
		}
		if s.IntN(12) == 0 && series.typ != dto.MetricType_GAUGE && !s.restarted {
			s.reset(series, between, missed)
			continue
		}
		if series.native && series.schema > 0 && s.IntN(10) == 0 {
			series.coarsen()
		}
		if s.IntN(4) != 0 {
			s.observe(series)
		}
	}
	return missed
}

// reset begins the series anew, if that can be seen from outside.
func (s *source) reset(series *sourceSeries, at time.Time, missed bool) {
	if s.created {
		if series.seenToBegin(at) {
			series.begin(at)
			s.observe(series)
		}
		return
	}
	if missed || series.life != series.observedLife || series.observedN == 0 {
		return
	}
	series.begin(at)
	for range s.Uint64N(series.observedN) {
		series.counts[s.IntN(len(series.counts))]++
		series.sum++
	}
}

// seenToBegin reports whether the series can be seen to have begun at the given
// time by its created timestamp.
func (series *sourceSeries) seenToBegin(at time.Time) bool {
	return at.Sub(series.observedCreated) > time.Second
}

// coarsen halves the resolution of a native histogram as client libraries do.
func (series *sourceSeries) coarsen() {
	counts := make([]uint64, len(series.counts))
	for i, c := range series.counts {
		counts[(i+1)/2] += c // bucket i is the one of upper bound index i
	}
	series.counts = counts
	series.schema--
}

// page returns the page of now, in an order of its own at times.
func (s *source) page(t *testing.T) []*dto.MetricFamily {
	byName := make(map[string]*dto.MetricFamily)
	for _, series := range s.series {
		if series.gone {
			continue
		}
		mf := byName[series.family]
		if mf == nil {
			mf = family(series.family, series.typ)
			byName[series.family] = mf
		}
		mf.Metric = append(mf.Metric, s.metric(series))
	}
	if s.tellsStart {
		byName["process_start_time_seconds"] = family("process_start_time_seconds", dto.MetricType_GAUGE,
			gauge(float64(s.processStart.UnixMilli())/1000))
	}
	families := slices.Collect(maps.Values(byName))
	for _, mf := range families {
		if s.IntN(10) == 0 {
			s.Shuffle(len(mf.Metric), func(i, j int) { mf.Metric[i], mf.Metric[j] = mf.Metric[j], mf.Metric[i] })
		}
	}
	if !s.asText {
		return families
	}
	var b bytes.Buffer
	for _, mf := range families {
		if _, err := expfmt.MetricFamilyToText(&b, mf); err != nil {
			t.Fatal(err)
		}
	}
	return text(t, b.String())
}

// timeOf returns the timestamp of the sample of the series on the page of now.
func (s *source) timeOf(series *sourceSeries) time.Time { return s.now.Add(series.dated) }

func (s *source) metric(series *sourceSeries) *dto.Metric {
	m := &dto.Metric{Label: labels(series.labels...)}
	if series.dated != 0 {
		m.TimestampMs = proto.Int64(s.timeOf(series).UnixMilli())
	}
	var start *timestamppb.Timestamp
	if s.created {
		start = timestamppb.New(series.created)
	}
	n := series.n()
	switch series.typ {
	case dto.MetricType_GAUGE:
		m.Gauge = &dto.Gauge{Value: proto.Float64(series.sum)}
	case dto.MetricType_COUNTER:
		m.Counter = &dto.Counter{Value: proto.Float64(float64(n)), CreatedTimestamp: start}
	case dto.MetricType_SUMMARY:
		m.Summary = &dto.Summary{SampleCount: &n, SampleSum: &series.sum, CreatedTimestamp: start}
	case dto.MetricType_HISTOGRAM:
		h := &dto.Histogram{SampleCount: &n, SampleSum: proto.Float64(series.sum), CreatedTimestamp: start}
		m.Histogram = h
		var cumulative uint64
		var last int64
		for i, c := range series.counts {
			if series.native {
				h.Schema = proto.Int32(series.schema)
				if c == 0 {
					continue
				}
				if last := len(h.PositiveSpan) - 1; last >= 0 && i > 0 && series.counts[i-1] > 0 {
					*h.PositiveSpan[last].Length++
				} else {
					offset := i
					for j := i - 1; j >= 0 && len(h.PositiveSpan) > 0 && series.counts[j] == 0; j-- {
						offset = i - j
					}
					h.PositiveSpan = append(h.PositiveSpan, &dto.BucketSpan{Offset: proto.Int32(int32(offset)), Length: proto.Uint32(1)})
				}
				h.PositiveDelta = append(h.PositiveDelta, int64(c)-last)
				last = int64(c)
				continue
			}
			cumulative += c
			if series.hidden>>i&1 == 1 {
				continue
			}
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(float64(i)), CumulativeCount: proto.Uint64(cumulative)})
		}
		if series.native && len(h.PositiveSpan) == 0 {
			h.PositiveSpan = spans(0, 0)
		}
	}
	return m
}

// play runs the sequence and compares.
func (s *source) play(t *testing.T, newImplementation func(translate.Config) implementation) error {
	tr := newImplementation(translate.Config{Version: "v1", Temporality: s.selector})
	for step := range 15 {
		missed := s.tick()
		var r translated
		var families []*dto.MetricFamily
		if missed {
			r = tr.missed(t, s.now)
		} else {
			families = s.page(t)
			r = tr.translate(t, encode(t, families...), s.now)
		}
		points, err := pointsOf(r.request)
		if err == nil && !missed {
			err = checkAccounting(families, r.Result, points)
		}
		if err == nil {
			err = s.compare(points, r.Result, missed)
		}
		if err != nil {
			return fmt.Errorf("step %d at %s: %w", step, renderTime(uint64(s.now.UnixNano())), err)
		}
		if !missed {
			s.lastPage, s.restarted = s.now, false
		}
	}
	for _, series := range s.series {
		if series.exported != series.expected {
			return fmt.Errorf("%s%v: deltas add up to %g, the source counted %g", series.family, series.labels, series.exported, series.expected)
		}
	}
	return nil
}

// compare compares the points of a scrape with what the source knows.
func (s *source) compare(points []point, r translate.Result, missed bool) error {
	byKey := make(map[string]point)
	stale := make(map[string]bool)
	kinds := map[dto.MetricType]string{
		dto.MetricType_GAUGE: "Gauge", dto.MetricType_COUNTER: "Sum",
		dto.MetricType_SUMMARY: "Summary", dto.MetricType_HISTOGRAM: "Histogram",
	}
	for _, p := range points {
		if p.stale {
			stale[p.series] = true
		} else {
			byKey[p.series] = p
		}
	}
	baselines := 0
	for _, series := range s.series {
		kind := kinds[series.typ]
		if series.native {
			kind = "ExponentialHistogram"
		}
		key := fmt.Sprintf("%q \"v1\" \"\" {} %q *v1.Metric_%s {l=%q}", translate.ScopeName, series.family, kind, series.labels[1])
		p, exported := byKey[key]
		// A series that goes while its family changes its type ends as what it was.
		if wantStale := (missed || series.gone) && series.live; stale[series.observedKey] != wantStale {
			return fmt.Errorf("%s: ended %v, want %v", series.observedKey, stale[series.observedKey], wantStale)
		}
		delete(byKey, key)
		delete(stale, series.observedKey)
		if missed || series.gone {
			if exported {
				return fmt.Errorf("%s: exported though it was not there", key)
			}
			series.live = false
			if !missed {
				series.observed = false
			}
			continue
		}
		if key != series.observedKey {
			series.observed = false
		}
		growth, sum, fromZero := s.growth(series)
		since := s.begin(series, fromZero)
		delta := s.delta(series)
		wantExported := !delta || series.observed || fromZero
		if exported != wantExported {
			return fmt.Errorf("%s: exported %v, want %v", key, exported, wantExported)
		}
		if !exported {
			baselines++
		} else if err := s.comparePoint(series, p, delta, growth, sum, since); err != nil {
			return fmt.Errorf("%s: %+v: %w", key, p, err)
		}
		if exported && delta {
			series.exported += p.value
			series.expected += growth
		}
		series.live = exported
		series.observed, series.observedKey, series.observedLife = true, key, series.life
		series.observedCreated, series.observedTime = series.created, s.timeOf(series)
		series.observedN, series.observedSum = series.n(), series.sum
	}
	const process = `"process_start_time_seconds" *v1.Metric_Gauge {}`
	for key := range stale {
		if !strings.HasSuffix(key, process) {
			return fmt.Errorf("%s: ended, but was not there", key)
		}
	}
	for key := range byKey {
		if !strings.HasSuffix(key, process) {
			return fmt.Errorf("%s: exported, but not of the source", key)
		}
	}
	if got := r.Dropped[translate.DropBaseline]; got != baselines || len(r.Dropped) > 1 || baselines == 0 && len(r.Dropped) > 0 {
		return fmt.Errorf("dropped %v, want %d baselines", r.Dropped, baselines)
	}
	return nil
}

// growth returns what the series counted since it was last observed, and
// whether that is all that it counts.
func (s *source) growth(series *sourceSeries) (n, sum float64, fromZero bool) {
	n, sum = float64(series.n()), series.sum
	if !series.observed {
		inside := s.tellsStart && s.restarted
		if s.created {
			inside = !series.created.Before(s.lastPage)
		}
		return n, sum, inside && !s.lastPage.IsZero() && !s.startOf(series).After(s.timeOf(series))
	}
	if series.life != series.observedLife {
		return n, sum, true
	}
	return n - float64(series.observedN), sum - series.observedSum, false
}

// startOf returns when the source says that the series began, zero if it does
// not.
func (s *source) startOf(series *sourceSeries) time.Time {
	switch {
	case s.created:
		return series.created
	case s.tellsStart:
		return s.processStart
	default:
		return time.Time{}
	}
}

// begin sets the start of the series that is in effect, and returns that of its
// growth.
func (s *source) begin(series *sourceSeries, fromZero bool) (since time.Time) {
	start, last := s.startOf(series), series.observedTime
	switch {
	case !series.observed:
		series.start = start
		return start
	case !fromZero:
		return last
	case s.created:
		series.start = start
		if start.Before(last) || start.After(s.timeOf(series)) {
			return last
		}
		return start
	case s.restarted && start.After(last):
		series.start = start
	default:
		series.start = last
	}
	return series.start
}

func (s *source) comparePoint(series *sourceSeries, p point, delta bool, growth, sum float64, since time.Time) error {
	at := s.timeOf(series)
	if p.time != uint64(at.UnixNano()) {
		return fmt.Errorf("want the time %s", renderTime(uint64(at.UnixNano())))
	}
	if p.delta != delta {
		return fmt.Errorf("temporality")
	}
	n, start := float64(series.n()), series.start
	switch {
	case series.typ == dto.MetricType_GAUGE:
		n, sum, start = series.sum, 0, time.Time{}
	case delta:
		n, start = growth, since
	default:
		sum = series.sum
	}
	if series.typ == dto.MetricType_COUNTER {
		sum = 0
	}
	if p.value != n || p.sum != sum {
		return fmt.Errorf("want %g, sum %g", n, sum)
	}
	want := uint64(0)
	if !start.IsZero() && !start.After(at) {
		want = uint64(start.UnixNano())
	}
	if p.start != want {
		return fmt.Errorf("want the start %s", renderTime(want))
	}
	return nil
}
