package delivery

import (
	"context"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

func TestBuffersAreRecycledAndGivenBackAfterAPeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &buffers{}
		scrape := func(sizes ...int) {
			var used []*buffer
			for _, n := range sizes {
				b := s.get(n)
				if len(b.bytes) != n {
					t.Fatalf("%d bytes, want %d", len(b.bytes), n)
				}
				used = append(used, b)
			}
			for _, b := range used {
				b.Release()
			}
			time.Sleep(recyclePeriod)
		}
		scrape(2_000_000, 2_000_000, 300_000)
		steady := testing.AllocsPerRun(100, func() {
			a, b, c := s.get(1_990_000), s.get(2_000_000), s.get(290_000)
			a.Release()
			b.Release()
			c.Release()
		})
		if steady != 0 {
			t.Errorf("%v allocations for a scrape as before", steady)
		}
		if s.freeBytes < 4_300_000 || s.freeBytes > 5_000_000 {
			t.Errorf("%d bytes are free after a scrape of 4,300,000", s.freeBytes)
		}
		for range 100 {
			scrape(1 << 20)
		}
		if s.freeBytes > 1<<20 || s.inUse != 0 {
			t.Errorf("%d bytes are free after scrapes of 1 MiB, %d in use", s.freeBytes, s.inUse)
		}
		for range 100 { // all at once, as in an outage without a disk
			_ = s.get(1 << 20)
		}
		if s.freeBytes != 0 || s.inUse != 100<<20 {
			t.Errorf("%d bytes are free, %d in use", s.freeBytes, s.inUse)
		}
	})
}

// The memory of a request is given back by gRPC itself: what it does not give
// back would be allocated again.
func TestASteadyFlowAllocatesNothingOfTheSizeOfItsRequests(t *testing.T) {
	req := page(1, 20_000)
	request, points := encode(req), countPoints(req)
	for _, compression := range compressions {
		conn := swallowing(t)
		q := open(t, Config{Conn: conn, Dir: t.TempDir(), Compression: compression})
		deliver := func(n int) {
			for range n {
				if err := q.Accept(request, points); err != nil {
					t.Fatal(err)
				}
				await(q, func(s Stats) bool { return s.QueuedRequests == 0 })
			}
		}
		deliver(5)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		deliver(100)
		runtime.ReadMemStats(&after)
		// The server, which unpacks, is in the same process.
		if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > uint64(len(request)/5) && !raceEnabled {
			t.Errorf("with %q %d bytes are allocated for a request of %d", compression, n, len(request))
		}
	}
}

// gate is a network whose writes wait while it is shut.
type gate struct {
	mu    sync.Mutex
	open  chan struct{} // closed while it is open
	stuck chan struct{} // a write waits
}

func newGate() *gate {
	g := &gate{open: make(chan struct{}), stuck: make(chan struct{}, 1)}
	close(g.open)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

func (g *gate) dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	return gatedConn{c, g}, err
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c gatedConn) Write(b []byte) (int, error) {
	c.gate.mu.Lock()
	open := c.gate.open
	c.gate.mu.Unlock()
	select {
	case <-open:
	default:
		select {
		case c.gate.stuck <- struct{}{}:
		default:
		}
		<-open
	}
	return c.Conn.Write(b)
}

// abortable is a connection whose calls can be aborted.
type abortable struct {
	*grpc.ClientConn
	abort chan struct{}
}

func (c abortable) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.abort:
			cancel()
		case <-ctx.Done():
		}
	}()
	return c.ClientConn.Invoke(ctx, method, args, reply, opts...)
}

// sends tells when gRPC has handed a request to its transport.
type sends chan int

func (s sends) HandleRPC(_ context.Context, e stats.RPCStats) {
	if out, ok := e.(*stats.OutPayload); ok {
		s <- out.Length
	}
}

func (sends) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sends) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sends) HandleConn(context.Context, stats.ConnStats)                       {}

// A transport that is stuck in the middle of a request when its time is over
// keeps the memory until it goes on.
func TestMemoryThatIsStillBeingWrittenIsNotRecycled(t *testing.T) {
	c, want, network := newReceiver(), ledger{}, newGate()
	l := listen(t, "127.0.0.1:0")
	c.serve(t, l)
	sent := make(sends, 10)
	conn := abortable{dial(t, l.Addr().String(), grpc.WithContextDialer(network.dial), grpc.WithStatsHandler(sent)), make(chan struct{})}
	cfg := quick(t, conn)
	cfg.Timeout, cfg.MinBackoff, cfg.MaxBackoff = time.Minute, time.Hour, time.Hour
	q := open(t, cfg)
	accept(t, q, want, page(1, 1))
	await(q, func(s Stats) bool { return s.QueuedRequests == 0 })
	inUse := func() int {
		q.store.buffers.mu.Lock()
		defer q.store.buffers.mu.Unlock()
		return q.store.buffers.inUse
	}
	network.shut()
	req := page(2, 20_000)
	size := len(encode(req))
	accept(t, q, want, req)
	for <-sent != size {
	}
	<-network.stuck
	conn.abort <- struct{}{}
	await(q, func(s Stats) bool { return s.Retries > 0 && s.MemoryBytes == 0 })
	// The queue has no use for it any more: the request is on the disk.
	if n := inUse(); n < size {
		t.Errorf("%d bytes are in use while a request of %d is stuck", n, size)
	}
	for range 10 {
		b := q.store.buffers.get(size)
		clear(b.bytes)
		b.Release()
	}
	network.reopen()
	drained(t, q)
	if d := compare(t, want, c.held); d != 0 {
		t.Errorf("%d points twice", d)
	}
	for tick := time.Tick(time.Millisecond); inUse() != 0; {
		<-tick
	}
}

// impatient cancels two attempts in three at some moment: before, while or
// after the request is written.
type impatient struct{ *grpc.ClientConn }

func (c impatient) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if rand.N(3) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rand.N(4*time.Millisecond))
		defer cancel()
	}
	return c.ClientConn.Invoke(ctx, method, args, reply, opts...)
}

// After a timeout gRPC may still be writing the request. Its memory must not
// get another content before it has finished.
func TestAfterATimeoutTheMemoryIsNotRecycledTooEarly(t *testing.T) {
	const requests, series = 25, 20_000
	for _, compression := range compressions {
		c := newReceiver()
		arrived := map[uint64]bool{}
		c.answer = func(_ int, req *request) (*response, error) {
			points := req.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints
			first := points[0].TimeUnixNano
			for _, p := range points {
				if p.TimeUnixNano != first || uint64(p.GetAsInt()) != first || len(points) != series {
					return nil, status.Errorf(codes.InvalidArgument, "a point of %d among those of %d", p.TimeUnixNano, first)
				}
			}
			arrived[first] = true
			req.ResourceMetrics = nil // the ledger is not needed
			return nil, nil
		}
		l := listen(t, "127.0.0.1:0")
		c.serve(t, l)
		cfg := quick(t, impatient{dial(t, l.Addr().String())})
		cfg.Compression = compression
		q := open(t, cfg)
		for scrape := 1; scrape <= requests; scrape++ {
			accept(t, q, nil, page(scrape, series))
		}
		s := flush(t, q)
		if len(arrived) != requests || len(dropped(s)) != 0 || s.Retries == 0 {
			t.Errorf("with %q %d requests of %d arrived, dropped %v, %d retries", compression, len(arrived), requests, dropped(s), s.Retries)
		}
	}
}
