package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/pkg/lifecycle"
)

func TestMain(m *testing.M) {
	// net/http lingers half a second on a connection whose body it refused.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// export is what one request carried.
type export struct {
	at       time.Time
	values   map[string]float64 // of the first point of each metric, by scope and name
	stale    []string           // metrics whose first point is a staleness marker
	scopes   []string
	start    time.Time // of the first point of the target's last counter
	stamp    time.Time
	resource map[string]string
}

// collector is a Delivery in the test's own process. Its fields are scripted
// before or between collections.
type collector struct {
	limit int           // MaxRequest; 0 is a lot
	slow  time.Duration // what Accept takes
	err   error         // of Accept

	mu      sync.Mutex
	exports []export
	sums    map[string]float64 // of all points of each sum
	points  []int              // as Accept was told
}

func (c *collector) MaxRequest() int {
	if c.limit == 0 {
		return 4 << 20
	}
	return c.limit
}

func (c *collector) Accept(request []byte, points int) error {
	time.Sleep(c.slow)
	var req colmetricpb.ExportMetricsServiceRequest
	if err := proto.Unmarshal(request, &req); err != nil {
		return err
	}
	x := export{at: time.Now(), values: map[string]float64{}, resource: map[string]string{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.sums == nil {
		c.sums = map[string]float64{}
	}
	for _, rm := range req.GetResourceMetrics() {
		for _, kv := range rm.GetResource().GetAttributes() {
			x.resource[kv.GetKey()] = kv.GetValue().GetStringValue()
		}
		for _, sm := range rm.GetScopeMetrics() {
			x.scopes = append(x.scopes, sm.GetScope().GetName())
			for _, m := range sm.GetMetrics() {
				c.add(&x, sm.GetScope().GetName(), m)
			}
		}
	}
	c.exports = append(c.exports, x)
	c.points = append(c.points, points)
	return nil
}

func (c *collector) add(x *export, scope string, m *metricpb.Metric) {
	points := m.GetGauge().GetDataPoints()
	if sum := m.GetSum(); sum != nil {
		points = sum.GetDataPoints()
		for _, p := range points {
			c.sums[m.GetName()] += value(p)
		}
		if scope != lifecycle.ScopeName {
			x.start, x.stamp = unix(points[0].GetStartTimeUnixNano()), unix(points[0].GetTimeUnixNano())
		}
	}
	name := scope + " " + m.GetName()
	if points[0].GetFlags() != 0 {
		x.stale = append(x.stale, name)
		return
	}
	x.values[name] = value(points[0])
}

func value(p *metricpb.NumberDataPoint) float64 {
	if p.GetFlags() != 0 {
		return 0
	}
	if v, ok := p.GetValue().(*metricpb.NumberDataPoint_AsInt); ok {
		return float64(v.AsInt)
	}
	return p.GetAsDouble()
}

func unix(nanoseconds uint64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(nanoseconds))
}

func (c *collector) got() []export {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.exports)
}

// target counts how often it was scraped. Its fields are scripted.
type target struct {
	mu      sync.Mutex
	reads   int
	running int // scrapes under way
	most    int // at the same time
	err     error
	hang    bool
	slow    time.Duration
	info    bool // whether the exposition says which engine it is
}

func (p *target) scrape(ctx context.Context) ([]byte, error) {
	p.mu.Lock()
	hang, slow := p.hang, p.slow
	p.running++
	p.most = max(p.most, p.running)
	p.mu.Unlock()
	defer p.set(func(p *target) { p.running-- })
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	if p.err != nil {
		return nil, p.err
	}
	families := []*dto.MetricFamily{counter("reads_total", float64(p.reads))}
	if p.info {
		families = append(families, &dto.MetricFamily{
			Name: proto.String("engine_daemon_engine_info"), Type: dto.MetricType_GAUGE.Enum(),
			Metric: []*dto.Metric{{
				Label: []*dto.LabelPair{{Name: proto.String("daemon_id"), Value: proto.String("engine-1")}},
				Gauge: &dto.Gauge{Value: proto.Float64(1)},
			}},
		})
	}
	return encode(families...), nil
}

func counter(name string, value float64) *dto.MetricFamily {
	return &dto.MetricFamily{
		Name: proto.String(name), Type: dto.MetricType_COUNTER.Enum(),
		Metric: []*dto.Metric{{Counter: &dto.Counter{Value: proto.Float64(value)}}},
	}
}

// encode returns an exposition as delimited protobuf.
func encode(families ...*dto.MetricFamily) []byte {
	var b bytes.Buffer
	for _, f := range families {
		if _, err := protodelim.MarshalTo(&b, f); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func (p *target) set(f func(*target)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

const (
	up      = "otelmetricsplugin up"
	reads   = "otelmetricsplugin/pkg/translate reads_total"
	scraped = "otelmetricsplugin scrape_samples_scraped"
)

// ups returns the value of up in each export.
func ups(exports []export) (values []float64) {
	for _, e := range exports {
		values = append(values, e.values[up])
	}
	return values
}

func counts(exports []export) (values []float64) {
	for _, e := range exports {
		values = append(values, e.values[reads])
	}
	return values
}

// instantly runs f and fails if any time passes in it. Only in a bubble, where
// time passes only while everything waits.
func instantly(t *testing.T, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if d := time.Since(start); d != 0 {
		t.Errorf("%s took %v", what, d)
	}
}

func newManager(t *testing.T, cfg lifecycle.Config) *lifecycle.Manager {
	t.Helper()
	m, err := lifecycle.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func closeManager(t *testing.T, m *lifecycle.Manager) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Errorf("the manager did not close within five seconds: %v", err)
	}
}

func TestOneScrapeServesTheFamiliesAndTheScrapesOwnMeasurements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{slow: 20 * time.Millisecond}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second, Version: "1"})
		start := time.Now()
		m.Start()
		time.Sleep(25 * time.Second) // fake time: the bubble waits for everyone in it
		closeManager(t, m)

		got := c.got()
		var at []time.Duration
		for _, e := range got {
			at = append(at, e.at.Sub(start))
		}
		slow := 20 * time.Millisecond
		// The first at once, two at the interval, the last at the end.
		if want := []time.Duration{slow, 10*time.Second + slow, 20*time.Second + slow, 25*time.Second + slow}; !slices.Equal(at, want) {
			t.Errorf("exports came after %v, want %v", at, want)
		}
		for i, e := range got {
			want := map[string]float64{
				up: 1, scraped: 1, "otelmetricsplugin scrape_samples_post_metric_relabeling": 1,
				"otelmetricsplugin scrape_duration_seconds": 0.02, reads: float64(i + 1),
			}
			if !maps.Equal(e.values, want) {
				t.Errorf("export %d carried %v, want %v", i, e.values, want)
			}
		}
	})
}

func TestStartAndStopInAnyOrderAnswerAtOnceAndLeaveOneSessionOrNone(t *testing.T) {
	for _, test := range []struct {
		name     string
		do       string // S is Start, T is Stop, - is a second
		sessions int
		reads    []float64
	}{
		{"nothing", "", 0, nil},
		{"Stop before Start", "TS-", 1, []float64{1, 2}},
		{"Stop twice", "S-TT-", 1, []float64{1, 2}},
		{"Start twice", "SS-SS-", 1, []float64{1, 2}},
		{"Start after Stop", "S-T-S-T-", 2, []float64{1, 2, 3, 4}},
		{"Start during Stop", "S-TSS-", 2, []float64{1, 2, 3, 4}},
		// Whether there is a first collection before the last is open here.
		{"Stop right after Start", "ST-", 1, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := &collector{}, &target{}
				m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute})
				for _, step := range test.do {
					switch step {
					case 'S':
						instantly(t, "Start", m.Start)
					case 'T':
						instantly(t, "Stop", m.Stop)
					default:
						time.Sleep(time.Second) // fake time
					}
				}
				closeManager(t, m)
				got := counts(c.got())
				if test.reads != nil && !slices.Equal(got, test.reads) {
					t.Errorf("the exports carried %v, want %v", got, test.reads)
				}
				if n := len(got); n < test.sessions || n > 2*test.sessions {
					t.Errorf("%d sessions exported %v, want one or two expositions each", test.sessions, got)
				}
				if p.running != 0 || p.most > 1 {
					t.Errorf("%d scrapes run still, %d ran at the same time", p.running, p.most)
				}
			})
		})
	}
}

func TestAStormOfStartAndStopWhileThePageHangsEndsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{hang: true}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Hour})
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				m.Start()
				m.Stop()
			})
		}
		all.Wait()
		closeManager(t, m)
		if p.running != 0 || p.most != 1 {
			t.Errorf("%d scrapes run still, %d ran at the same time", p.running, p.most)
		}
	})
}

func TestStopAndStartFromEverywhereLeaveNothingBehind(t *testing.T) {
	c, p := &collector{}, &target{}
	m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Hour})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				m.Start()
				m.Stop()
			}
		})
	}
	all.Wait()
	closeManager(t, m)
	if p.running != 0 || p.most != 1 {
		t.Errorf("%d scrapes run still, %d ran at the same time", p.running, p.most)
	}
}

func TestAPageThatHangsHoldsUpNobodyAndHealsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{hang: true}
		bounded := func(ctx context.Context) ([]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return p.scrape(ctx)
		}
		m := newManager(t, lifecycle.Config{Scrape: bounded, Delivery: c, Interval: 15 * time.Second})
		instantly(t, "Start", m.Start)
		time.Sleep(12 * time.Second) // fake time
		p.set(func(p *target) { p.hang = false })
		time.Sleep(15 * time.Second)
		if got, want := ups(c.got()), []float64{0, 1}; !slices.Equal(got, want) {
			t.Errorf("up was %v, want %v", got, want)
		}

		p.set(func(p *target) { p.hang = true })
		start := time.Now()
		m.Stop()
		if d := time.Since(start); d > time.Second {
			t.Errorf("with a page that hangs Stop took %v", d)
		}
		closeManager(t, m)
		if got, want := ups(c.got()), []float64{0, 1, 0}; !slices.Equal(got, want) {
			t.Errorf("up was %v, want %v", got, want)
		}
	})
}

func TestACollectionCutOffByStopLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{slow: time.Second}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 15 * time.Second})
		m.Start()
		time.Sleep(500 * time.Millisecond) // fake time: in the middle of the first scrape
		p.set(func(p *target) { p.slow = 0 })
		instantly(t, "Stop", m.Stop)
		closeManager(t, m)
		got := c.got()
		if len(got) != 1 || got[0].values[up] != 1 || got[0].values[reads] != 1 {
			t.Errorf("exports are %+v, want the last page alone", got)
		}
	})
}

// TestDeltasOfTheInstruments... cuts a collection off in the middle: what the SDK
// took for reported must have been exported.
func TestDeltasOfTheInstrumentsAddUpOverACollectionThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		var work float64
		scrape := func(ctx context.Context) ([]byte, error) {
			_, err := p.scrape(ctx)
			return []*dto.MetricFamily{{
				Name: proto.String("c_total"), Type: dto.MetricType_COUNTER.Enum(),
				Metric: []*dto.Metric{{Counter: &dto.Counter{Value: proto.Float64(-1)}}}, // dropped
			}}, err
		}
		m := newManager(t, lifecycle.Config{Scrape: scrape, Delivery: c, Interval: 10 * time.Second,
			Instruments: func(m metric.Meter) error {
				_, err := m.Float64ObservableCounter("work", metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
					work++
					o.Observe(work)
					return nil
				}))
				return err
			}})
		m.Start()
		time.Sleep(25 * time.Second) // fake time: three pages
		p.set(func(p *target) { p.slow = time.Minute })
		time.Sleep(6 * time.Second) // in the middle of the fourth
		p.set(func(p *target) { p.slow = 0 })
		m.Stop()
		closeManager(t, m)
		if got := c.sums["otelmetricsplugin.translate.dropped"]; got != float64(p.reads) || p.reads != 4 {
			t.Errorf("the deltas of dropped points add up to %v after %d pages with one each", got, p.reads)
		}
		if got := c.sums["work"]; got != work {
			t.Errorf("the deltas of the caller's counter add up to %v of %v", got, work)
		}
	})
}

func TestDeltasAddUpOverStopAndStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second})
		m.Start()
		time.Sleep(15 * time.Second) // fake time
		m.Stop()
		time.Sleep(time.Minute)
		m.Start()
		time.Sleep(15 * time.Second)
		closeManager(t, m)
		if got, want := c.sums["reads_total"], float64(p.reads-1); got != want {
			t.Errorf("the deltas add up to %v, the source counted %v since the first page", got, want)
		}
	})
}

func TestAPageThatTakesLongerThanAMinuteIsUpZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{hang: true}
		bounded := func(ctx context.Context) ([]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			return p.scrape(ctx)
		}
		m := newManager(t, lifecycle.Config{Scrape: bounded, Delivery: c, Interval: 5 * time.Minute})
		m.Start()
		time.Sleep(10 * time.Minute) // fake time
		if got, want := ups(c.got()), []float64{0, 0}; !slices.Equal(got, want) {
			t.Errorf("up was %v, want %v", got, want)
		}
		closeManager(t, m)
	})
}

func TestAScrapeThatFailsByItselfAtStopIsUpZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &collector{}
		refusing := make(chan struct{})
		scrape := func(context.Context) ([]byte, error) {
			<-refusing
			return nil, syscall.ECONNREFUSED
		}
		m := newManager(t, lifecycle.Config{Scrape: scrape, Delivery: c, Interval: time.Hour})
		m.Start()
		synctest.Wait() // in the first scrape
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			m.Stop()
		}()
		synctest.Wait() // Stop waits for the last page
		close(refusing)
		<-stopped
		closeManager(t, m)
		if got, want := ups(c.got()), []float64{0, 0}; !slices.Equal(got, want) {
			t.Errorf("up was %v, want %v: refused before the end, refused at the end", got, want)
		}
	})
}

func TestAfterCloseNothingStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second,
			Dial: func(context.Context) error { return nil }})
		m.Start()
		closeManager(t, m)
		before := len(c.got())
		m.Start()
		time.Sleep(time.Minute) // fake time
		if n := len(c.got()); n != before || c.exporters != 1 {
			t.Errorf("%d exports after Close by %d pipelines", n-before, c.exporters-1)
		}
		closeManager(t, m)
	})
}

func TestAPipelineThatCannotBeBuiltIsTriedAgainByTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		tries := 0
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Interval: time.Hour,
			Exporter: func(ctx context.Context) (sdkmetric.Exporter, error) {
				if tries++; tries == 1 {
					return nil, errors.New("no exporter today")
				}
				return c.exporter(ctx)
			}})
		m.Start()
		synctest.Wait()
		m.Start()
		synctest.Wait()
		if got := counts(c.got()); !slices.Equal(got, []float64{1}) {
			t.Errorf("the exports carried %v", got)
		}
		closeManager(t, m)
	})
}

func TestOnceThatIsCutOffSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{hang: true}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := lifecycle.Once(ctx, lifecycle.Config{Scrape: p.scrape, Delivery: c}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v, after %d exports", err, len(c.got()))
		}
	})
}

func TestABlackHoleHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{blackHole: true}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Second})
		instantly(t, "Start", m.Start)
		time.Sleep(10 * time.Second) // fake time
		start := time.Now()
		m.Stop()
		if d := time.Since(start); d > time.Second {
			t.Errorf("Stop took %v", d)
		}
		instantly(t, "Start during Stop", m.Start)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
		// The export under way and the last one, each until the exporter's own
		// timeout, in either pipeline.
		if d := time.Since(start); d > 40*time.Second {
			t.Errorf("two pipelines took %v to end", d)
		}
	})
}

func TestAFailedScrapeIsDataAndTheCycleGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second})
		m.Start()
		time.Sleep(time.Second) // fake time
		p.set(func(p *target) { p.err = errors.New("connection refused") })
		time.Sleep(10 * time.Second)
		p.set(func(p *target) { p.err = nil })
		time.Sleep(10 * time.Second)
		closeManager(t, m)
		if got, want := ups(c.got()), []float64{1, 0, 1, 1}; !slices.Equal(got, want) {
			t.Errorf("up was %v, want %v", got, want)
		}
		if got := c.got()[1].values[scraped]; got != 0 {
			t.Errorf("a page that did not come had %v samples", got)
		}
	})
}

func TestAnEngineThatIsAwayForTenMinutesIsUpZeroAtEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 15 * time.Second})
		m.Start()
		time.Sleep(time.Second) // fake time
		p.set(func(p *target) { p.err = syscall.ECONNREFUSED })
		time.Sleep(10 * time.Minute)
		p.set(func(p *target) { p.err = nil })
		time.Sleep(15 * time.Second)
		closeManager(t, m)
		want := append([]float64{1}, make([]float64, 40)...) // ten minutes of zeros
		want = append(want, 1, 1)
		if got := ups(c.got()); !slices.Equal(got, want) {
			t.Errorf("up was %v, want %v", got, want)
		}
	})
}

// TestAClockThatIsStepped... steps the wall clock by an hour, forward and back,
// between collections: as many pages are read as intervals pass, each is exported
// once, with the time that the clock showed, and no cumulative point begins after
// it ends.
func TestAClockThatIsSteppedLosesNothingAndHurriesNobody(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := &collector{}, &target{}
				var offset atomic.Int64
				// Round strips the monotonic reading, as a clock seen through a
				// step has none that helps.
				now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())).Round(0) }
				m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second, Now: now})
				begin := time.Now()
				m.Start()
				time.Sleep(25 * time.Second) // fake time
				offset.Store(int64(step))
				time.Sleep(20 * time.Second)
				offset.Store(0)
				time.Sleep(20 * time.Second)
				closeManager(t, m)

				if got, want := counts(c.got()), []float64{1, 2, 3, 4, 5, 6, 7, 8}; !slices.Equal(got, want) {
					t.Errorf("the exports carried %v, want %v", got, want)
				}
				var at []time.Duration
				for _, e := range c.got() {
					at = append(at, e.stamp.Sub(begin))
					if e.start.After(e.stamp) {
						t.Errorf("a point from %v to %v", e.start, e.stamp)
					}
				}
				s := time.Second
				want := []time.Duration{0, 10 * s, 20 * s, 30*s + step, 40*s + step, 50 * s, 60 * s, 65 * s}
				if !slices.Equal(at, want) {
					t.Errorf("the points have the times %v, want %v", at, want)
				}
			})
		})
	}
}

func TestDroppedPointsAreCountedByReasonAndLoggedWhenItStartsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		negative := []*dto.Metric{{Counter: &dto.Counter{Value: proto.Float64(-1)}}}
		good := []*dto.Metric{{Counter: &dto.Counter{Value: proto.Float64(1)}}}
		pages := [][]*dto.Metric{good, negative, negative, good, good, good}
		scrape := func(ctx context.Context) ([]byte, error) {
			_, err := p.scrape(ctx)
			return []*dto.MetricFamily{{Name: proto.String("c_total"), Type: dto.MetricType_COUNTER.Enum(), Metric: pages[p.reads-1]}}, err
		}
		var log strings.Builder
		m := newManager(t, lifecycle.Config{Scrape: scrape, Delivery: c, Interval: 10 * time.Second,
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}}))})
		m.Start()
		time.Sleep(45 * time.Second) // fake time
		closeManager(t, m)
		var dropped []float64
		for _, e := range c.got() {
			dropped = append(dropped, e.values["otelmetricsplugin otelmetricsplugin.translate.dropped"])
		}
		if want := []float64{0, 1, 2, 2, 2, 2}; !slices.Equal(dropped, want) {
			t.Errorf("the counts of dropped points are %v, want %v", dropped, want)
		}
		want := `level=INFO msg="the first page was read" samples=1 kept=1
level=WARN msg="points of the page are dropped" points.negative_counter=1
level=INFO msg="no points of the page are dropped any more"
`
		if log.String() != want {
			t.Errorf("the log is\n%swant\n%s", log.String(), want)
		}
	})
}

func TestTheFirstCollectionFallsAtARandomPointOfTheSpread(t *testing.T) {
	firsts := map[time.Duration]bool{}
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			c, p := &collector{}, &target{}
			m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second, Spread: 10 * time.Second})
			start := time.Now()
			m.Start()
			time.Sleep(20 * time.Second) // fake time
			closeManager(t, m)
			got := c.got()
			if len(got) != 3 {
				t.Fatalf("%d exports in 20 s, want 2 and the last", len(got))
			}
			first := got[0].at.Sub(start)
			if first < 0 || first >= 10*time.Second || got[1].at.Sub(got[0].at) != 10*time.Second {
				t.Errorf("the exports came after %v and %v", first, got[1].at.Sub(start))
			}
			firsts[first] = true
		})
	}
	if len(firsts) < 10 {
		t.Errorf("20 pipelines began at only %d points", len(firsts))
	}
}

func TestStopBeforeTheFirstCollectionIsDueCollectsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Hour, Spread: time.Hour})
		m.Start()
		instantly(t, "Stop", m.Stop)
		closeManager(t, m)
		if got := counts(c.got()); !slices.Equal(got, []float64{1}) {
			t.Errorf("the exports carried %v, want the last page alone", got)
		}
	})
}

func TestTheResourceIsTheEnginesOnceThePageSaysSoAndTheUserWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{
			Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second,
			Defaults: []attribute.KeyValue{attribute.String("service.name", "dockerd"), attribute.String("host.name", "h")},
			Resource: []attribute.KeyValue{attribute.String("host.name", "mine")},
		})
		m.Start()
		time.Sleep(time.Second) // fake time; at boot the page does not know its engine yet
		p.set(func(p *target) { p.info = true })
		time.Sleep(10 * time.Second)
		p.set(func(p *target) { p.info = false }) // what is known stays
		closeManager(t, m)

		boot := map[string]string{"service.name": "dockerd", "host.name": "mine"}
		known := map[string]string{"service.name": "dockerd", "host.name": "mine", "service.instance.id": "engine-1"}
		for i, want := range []map[string]string{boot, known, known} {
			if got := c.got()[i].resource; !maps.Equal(got, want) {
				t.Errorf("export %d: the resource is %v, want %v", i, got, want)
			}
		}
	})
}

func TestTheCallersInstrumentsHangOnTheSameProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute,
			Instruments: func(meter metric.Meter) error {
				_, err := meter.Int64ObservableGauge("mine", metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
					o.Observe(7)
					return nil
				}))
				return err
			}})
		m.Start()
		closeManager(t, m)
		for i, e := range c.got() {
			if e.values["otelmetricsplugin mine"] != 7 {
				t.Errorf("export %d carried %v", i, e.values)
			}
		}
		if len(c.got()) == 0 {
			t.Error("nothing was exported")
		}
	})
}

func TestAStaleSocketIsFoundAfterTheGrace(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, test := range []struct {
		name  string
		dial  func(since time.Duration) error
		stale bool
	}{
		{"refused for good", func(time.Duration) error { return refused }, true},
		{"refused for a moment", func(since time.Duration) error {
			if since < 3*time.Second {
				return refused
			}
			return nil
		}, false},
		{"alive", func(time.Duration) error { return nil }, false},
		{"no such file", func(time.Duration) error { return os.ErrNotExist }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := &collector{}, &target{}
				start := time.Now()
				m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute,
					Dial: func(context.Context) error { return test.dial(time.Since(start)) }})
				m.Start()
				select {
				case <-m.Stale():
					if d := time.Since(start); !test.stale || d != 5*time.Second {
						t.Errorf("found stale after %v", d)
					}
				case <-time.After(time.Minute):
					if test.stale {
						t.Error("not found stale within a minute")
					}
				}
				closeManager(t, m)
			})
		})
	}
}

func TestAStaleSocketIsNoConcernOnceStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute,
			Dial: func(context.Context) error { return syscall.ECONNREFUSED }})
		m.Start()
		m.Stop()
		select {
		case <-m.Stale():
			t.Error("found stale after Stop")
		case <-time.After(time.Minute):
		}
		closeManager(t, m)
	})
}

func TestOnceReturnsTheErrorOfTheScrape(t *testing.T) {
	c, p := &collector{}, &target{}
	cfg := lifecycle.Config{Scrape: p.scrape, Delivery: c}
	if err := lifecycle.Once(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got := counts(c.got()); !slices.Equal(got, []float64{1}) {
		t.Errorf("the exports carried %v", got)
	}
	p.err = errors.New("refused")
	if err := lifecycle.Once(t.Context(), cfg); err == nil || err.Error() != "refused" {
		t.Errorf("the error is %v", err)
	}
	if len(c.got()) != 1 || c.running != 0 {
		t.Errorf("%d exports, %d exporters left running", len(c.got()), c.running)
	}
}

func TestTheProtocolAsEnginesSpeakIt(t *testing.T) {
	c, p := &collector{}, &target{}
	m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute})
	dir, err := os.MkdirTemp("", "lifecycle") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "plugins", "p.sock")
	listener, err := lifecycle.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	server := lifecycle.NewServer(m)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}

	const media = "application/vnd.docker.plugins.v1.2+json"
	for _, test := range []struct {
		method, path, body string
		status             int
		contentType, want  string
	}{
		{"POST", "/Plugin.Activate", "", 200, media, `{"Implements":["MetricsCollector"]}` + "\n"},
		{"POST", "/MetricsCollector.StopMetrics", "", 200, media, `{"Err":""}` + "\n"},
		{"POST", "/MetricsCollector.StartMetrics", "", 200, media, `{"Err":""}` + "\n"}, // as engines send it
		{"POST", "/MetricsCollector.StartMetrics", "{}", 200, media, `{"Err":""}` + "\n"},
		{"POST", "/MetricsCollector.StartMetrics", "not json", 200, media, `{"Err":""}` + "\n"},
		{"POST", "/MetricsCollector.StartMetrics", strings.Repeat("x", 1<<20), 500, media, `{"Err":"reading the request: http: request body too large"}` + "\n"},
		{"POST", "/MetricsCollector.StopMetrics", "{}", 200, media, `{"Err":""}` + "\n"},
		{"GET", "/MetricsCollector.StartMetrics", "", 405, "text/plain; charset=utf-8", "Method Not Allowed\n"},
		{"PUT", "/Plugin.Activate", "", 405, "text/plain; charset=utf-8", "Method Not Allowed\n"},
		{"POST", "/", "", 404, "text/plain; charset=utf-8", "404 page not found\n"},
		{"POST", "/VolumeDriver.Create", "{}", 404, "text/plain; charset=utf-8", "404 page not found\n"},
	} {
		req := httptest.NewRequestWithContext(t.Context(), test.method, "http://plugin.moby.localhost"+test.path, strings.NewReader(test.body))
		req.Header.Set("Accept", media)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s %s: %v", test.method, test.path, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != test.status || resp.Header.Get("Content-Type") != test.contentType || string(body) != test.want {
			t.Errorf("%s %s with %.10q: %d %s %q (%v), want %d %s %q", test.method, test.path, test.body,
				resp.StatusCode, resp.Header.Get("Content-Type"), body, err, test.status, test.contentType, test.want)
		}
	}
	transport.CloseIdleConnections()
	_ = server.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	closeManager(t, m)
	if c.exporters != 1 {
		t.Errorf("%d pipelines ran, want 1", c.exporters)
	}
}

func TestListenReplacesTheSocketOfAProcessBeforeAndNothingElse(t *testing.T) {
	dir, err := os.MkdirTemp("", "lifecycle")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "p.sock")
	first, err := lifecycle.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false) // as after SIGKILL
	_ = first.Close()
	second, err := lifecycle.Listen(socket)
	if err != nil {
		t.Fatalf("over a dead socket: %v", err)
	}
	_ = second.Close()

	if err := os.WriteFile(socket, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lifecycle.Listen(socket); err == nil || err.Error() != "plugin socket: "+socket+" is there and is no socket" {
		t.Errorf("over a file: %v", err)
	}
	if data, err := os.ReadFile(socket); err != nil || string(data) != "data" {
		t.Errorf("the file is now %q, %v", data, err)
	}
}
