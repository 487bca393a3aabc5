package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
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
	"otelmetricsplugin/pkg/translate"
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
	points  []int              // as given to Accept
}

func (c *collector) MaxRequest() int {
	if c.limit == 0 {
		return 4 << 20
	}
	return c.limit
}

func (c *collector) Accept(request []byte, points int) error {
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	time.Sleep(slow)
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

// textLogger writes records without their time.
func textLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
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

func TestAStormOfStartAndStopWhileTheTargetHangsEndsSoon(t *testing.T) {
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

func TestATargetThatHangsHoldsUpNobodyAndHealsByItself(t *testing.T) {
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
			t.Errorf("with a target that hangs Stop took %v", d)
		}
		closeManager(t, m)
		if got, want := ups(c.got()), []float64{0, 1, 0}; !slices.Equal(got, want) {
			t.Errorf("up was %v, want %v", got, want)
		}
	})
}

func TestStopReturnsWhenTheLastExpositionWasRead(t *testing.T) {
	for name, test := range map[string]struct{ scrape, accept, want time.Duration }{
		"at once":           {0, 0, 0},
		"after the scrape":  {600 * time.Millisecond, 0, 600 * time.Millisecond},
		"before the accept": {600 * time.Millisecond, time.Minute, 600 * time.Millisecond},
		"after a second":    {1500 * time.Millisecond, 0, time.Second},
		"hanging":           {time.Minute, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := &collector{}, &target{}
				m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Hour})
				m.Start()
				time.Sleep(time.Second) // fake time
				p.set(func(p *target) { p.slow = test.scrape })
				c.mu.Lock()
				c.slow = test.accept
				c.mu.Unlock()
				start := time.Now()
				m.Stop()
				if d := time.Since(start); d != test.want {
					t.Errorf("Stop took %v, want %v", d, test.want)
				}
				if err := m.Close(t.Context()); err != nil {
					t.Error(err)
				}
				// A scrape that hangs is given up two seconds after Stop.
				if d, want := time.Since(start), min(test.scrape, 2*time.Second)+test.accept; d != want {
					t.Errorf("the last collection took %v, want %v", d, want)
				}
			})
		})
	}
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
			t.Errorf("exports are %+v, want the last exposition alone", got)
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
			return encode(counter("c_total", -1)), err // dropped
		}
		m := newManager(t, lifecycle.Config{Scrape: scrape, Delivery: c, Interval: 10 * time.Second,
			Temporality: sdkmetric.DeltaTemporalitySelector,
			Instruments: func(m metric.Meter) error {
				_, err := m.Float64ObservableCounter("work", metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
					work++
					o.Observe(work)
					return nil
				}))
				return err
			}})
		m.Start()
		time.Sleep(25 * time.Second) // fake time: three expositions
		p.set(func(p *target) { p.slow = time.Minute })
		time.Sleep(6 * time.Second) // in the middle of the fourth
		p.set(func(p *target) { p.slow = 0 })
		m.Stop()
		closeManager(t, m)
		if got := c.sums["otelmetricsplugin.translate.dropped"]; got != float64(p.reads) || p.reads != 4 {
			t.Errorf("the deltas of dropped points add up to %v after %d expositions with one each", got, p.reads)
		}
		if got := c.sums["work"]; got != work || work != 4 {
			t.Errorf("the deltas of the caller's counter add up to %v of %v in 4 collections", got, work)
		}
	})
}

func TestDeltasAddUpOverStopAndStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second,
			Temporality: sdkmetric.DeltaTemporalitySelector})
		m.Start()
		time.Sleep(15 * time.Second) // fake time
		m.Stop()
		time.Sleep(time.Minute)
		m.Start()
		time.Sleep(15 * time.Second)
		closeManager(t, m)
		if got, want := c.sums["reads_total"], float64(p.reads-1); got != want {
			t.Errorf("the deltas add up to %v, the source counted %v since the first exposition", got, want)
		}
	})
}

func TestATargetThatTakesLongerThanAMinuteIsUpZero(t *testing.T) {
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
		synctest.Wait() // Stop waits for the last exposition
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
		if n := len(c.got()); n != before {
			t.Errorf("%d exports after Close", n-before)
		}
		closeManager(t, m)
	})
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	c, p := &collector{}, &target{}
	failing := func(metric.Meter) error { return errors.New("no instruments today") }
	for _, test := range []struct {
		cfg  lifecycle.Config
		want string
	}{
		{lifecycle.Config{}, "lifecycle: the Config lacks Scrape, Delivery, a positive Interval"},
		{lifecycle.Config{Scrape: p.scrape, Interval: time.Second}, "lifecycle: the Config lacks Delivery"},
		{lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: -time.Second}, "lifecycle: the Config lacks a positive Interval"},
		{lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Second, Instruments: failing}, "lifecycle: instruments: no instruments today"},
	} {
		if _, err := lifecycle.New(test.cfg); err == nil || err.Error() != test.want {
			t.Errorf("the error is %v, want %s", err, test.want)
		}
	}
	if err := lifecycle.Once(t.Context(), lifecycle.Config{}); err == nil || err.Error() != "lifecycle: the Config lacks Scrape, Delivery" {
		t.Errorf("the error of Once is %v", err)
	}
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

func TestADeliveryThatHangsHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{slow: 10 * time.Second}, &target{}
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
		// The collection under way and the last one. The second session is
		// stopped before the first has ended, and makes none.
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("two sessions took %v to end", d)
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
			t.Errorf("an exposition that did not come had %v samples", got)
		}
		for i, want := range [][]string{nil, {reads}, nil, nil} {
			if got := c.got()[i].stale; !slices.Equal(got, want) {
				t.Errorf("export %d marked %v as stale, want %v", i, got, want)
			}
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
// between collections: as many expositions are read as intervals pass, each is exported
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

func TestASlowCycleDelaysTheNextOneAndTicksAreNotPiledUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second})
		begin := time.Now()
		m.Start()
		time.Sleep(5 * time.Second) // fake time
		p.set(func(p *target) { p.slow = 34 * time.Second })
		time.Sleep(20 * time.Second)
		p.set(func(p *target) { p.slow = 0 })
		time.Sleep(40 * time.Second)
		closeManager(t, m)
		var at []time.Duration
		for _, e := range c.got() {
			at = append(at, e.at.Sub(begin))
		}
		// From 10 to 44 s a scrape is under way. One tick of that time makes a
		// collection at its end; those that follow keep the step.
		s := time.Second
		if want := []time.Duration{0, 44 * s, 44 * s, 50 * s, 60 * s, 65 * s}; !slices.Equal(at, want) {
			t.Errorf("exports came after %v, want %v", at, want)
		}
	})
}

func TestDroppedPointsAreCountedByReasonAndLoggedWhenItStartsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		values := []float64{1, -1, -1, 1, 1, 1}
		scrape := func(ctx context.Context) ([]byte, error) {
			_, err := p.scrape(ctx)
			return encode(counter("c_total", values[p.reads-1])), err
		}
		var log strings.Builder
		m := newManager(t, lifecycle.Config{Scrape: scrape, Delivery: c, Interval: 10 * time.Second, Logger: textLogger(&log)})
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
		t.Errorf("20 sessions began at only %d points", len(firsts))
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
			t.Errorf("the exports carried %v, want the last exposition alone", got)
		}
	})
}

func TestTheResourceIsTheEnginesOnceTheExpositionSaysSoAndTheUserWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		m := newManager(t, lifecycle.Config{
			Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second,
			Defaults: []attribute.KeyValue{attribute.String("service.name", "dockerd"), attribute.String("host.name", "h")},
			Resource: []attribute.KeyValue{attribute.String("host.name", "mine")},
		})
		m.Start()
		time.Sleep(time.Second) // fake time; at boot the exposition does not know its engine yet
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

// gauge returns a Config.Instruments that adds one gauge with that callback.
func gauge(callback metric.Int64Callback) func(metric.Meter) error {
	return func(meter metric.Meter) error {
		_, err := meter.Int64ObservableGauge("mine", metric.WithInt64Callback(callback))
		return err
	}
}

func TestTheCallersInstrumentsAreMadeOnceAndOutliveStopAndStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		made := 0
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute,
			Instruments: func(meter metric.Meter) error {
				made++
				return gauge(func(_ context.Context, o metric.Int64Observer) error {
					o.Observe(7)
					return nil
				})(meter)
			}})
		for range 3 {
			m.Start()
			time.Sleep(time.Second) // fake time
			m.Stop()
		}
		closeManager(t, m)
		for i, e := range c.got() {
			if e.values["otelmetricsplugin mine"] != 7 {
				t.Errorf("export %d carried %v", i, e.values)
			}
		}
		if len(c.got()) != 6 || made != 1 {
			t.Errorf("%d exports in three sessions, instruments made %d times", len(c.got()), made)
		}
	})
}

func TestACallbackThatFailsCostsNoOtherPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		var log strings.Builder
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute, Logger: textLogger(&log),
			Instruments: gauge(func(context.Context, metric.Int64Observer) error { return errors.New("no measurement") })})
		m.Start()
		time.Sleep(time.Second) // fake time
		m.Stop()
		closeManager(t, m)
		if got := counts(c.got()); !slices.Equal(got, []float64{1, 2}) || !slices.Equal(ups(c.got()), []float64{1, 1}) {
			t.Errorf("the exports are %+v", c.got())
		}
		if want := "level=WARN msg=\"a collection is incomplete\" error=\"own metrics: no measurement\"\n"; strings.Count(log.String(), want) != 2 {
			t.Errorf("the log is\n%swant twice\n%s", log.String(), want)
		}
	})
}

func TestRequestsAreCutToWhatTheDeliveryTakesAndEndWithTheOwnMetrics(t *testing.T) {
	for _, test := range []struct{ limit, parts int }{{0, 1}, {1, 5}} {
		c, p := &collector{limit: test.limit}, &target{}
		cfg := lifecycle.Config{Scrape: p.scrape, Delivery: c, Resource: []attribute.KeyValue{attribute.String("service.name", "mine")}}
		if err := lifecycle.Once(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		var scopes []string
		total := 0
		for i, e := range c.got() {
			scopes = append(scopes, e.scopes...)
			total += c.points[i]
			if !maps.Equal(e.resource, map[string]string{"service.name": "mine"}) {
				t.Errorf("limit %d: part %d has the resource %v", test.limit, i, e.resource)
			}
		}
		want := []string{translate.ScopeName, lifecycle.ScopeName}
		if got := slices.Compact(scopes); len(c.got()) != test.parts || total != 5 || !slices.Equal(got, want) {
			t.Errorf("limit %d: %d parts with %d points of the scopes %v, want %d with 5 of %v",
				test.limit, len(c.got()), total, got, test.parts, want)
		}
	}
}

func TestARefusalOfTheDeliveryIsLoggedAndTheCycleGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{err: errors.New("closed")}, &target{}
		var log strings.Builder
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: 10 * time.Second, Logger: textLogger(&log)})
		m.Start()
		time.Sleep(15 * time.Second) // fake time
		closeManager(t, m)
		if want := "level=WARN msg=\"a collection is incomplete\" error=closed\n"; strings.Count(log.String(), want) != 3 {
			t.Errorf("the log is\n%swant three times\n%s", log.String(), want)
		}
		if err := lifecycle.Once(t.Context(), lifecycle.Config{Scrape: p.scrape, Delivery: c}); !errors.Is(err, c.err) {
			t.Errorf("the error of Once is %v", err)
		}
	})
}

func TestAFilterThatKeepsNothingIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{}, &target{}
		var log strings.Builder
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute, Logger: textLogger(&log),
			Keep: func(string) bool { return false }})
		m.Start()
		time.Sleep(time.Second) // fake time
		closeManager(t, m)
		want := `level=INFO msg="the first page was read" samples=1 kept=0
level=WARN msg="no family of the page is kept" remedy="check the expressions that select families: they match whole names, as engine_daemon_.*"
`
		if log.String() != want {
			t.Errorf("the log is\n%swant\n%s", log.String(), want)
		}
	})
}

func TestCloseThatWasTooEarlyMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &collector{slow: 10 * time.Second}, &target{}
		m := newManager(t, lifecycle.Config{Scrape: p.scrape, Delivery: c, Interval: time.Minute})
		m.Start()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := m.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
		for range 2 {
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
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
	if len(c.got()) != 1 {
		t.Errorf("%d exports, want none of a failed scrape", len(c.got())-1)
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
	if n := len(c.got()); n < 1 || n > 2 {
		t.Errorf("%d exports, want the first, if there was time, and the last", n)
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
	if _, err := lifecycle.Listen(socket); err == nil || err.Error() != "plugin socket: "+socket+" exists and is not a socket" {
		t.Errorf("over a file: %v", err)
	}
	if data, err := os.ReadFile(socket); err != nil || string(data) != "data" {
		t.Errorf("the file is now %q, %v", data, err)
	}
}
