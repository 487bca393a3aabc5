package translate_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"otelmetricsplugin/pkg/translate"
)

var (
	seedFlag  = flag.Uint64("property.seed", 0, "the one seed of the property test to run; 0 is new ones")
	countFlag = flag.Int("property.count", 2000, "the number of sequences of the property test")
)

// TestGrowthIsExact plays random sequences of scrapes of a source that counts,
// starts anew, loses series and gets them back, and compares every exported
// point with what the source knows of itself.
func TestGrowthIsExact(t *testing.T) {
	if *seedFlag != 0 {
		if err := newSource(*seedFlag).play(t); err != nil {
			t.Fatal(err)
		}
		return
	}
	first := uint64(time.Now().UnixNano())
	for seed := first; seed < first+uint64(*countFlag); seed++ {
		if err := newSource(seed).play(t); err != nil {
			t.Fatalf("-property.seed %d: %v", seed, err)
		}
	}
}

// source is a process with metrics.
type source struct {
	*rand.Rand
	delta        bool // exported temporality
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
	gone   bool // not on the page

	// Since the series began, by bucket; only the first one is used by a
	// counter. Native buckets are of the given schema, from index 0.
	counts  []uint64
	sum     float64
	schema  int32
	created time.Time
	life    int // number of times it began

	observed     bool
	observedLife int
	observedTime time.Time
	observedSum  float64
	observedN    uint64
	live         bool   // its last point had a value
	start        uint64 // of its last cumulative point
	expected     float64
	exported     float64 // the sum of its deltas
}

func newSource(seed uint64) *source {
	s := &source{Rand: rand.New(rand.NewPCG(seed, 0)), now: epoch, processStart: epoch.Add(-time.Hour)}
	s.delta = s.IntN(2) == 0
	s.tellsStart = s.IntN(2) == 0
	switch s.IntN(3) {
	case 0:
		s.asText = true
	case 1:
		s.created = true
	}
	for f := range 1 + s.IntN(4) {
		proto := sourceSeries{family: fmt.Sprintf("f%d", f), created: s.processStart}
		switch s.IntN(6) {
		case 0:
			proto.typ = dto.MetricType_GAUGE
		case 1:
			proto.typ = dto.MetricType_SUMMARY
		case 2, 3:
			proto.typ = dto.MetricType_HISTOGRAM
			proto.native = !s.asText && s.IntN(2) == 0
		default:
			proto.typ = dto.MetricType_COUNTER
		}
		for i := range 1 + s.IntN(5) {
			series := proto
			series.labels = []string{"l", fmt.Sprint(i)}
			series.counts = make([]uint64, 1+s.IntN(4))
			if series.native {
				series.counts = make([]uint64, 16)
				series.schema = 3
			}
			s.observe(&series, 20)
			s.series = append(s.series, &series)
		}
	}
	return s
}

// observe lets the series count up to n observations.
func (s *source) observe(series *sourceSeries, n int) {
	for range s.IntN(n + 1) {
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
	last := s.now
	s.now = s.now.Add(time.Duration(2000+s.IntN(30000)) * time.Millisecond)
	between := last.Add(s.now.Sub(last) * time.Duration(60+s.IntN(40)) / 100).Truncate(time.Millisecond)
	missed = s.IntN(8) == 0
	if s.IntN(20) == 0 && (s.tellsStart || s.created) {
		s.processStart = between
		s.restarted = true
		for _, series := range s.series {
			series.begin(between)
		}
	}
	for _, series := range s.series {
		switch {
		case s.IntN(15) == 0:
			series.gone = !series.gone
		case series.gone && s.IntN(3) == 0:
			series.gone = false
		}
		if s.IntN(12) == 0 && series.typ != dto.MetricType_GAUGE && !s.restarted {
			s.reset(series, between, missed)
			continue
		}
		if series.native && series.schema > 0 && s.IntN(10) == 0 {
			series.coarsen()
		}
		if s.IntN(4) != 0 {
			s.observe(series, 20)
		}
	}
	return missed
}

// reset begins the series anew, if that can be seen from outside.
func (s *source) reset(series *sourceSeries, at time.Time, missed bool) {
	if s.created {
		series.begin(at)
		s.observe(series, 20)
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

func (s *source) metric(series *sourceSeries) *dto.Metric {
	m := &dto.Metric{Label: labels(series.labels...)}
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
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(float64(i)), CumulativeCount: proto.Uint64(cumulative)})
		}
		if series.native && len(h.PositiveSpan) == 0 {
			h.PositiveSpan = spans(0, 0)
		}
	}
	return m
}

// play runs the sequence and compares.
func (s *source) play(t *testing.T) error {
	cfg := translate.Config{Version: "v1"}
	if s.delta {
		cfg.Temporality = sdkmetric.DeltaTemporalitySelector
	}
	tr := translate.New(cfg)
	for step := range 15 {
		missed := s.tick()
		var r *translate.Result
		var families []*dto.MetricFamily
		if missed {
			r = tr.Missed(s.now)
		} else {
			families = s.page(t)
			r = tr.Translate(families, s.now)
		}
		points, err := pointsOf(send(t, r))
		if err == nil && !missed {
			err = checkAccounting(families, r, points)
		}
		if err == nil {
			err = s.compare(points, r, missed)
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
func (s *source) compare(points []point, r *translate.Result, missed bool) error {
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
		if wantStale := (missed || series.gone) && series.live; stale[key] != wantStale {
			return fmt.Errorf("%s: ended %v, want %v", key, stale[key], wantStale)
		}
		delete(byKey, key)
		delete(stale, key)
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
		growth, sum, fromZero := s.growth(series)
		delta := s.delta && (series.typ == dto.MetricType_COUNTER || series.typ == dto.MetricType_HISTOGRAM)
		wantExported := !delta || series.observed || fromZero
		if exported != wantExported {
			return fmt.Errorf("%s: exported %v, want %v", key, exported, wantExported)
		}
		if !exported {
			baselines++
		} else if err := s.comparePoint(series, p, delta, growth, sum, fromZero); err != nil {
			return fmt.Errorf("%s: %+v: %w", key, p, err)
		}
		if exported && series.typ != dto.MetricType_GAUGE {
			series.start = p.start
			if delta {
				series.exported += p.value
				series.expected += growth
			}
		}
		series.live = exported
		series.observed, series.observedLife, series.observedTime = true, series.life, s.now
		series.observedN, series.observedSum = series.n(), series.sum
	}
	for key := range byKey {
		if key != fmt.Sprintf("%q \"v1\" \"\" {} \"process_start_time_seconds\" *v1.Metric_Gauge {}", translate.ScopeName) {
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
		return n, sum, inside && !s.lastPage.IsZero()
	}
	if series.life != series.observedLife {
		return n, sum, true
	}
	return n - float64(series.observedN), sum - series.observedSum, false
}

func (s *source) comparePoint(series *sourceSeries, p point, delta bool, growth, sum float64, fromZero bool) error {
	if p.time != uint64(s.now.UnixNano()) {
		return fmt.Errorf("time is not that of the scrape")
	}
	last := uint64(0)
	if series.observed {
		last = uint64(series.observedTime.UnixNano())
	}
	isNumber := series.typ == dto.MetricType_GAUGE || series.typ == dto.MetricType_COUNTER
	if p.delta != delta {
		return fmt.Errorf("temporality")
	}
	switch {
	case series.typ == dto.MetricType_GAUGE:
		if p.value != series.sum || p.start != 0 {
			return fmt.Errorf("want %g without a start", series.sum)
		}
		return nil
	case delta:
		if p.value != growth || !isNumber && p.sum != sum {
			return fmt.Errorf("want a delta of %g, sum %g", growth, sum)
		}
		if p.start < last || !fromZero && p.start != last {
			return fmt.Errorf("want a start of %d", last)
		}
		return nil
	}
	if p.value != float64(series.n()) || !isNumber && p.sum != series.sum {
		return fmt.Errorf("want %d, sum %g", series.n(), series.sum)
	}
	switch {
	case s.created:
		if p.start != uint64(series.created.UnixNano()) {
			return fmt.Errorf("want the created timestamp %d as start", series.created.UnixNano())
		}
	case !series.observed:
		want := uint64(0)
		if s.tellsStart {
			want = uint64(s.processStart.UnixNano())
		}
		if p.start != want {
			return fmt.Errorf("want a start of %d", want)
		}
	case fromZero:
		if p.start < last {
			return fmt.Errorf("want a start after %d", last)
		}
	default:
		if p.start != series.start {
			return fmt.Errorf("want the start of before, %d", series.start)
		}
	}
	return nil
}
