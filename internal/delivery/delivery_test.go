package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
)

// unavailable is the script of a Collector that is overloaded.
func unavailable(int, *request) (*response, error) {
	return nil, status.Error(codes.Unavailable, "overloaded")
}

// host is where a Collector may run or not, within a synctest bubble.
type host struct {
	mu     sync.Mutex
	l      *bufconn.Listener
	server *grpc.Server
	dials  int
}

func (h *host) dial(ctx context.Context, _ string) (net.Conn, error) {
	h.mu.Lock()
	l := h.l
	h.dials++
	h.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	return l.DialContext(ctx)
}

func (h *host) up(t *testing.T, c *receiver) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.l = bufconn.Listen(1 << 20)
	h.server = c.serve(t, h.l)
}

func (h *host) down() {
	h.mu.Lock()
	server := h.server
	h.l, h.server = nil, nil
	h.mu.Unlock()
	server.Stop()
}

func (h *host) conn(t *testing.T) *grpc.ClientConn {
	return dial(t, "passthrough:///collector", grpc.WithContextDialer(h.dial))
}

func TestOutageOfTenMinutesLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, want, log := &host{}, newReceiver(), ledger{}, logs{}
		dir := t.TempDir()
		q := open(t, Config{Conn: h.conn(t), Dir: dir, Logger: log.logger()})
		h.up(t, c)
		scrape := 0
		scrapes := func(n int) {
			for range n {
				scrape++
				accept(t, q, want, page(scrape, 3))
				time.Sleep(time.Second)
			}
		}
		scrapes(5)
		if s := q.Stats(); s.DeliveredRequests != 5 || s.QueuedRequests != 0 {
			t.Fatalf("while all is well: %+v", s)
		}
		h.down()
		scrapes(600)
		if s := q.Stats(); s.QueuedRequests != 600 || s.MemoryBytes != 0 || s.OldestAge != 10*time.Minute {
			t.Errorf("after ten minutes: %+v", s)
		}
		h.up(t, c)
		// The pause is at most 30s, then 600 requests go at 20 a second while
		// one more a second comes in.
		scrapes(30 + 32)
		if s := q.Stats(); s.QueuedRequests != 0 || s.DiskBytes != 0 {
			t.Errorf("a minute after the Collector is back: %+v", s)
		}
		drained(t, q)
		if d := compare(t, want, c.held); d != 0 {
			t.Errorf("%d points twice", d)
		}
		wantLog := []string{"the Collector does not take requests: they wait", "the Collector answers again"}
		// A line for each reason: a server that ends shows as a connection that
		// breaks, whether before its preface or later, and as one that is refused.
		known := []any{"connection_refused", "server_hangs_up", "unavailable"}
		if got := slices.Compact(log.messages()); !slices.Equal(got, wantLog) {
			t.Errorf("log: %q", got)
		}
		seen := map[any]bool{}
		for _, r := range log.records()[:len(log.records())-1] {
			if seen[r["reason"]] || !slices.Contains(known, r["reason"]) {
				t.Errorf("log: %v", r)
			}
			seen[r["reason"]] = true
		}
	})
}

func TestADayOfBacklogComesInOrderAtTheStatedPaceBeforeFreshData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, want := newReceiver(), ledger{}
		c.answer = unavailable
		q := open(t, Config{Conn: to(c), Dir: t.TempDir()})
		scrape := 0
		for range 24 * 60 * 60 / 15 {
			scrape++
			accept(t, q, want, page(scrape, 3))
			time.Sleep(15 * time.Second)
		}
		var at []time.Time // of each request that is taken
		c.script(func(int, *request) (*response, error) {
			at = append(at, time.Now())
			return nil, nil
		})
		for q.Stats().QueuedRequests > 0 {
			time.Sleep(15 * time.Second)
			scrape++
			accept(t, q, want, page(scrape, 3))
			synctest.Wait()
		}
		drained(t, q)
		if d := compare(t, want, c.held); d != 0 {
			t.Errorf("%d points twice", d)
		}
		for i := 1; i < 24*60*60/15; i++ {
			if d := at[i].Sub(at[i-1]); d < 50*time.Millisecond {
				t.Fatalf("request %d came %v after the one before", i, d)
			}
		}
		if d := at[len(at)-1].Sub(at[0]); d > 6*time.Minute {
			t.Errorf("the backlog took %v", d)
		}
	})
}

func TestProbesBackOffOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReceiver()
		var at []time.Time
		c.answer = func(int, *request) (*response, error) {
			at = append(at, time.Now())
			return nil, status.Error(codes.Unavailable, "")
		}
		q := open(t, Config{Conn: to(c), Dir: t.TempDir()})
		for scrape := range 240 {
			accept(t, q, nil, page(scrape, 1))
			time.Sleep(15 * time.Second)
		}
		synctest.Wait()
		for i, limit := 1, time.Second; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < limit/10 || d > limit {
				t.Errorf("pause %d is %v, limit %v", i, d, limit)
			}
			limit = min(2*limit, 30*time.Second)
		}
		// Half of 30s on average, and never fewer than one in 30s.
		if n := len(at); n < 120 || n > 500 {
			t.Errorf("%d probes in an hour", n)
		}
		if s := q.Stats(); s.Retries != int64(len(at)) {
			t.Errorf("%d attempts, counted %d", len(at), s.Retries)
		}
	})
}

func TestRetryInfoIsHonouredWithinItsBound(t *testing.T) {
	for asked, within := range map[time.Duration][2]time.Duration{
		20 * time.Second: {20 * time.Second, 21 * time.Second},
		time.Hour:        {5 * time.Minute, 5*time.Minute + time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, want := newReceiver(), ledger{}
			var at []time.Time
			c.answer = func(n int, _ *request) (*response, error) {
				at = append(at, time.Now())
				if n == 1 {
					return nil, withRetryInfo(codes.ResourceExhausted, asked)
				}
				return nil, nil
			}
			q := open(t, Config{Conn: to(c), Dir: t.TempDir()})
			accept(t, q, want, page(1, 1))
			time.Sleep(time.Hour)
			drained(t, q)
			compare(t, want, c.held)
			if d := at[1].Sub(at[0]); d < within[0] || d > within[1] {
				t.Errorf("asked for %v, paused %v", asked, d)
			}
		})
	}
}

func TestAWellCollectorLeavesTheDiskAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, want := newReceiver(), ledger{}
		cfg := Config{Conn: to(c), Dir: t.TempDir(), MaxMessage: 1000}
		if err := cfg.setDefaults(); err != nil {
			t.Fatal(err)
		}
		q := newQueue(cfg)
		writes, write := 0, q.store.spool.writeFile
		q.store.spool.writeFile = func(path string, b []byte) error {
			writes++
			return write(path, b)
		}
		q.start()
		accept(t, q, want, page(1, 1)) // not known to be well yet
		synctest.Wait()
		if writes != 2 { // the trial at the start, and the request
			t.Errorf("%d writes at the start", writes)
		}
		for scrape := 2; scrape < 20; scrape++ {
			accept(t, q, want, page(scrape, 100)) // in several parts
			synctest.Wait()
		}
		if writes != 2 {
			t.Errorf("%d writes although all was well", writes)
		}
		drained(t, q)
		compare(t, want, c.held)
	})
}

func TestASlowAnswerAndASecondRequestPutBothOnTheDisk(t *testing.T) {
	for name, wait := range map[string]func(t *testing.T, q *Queue, want ledger) int64{
		"after a second": func(*testing.T, *Queue, ledger) int64 {
			time.Sleep(directFor + time.Millisecond) // fake time
			return 1
		},
		"when it fails": func(*testing.T, *Queue, ledger) int64 {
			time.Sleep(10*time.Second + time.Millisecond) // fake time
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, want := newReceiver(), ledger{}
				var hang atomic.Bool
				conn := connFunc(func(ctx context.Context, data []byte) (*response, error) {
					if hang.Load() {
						<-ctx.Done()
						return nil, status.FromContextError(ctx.Err()).Err()
					}
					return to(c)(ctx, data)
				})
				q := open(t, Config{Conn: conn, Dir: t.TempDir()})
				accept(t, q, want, page(1, 1))
				synctest.Wait()
				hang.Store(true)
				accept(t, q, want, page(2, 1))
				synctest.Wait()
				if s := q.Stats(); s.MemoryBytes == 0 || s.DiskBytes != 0 {
					t.Errorf("on its way: %+v", s)
				}
				if n := wait(t, q, want); q.Stats().MemoryBytes != 0 || q.Stats().DiskBytes != n*blockSize {
					t.Errorf("want %d on the disk: %+v", n, q.Stats())
				}
				hang.Store(false)
				time.Sleep(time.Minute)
				drained(t, q)
				compare(t, want, c.held)
			})
		})
	}
}

// A Collector that answers each request within a second, and yet not all of
// them: what is older than that when the next collection comes is written.
func TestACollectorThatIsSlowerThanTheCollectionsPutsThemOnTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, want := newReceiver(), ledger{}
		var slow atomic.Bool
		conn := connFunc(func(ctx context.Context, data []byte) (*response, error) {
			if slow.Load() {
				time.Sleep(700 * time.Millisecond) // fake time
			}
			return to(c)(ctx, data)
		})
		q := open(t, Config{Conn: conn, Dir: t.TempDir()})
		accept(t, q, want, page(1, 1))
		synctest.Wait()
		slow.Store(true)
		accept(t, q, want, page(2, 1))
		accept(t, q, want, page(3, 1)) // another part of the collection
		if s := q.Stats(); s.QueuedRequests != 2 || s.DiskBytes != 0 {
			t.Errorf("one collection: %+v", s)
		}
		time.Sleep(directFor)
		if s := q.Stats(); s.QueuedRequests != 1 || s.DiskBytes != 0 {
			t.Errorf("its rest after a second: %+v", s)
		}
		accept(t, q, want, page(4, 1))
		if s := q.Stats(); s.MemoryBytes != 0 || s.DiskBytes != 2*blockSize {
			t.Errorf("the next collection: %+v", s)
		}
		time.Sleep(time.Minute)
		drained(t, q)
		compare(t, want, c.held)
	})
}

func TestFinalAnswersAreCountedExactly(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(n int, req *request) (*response, error)
		dropped map[string]int64
		log     []map[string]any
	}{
		"InvalidArgument": {
			func(int, *request) (*response, error) {
				return nil, status.Error(codes.InvalidArgument, "bad metric")
			},
			map[string]int64{DroppedRejected: 70},
			[]map[string]any{{"level": "WARN", "msg": "the Collector refuses data points: they are dropped",
				"answer": "InvalidArgument", "message": "bad metric",
				"remedy": "the Collector's own log says why", "points": 7.0}},
		},
		"Unauthenticated": {
			func(int, *request) (*response, error) {
				return nil, status.Error(codes.Unauthenticated, "no such token")
			},
			map[string]int64{DroppedRejected: 70},
			[]map[string]any{{"level": "WARN", "msg": "the Collector refuses data points: they are dropped",
				"answer": "Unauthenticated", "message": "no such token",
				"remedy": "correct the token in OTEL_EXPORTER_OTLP_HEADERS_FILE; what is refused meanwhile is lost", "points": 7.0}},
		},
		"ResourceExhausted without RetryInfo": {
			func(int, *request) (*response, error) {
				return nil, status.Error(codes.ResourceExhausted, "quota")
			},
			map[string]int64{DroppedRejected: 70},
			[]map[string]any{{"level": "WARN", "msg": "the Collector refuses data points: they are dropped",
				"answer": "ResourceExhausted", "message": "quota",
				"remedy": "the Collector's own log says why", "points": 7.0}},
		},
		"partial success": {
			func(int, *request) (*response, error) {
				return &response{PartialSuccess: partial(3, "three are bad")}, nil
			},
			map[string]int64{DroppedPartialSuccess: 30},
			[]map[string]any{{"level": "WARN", "msg": "the Collector refuses data points: they are dropped",
				"answer": "partial success", "message": "three are bad",
				"remedy": "the Collector's own log says why", "points": 3.0}},
		},
		"partial success of more than there was": {
			func(int, *request) (*response, error) {
				return &response{PartialSuccess: partial(1<<40, "")}, nil
			},
			map[string]int64{DroppedPartialSuccess: 70},
			[]map[string]any{{"level": "WARN", "msg": "the Collector refuses data points: they are dropped",
				"answer": "partial success", "message": "",
				"remedy": "the Collector's own log says why", "points": 7.0}},
		},
		"partial success of less than none": {
			func(n int, _ *request) (*response, error) {
				if n == 1 {
					return &response{PartialSuccess: partial(1, "one")}, nil
				}
				return &response{PartialSuccess: partial(math.MinInt64, "")}, nil
			},
			map[string]int64{DroppedPartialSuccess: 1},
			[]map[string]any{{"level": "WARN", "msg": "the Collector refuses data points: they are dropped",
				"answer": "partial success", "message": "one",
				"remedy": "the Collector's own log says why", "points": 1.0}},
		},
		"too large by a single point": {
			func(_ int, req *request) (*response, error) {
				if countPoints(req) == 1 && req.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints[0].Attributes[0].Value.GetStringValue() != "2" {
					return nil, nil
				}
				return nil, status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)")
			},
			map[string]int64{DroppedTooLarge: 10},
			[]map[string]any{{"level": "WARN", "msg": "the Collector refuses data points: they are dropped",
				"answer": "too large", "message": "grpc: received message larger than max (5 vs. 4)",
				"remedy": "raise the Collector's max_recv_msg_size_mib", "points": 1.0}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, server := logs{}, newReceiver()
				server.answer = c.answer
				q := open(t, Config{Conn: to(server), Dir: t.TempDir(), Logger: log.logger()})
				for scrape := 1; scrape <= 10; scrape++ {
					accept(t, q, nil, page(scrape, 7))
					time.Sleep(time.Second)
				}
				s := q.Stats()
				if got := dropped(s); !maps.Equal(got, c.dropped) {
					t.Errorf("dropped %v, want %v", got, c.dropped)
				}
				sum := s.DeliveredPoints
				for _, n := range s.Dropped {
					sum += n
				}
				if sum != 70 || s.QueuedPoints != 0 || s.Retries != 0 {
					t.Errorf("%+v", s)
				}
				// Told once, and once more when it is over for good.
				server.script(nil)
				for scrape := 11; scrape <= 10+calm; scrape++ {
					accept(t, q, nil, page(scrape, 7))
					time.Sleep(time.Second)
				}
				drained(t, q)
				var points int64
				for _, n := range c.dropped {
					points += n
				}
				want := append(c.log, map[string]any{"level": "INFO", "msg": "the Collector accepts all data points again", "dropped_points": float64(points)})
				got := log.records()
				if len(got) != len(want) || !maps.Equal(got[0], want[0]) || !maps.Equal(got[1], want[1]) {
					t.Errorf("log: %v\nwant %v", got, want)
				}
			})
		})
	}
}

// The OTLP specification, "Partial Success": with a message and no rejected
// points the server accepted all and warns.
func TestAPartialSuccessThatRefusesNothingIsAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, c, want := logs{}, newReceiver(), ledger{}
		c.answer = func(n int, _ *request) (*response, error) {
			return &response{PartialSuccess: partial(int64(-n%2), "use fewer labels")}, nil
		}
		q := open(t, Config{Conn: to(c), Dir: t.TempDir(), Logger: log.logger()})
		for scrape := range 10 + calm {
			if scrape == 10 {
				c.script(nil)
			}
			accept(t, q, want, page(scrape, 7))
			time.Sleep(time.Second)
		}
		s := drained(t, q)
		compare(t, want, c.held)
		if s.DeliveredPoints != 7*(10+calm) || len(dropped(s)) != 0 {
			t.Errorf("%+v", s)
		}
		wantLog := []map[string]any{
			{"level": "WARN", "msg": "the Collector warns: it accepts all data points", "message": "use fewer labels"},
			{"level": "INFO", "msg": "the Collector no longer warns"},
		}
		if got := log.records(); !slices.EqualFunc(got, wantLog, maps.Equal) {
			t.Errorf("log: %v", got)
		}
	})
}

func TestTooLargeForTheCollectorIsHalvedInPlaceAndLearned(t *testing.T) {
	for name, waits := range map[string]bool{"at once": false, "from the spool": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const takes = 100_000
				c, want := newReceiver(), ledger{}
				var refusals atomic.Int64
				var away atomic.Bool
				away.Store(waits)
				conn := connFunc(func(ctx context.Context, data []byte) (*response, error) {
					if away.Load() {
						return nil, status.Error(codes.Unavailable, "")
					}
					if len(data) > takes {
						refusals.Add(1)
						return nil, status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", len(data), takes)
					}
					return to(c)(ctx, data)
				})
				dir := t.TempDir()
				q := open(t, Config{Conn: conn, Dir: dir})
				for scrape := 1; scrape <= 3; scrape++ {
					accept(t, q, want, page(scrape, 20_000)) // 0.8 MB each
					synctest.Wait()
				}
				away.Store(false)
				time.Sleep(time.Hour)
				drained(t, q)
				if d := compare(t, want, c.held); d != 0 {
					t.Errorf("%d points twice", d)
				}
				if n := refusals.Load(); n > 5 {
					t.Errorf("%d refusals: the size was not learned", n)
				}
				if got := files(t, dir); len(got) != 0 {
					t.Errorf("left behind: %v", got)
				}
			})
		})
	}
}

func TestHalvesKeepTheirPlaceOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, c, want := t.TempDir(), newReceiver(), ledger{}
		fill(t, dir, page(1, 100), page(2, 100), page(3, 100))
		for i := 1; i <= 3; i++ {
			want.add(page(i, 100))
		}
		refuse := func(n int, req *request) (*response, error) {
			switch {
			case n > 3:
				return nil, status.Error(codes.Unavailable, "")
			case countPoints(req) > 30:
				return nil, status.Error(codes.ResourceExhausted, "grpc: received message larger than max")
			}
			return nil, nil
		}
		for range 3 {
			c.n = 0
			c.script(refuse)
			q := open(t, Config{Conn: to(c), Dir: dir})
			synctest.Wait()
			if err := q.Close(ended()); err != nil {
				t.Fatal(err)
			}
		}
		if names := files(t, dir); !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, ".000000-") || strings.Contains(n, ".000001-") }) {
			t.Fatalf("no halves in the spool: %v", names)
		}
		c.script(nil)
		q := open(t, Config{Conn: to(c), Dir: dir})
		drained(t, q)
		if d := compare(t, want, c.held); d != 0 {
			t.Errorf("%d points twice", d)
		}
	})
}

func TestPointsThatCannotBeSentAreDroppedAloneAndCounted(t *testing.T) {
	log, c, want := logs{}, newReceiver(), ledger{}
	q := open(t, Config{Conn: to(c), MaxMessage: 4000, Logger: log.logger()})
	req := page(1, 300)
	points := req.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints
	points[170].Attributes[0] = text("series", strings.Repeat("long", 2000)) // 8000 bytes
	good := slices.Delete(slices.Clone(points), 170, 171)
	accept(t, q, nil, req)
	// Nobody encodes a request like this one.
	if err := q.Accept(bytes.Repeat([]byte{0xff}, 5000), 11); err != nil {
		t.Fatal(err)
	}
	sent := page(1, 0)
	sent.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].Data = &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: good}}
	want.add(sent)
	accept(t, q, want, page(2, 300))
	s := drained(t, q)
	compare(t, want, c.held)
	if got := dropped(s); !maps.Equal(got, map[string]int64{DroppedInvalid: 11, DroppedTooLarge: 1}) {
		t.Errorf("dropped %v", got)
	}
	wantLog := []map[string]any{
		{"level": "WARN", "msg": "data points that cannot be sent are dropped", "invalid": 0.0, "too_large": 1.0, "max_bytes": 4000.0},
		{"level": "INFO", "msg": "all data points can be sent again", "dropped_points": 12.0},
	}
	got := log.records()
	if len(got) != 2 || !maps.Equal(got[0], wantLog[0]) || !maps.Equal(got[1], wantLog[1]) {
		t.Errorf("log: %v", got)
	}
}

func TestWithoutADirectoryWhatWaitsIsInMemoryWithinItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, want := newReceiver(), ledger{}
		c.answer = unavailable
		q := open(t, Config{Conn: to(c), MaxBytes: 10_000})
		for scrape := 1; scrape <= 200; scrape++ {
			accept(t, q, want, page(scrape, 2))
			synctest.Wait()
			if s := q.Stats(); s.MemoryBytes > 10_000 || s.DiskBytes != 0 {
				t.Fatalf("%+v", s)
			}
		}
		s := q.Stats()
		if s.Dropped[DroppedQueueFull]+s.QueuedPoints != 400 || s.QueuedRequests < 20 {
			t.Errorf("%+v", s)
		}
		// Close tries on while its ctx lasts, then counts what is lost.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(20*time.Second, func() {
			c.script(func(_ int, _ *request) (*response, error) {
				if len(c.requests) == 10 {
					return nil, status.Error(codes.Unavailable, "")
				}
				return nil, nil
			})
		})
		err := q.Close(ctx)
		lost := s.QueuedPoints - 20
		if want := fmt.Sprintf("delivery: %d data points could be neither delivered nor written to the spool before the end", lost); err == nil || err.Error() != want {
			t.Errorf("Close: %v", err)
		}
		if got := q.Stats().Dropped[DroppedShutdown]; got != lost {
			t.Errorf("%d counted of %d", got, lost)
		}
		for series, points := range want {
			want[series] = points[200-s.QueuedRequests:][:10]
		}
		compare(t, want, c.held)
	})
}

func TestCloseLeavesTheRestOnTheDiskAndDoesNotWaitForACollectorThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, want := &host{}, newReceiver(), ledger{}
		dir := t.TempDir()
		q := open(t, Config{Conn: h.conn(t), Dir: dir})
		for scrape := 1; scrape <= 10; scrape++ {
			accept(t, q, want, page(scrape, 2))
			time.Sleep(time.Second)
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := q.Close(ctx); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("Close took %v", d)
		}
		if err := q.Accept(encode(page(11, 1)), 1); !errors.Is(err, ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		if err := q.Close(t.Context()); err != nil {
			t.Errorf("Close again: %v", err)
		}
		h.up(t, c)
		q = open(t, Config{Conn: h.conn(t), Dir: dir})
		drained(t, q)
		if d := compare(t, want, c.held); d != 0 {
			t.Errorf("%d points twice", d)
		}
	})
}

func TestCloseDeliversWhatIsOnItsWay(t *testing.T) {
	c, want := newReceiver(), ledger{}
	q := open(t, Config{Conn: to(c), MaxMessage: 2000, Dir: t.TempDir(), Pace: 1})
	accept(t, q, want, page(1, 1000))
	accept(t, q, want, page(2, 1000))
	drained(t, q)
	if d := compare(t, want, c.held); d != 0 {
		t.Errorf("%d points twice", d)
	}
}

func TestOpenFailsOnlyOnAnInvalidConfig(t *testing.T) {
	_, err := Open(Config{MaxMessage: 17 << 20, MaxBytes: -1, Compression: "lz4"})
	want := "delivery: MaxBytes is -1: it must not be negative\nthe Conn is missing\nMaxMessage is 17825792: it must be at most 16777216\nthe Compression is \"lz4\": it must be gzip, zstd or empty"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	// A directory that cannot be.
	c, want2 := newReceiver(), ledger{}
	q := open(t, Config{Conn: to(c), Dir: "/dev/null/spool"})
	accept(t, q, want2, page(1, 1))
	drained(t, q)
	compare(t, want2, c.held)
}

func TestARequestLargerThanTheSpoolWaitsInMemoryOrIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, want := newReceiver(), ledger{}
		c.answer = unavailable
		q := open(t, Config{Conn: to(c), Dir: t.TempDir(), MaxBytes: 1000})
		for scrape := 1; scrape <= 10; scrape++ { // one or two fit
			accept(t, q, nil, page(scrape, 100))
			synctest.Wait()
		}
		s := q.Stats()
		if s.MemoryBytes > 1000 || s.DiskBytes != 0 || s.QueuedRequests == 0 || s.Dropped[DroppedQueueFull]+s.QueuedPoints != 1000 {
			t.Errorf("%+v", s)
		}
		for scrape := 11 - int(s.QueuedRequests); scrape <= 10; scrape++ {
			want.add(page(scrape, 100))
		}
		c.script(nil)
		drained(t, q)
		compare(t, want, c.held)
	})
}

func TestAcceptIsSafeForConcurrentUse(t *testing.T) {
	c := newReceiver()
	q := open(t, Config{Conn: to(c), Dir: t.TempDir(), MaxMessage: 1000, Pace: 1})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				if err := q.Accept(encode(page(i*20+n, 50)), 50); err != nil {
					t.Error(err)
				}
				q.Stats()
			}
		})
	}
	wg.Wait()
	if s := drained(t, q); s.DeliveredPoints != 8*20*50 {
		t.Errorf("%+v", s)
	}
}

// TestMemoryIsFlatOverAWeekWithoutACollector has the size of the real page and
// a spool that is full within a day.
func TestMemoryIsFlatOverAWeekWithoutACollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		debug.FreeOSMemory() // what other tests took
		h := &host{}
		q := open(t, Config{Conn: h.conn(t), Dir: t.TempDir(), MaxBytes: 4 << 20,
			MaxBackoff: 5 * time.Minute}) // most of the work is in the probes
		req := realPage(t)
		var first, most uint64
		const interval = 5 * time.Minute
		days := 7
		if raceEnabled {
			days = 1 // it looks for races, and takes ten times as long
		}
		for n := range days * int(24*time.Hour/interval) {
			accept(t, q, nil, req)
			time.Sleep(interval)
			if n%288 == 287 { // each day
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				if first == 0 {
					first = m.HeapAlloc
				}
				most = max(most, m.HeapAlloc)
				if total := m.Sys - m.HeapReleased; total > 40<<20 && !raceEnabled {
					t.Errorf("day %d: %d bytes from the system", n/288+1, total)
				}
			}
		}
		if most > first+2<<20 {
			t.Errorf("%d bytes on the first day, %d later", first, most)
		}
		s := q.Stats()
		points := int64(countPoints(req))
		if s.Dropped[DroppedQueueFull] == 0 || s.Dropped[DroppedQueueFull]+s.QueuedPoints != int64(days)*288*points || s.DiskBytes > 4<<20 {
			t.Errorf("%+v", s)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		t.Logf("%d probes, %d dials, %d requests of %d bytes on the disk, heap %d to %d", s.Retries, h.dials, s.QueuedRequests, s.DiskBytes/s.QueuedRequests, first, most)
	})
}

func TestTheQueueIsMeasured(t *testing.T) {
	c := newReceiver()
	q := open(t, Config{Conn: to(c), Dir: t.TempDir()})
	reader := sdkmetric.NewManualReader()
	if err := q.Register(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")); err != nil {
		t.Fatal(err)
	}
	accept(t, q, nil, page(1, 7))
	await(q, func(s Stats) bool { return s.DeliveredRequests > 0 && s.QueuedRequests == 0 })

	var rm metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	point := func(name, unit string, attrs attribute.Set, v any) {
		if kv := attrs.ToSlice(); len(kv) > 0 {
			name += "{" + string(kv[0].Key) + "=" + kv[0].Value.AsString() + "}"
		}
		got[name] = fmt.Sprint(v, " ", unit)
	}
	for _, m := range rm.ScopeMetrics[0].Metrics {
		name := strings.TrimPrefix(m.Name, "otelmetricsplugin.delivery.")
		switch d := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range d.DataPoints {
				point(name, m.Unit, p.Attributes, p.Value)
			}
		case metricdata.Gauge[float64]:
			for _, p := range d.DataPoints {
				if m.Name == "otelmetricsplugin.delivery.last_success" {
					if age := time.Since(time.UnixMilli(int64(p.Value * 1e3))); age < 0 || age > time.Minute {
						t.Errorf("last success %v ago", age)
					}
					p.Value = 0
				}
				point(name, m.Unit, p.Attributes, p.Value)
			}
		}
	}
	want := map[string]string{
		"queue.requests": "0 {request}", "queue.points": "0 {data_point}",
		"queue.size{where=disk}": "0 By", "queue.size{where=memory}": "0 By",
		"queue.oldest_age": "0 s", "delivered.requests": "1 {request}", "delivered.points": "7 {data_point}",
		"retries": "0 {attempt}", "last_success": "0 s",
	}
	for _, r := range reasons {
		want["dropped.points{reason="+r+"}"] = "0 {data_point}"
	}
	if !maps.Equal(got, want) {
		t.Errorf("measured %v\nwant %v", got, want)
	}

	// Close while collections go on does not deadlock.
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			var rm metricdata.ResourceMetrics
			_ = reader.Collect(context.Background(), &rm)
		}
	})
	drained(t, q)
	wg.Wait()
}

func TestCloseDoesNotWaitForACollectionThatHangs(t *testing.T) {
	q := open(t, Config{Conn: nowhere, Dir: t.TempDir()})
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	hangs, release := make(chan struct{}), make(chan struct{})
	gauge, err := meter.Int64ObservableGauge("hangs", metric.WithInt64Callback(func(context.Context, metric.Int64Observer) error {
		close(hangs)
		<-release
		return nil
	}))
	if err != nil {
		t.Fatal(gauge, err)
	}
	if err := q.Register(meter); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var rm metricdata.ResourceMetrics
		_ = reader.Collect(context.Background(), &rm)
	})
	<-hangs
	accept(t, q, nil, page(1, 3))
	if err := q.Close(ended()); err != nil || q.Stats().QueuedPoints != 3 {
		t.Errorf("%v, %+v", err, q.Stats())
	}
	close(release)
	wg.Wait()
}

// TestRandomFaults lets everything happen in any order, and compares.
func TestRandomFaultsLoseNothingAndKeepTheOrder(t *testing.T) {
	seeds := uint64(10)
	if raceEnabled {
		seeds = 3
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r, network := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
			dir, c, want := t.TempDir(), newReceiver(), ledger{}
			answers := []error{
				nil, nil, nil,
				status.Error(codes.Unavailable, ""), status.Error(codes.Aborted, ""), status.Error(codes.DataLoss, ""),
				withRetryInfo(codes.ResourceExhausted, time.Second),
			}
			c.answer = func(_ int, req *request) (*response, error) {
				if countPoints(req) > 40 {
					return nil, status.Error(codes.ResourceExhausted, "message too large")
				}
				return nil, answers[network.IntN(len(answers))]
			}
			conn := connFunc(func(ctx context.Context, data []byte) (*response, error) {
				time.Sleep(time.Duration(network.IntN(3000)) * time.Millisecond)
				return to(c)(ctx, data)
			})
			var broken diskFault
			var q *Queue
			for scrape := 1; scrape <= 200; scrape++ {
				if q == nil {
					q = brokenDisk(t, Config{Conn: conn, Dir: dir, MaxMessage: 3000, Logger: (&logs{}).logger()}, &broken)
				}
				accept(t, q, want, page(scrape, 1+r.IntN(100)))
				time.Sleep(time.Duration(r.IntN(20)) * time.Second)
				synctest.Wait()
				switch r.IntN(20) {
				case 0:
					broken.set(syscall.ENOSPC)
				case 1, 2:
					broken.heal()
				case 3:
					broken.heal()
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					if err := q.Close(ctx); err != nil {
						t.Fatal(err)
					}
					cancel()
					q = nil
				}
			}
			broken.heal()
			c.script(nil)
			if q == nil {
				q = open(t, Config{Conn: conn, Dir: dir})
			}
			for q.Stats().QueuedRequests > 0 {
				time.Sleep(time.Minute)
			}
			drained(t, q)
			if d := compare(t, want, c.held); d != 0 {
				t.Errorf("seed %d: %d points twice", seed, d)
			}
		})
	}
}
