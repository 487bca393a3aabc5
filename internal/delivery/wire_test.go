package delivery

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"

	"otelmetricsplugin/internal/collector"
)

// Faults of a real connection: each test ends with the comparison of what was
// accepted with what the Collector holds.

// proxy stands between the queue and the Collector.
type proxy struct {
	l      net.Listener
	target string

	mu    sync.Mutex
	n     int                          // connections so far
	fault func(n int, c net.Conn) bool // breaks the n-th, from 1, or reports false
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	p := &proxy{l: listen(t, "127.0.0.1:0"), target: target, conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			c, err := p.l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.n++
			n, fault := p.n, p.fault
			p.conns[c] = true
			p.mu.Unlock()
			p.wg.Go(func() {
				defer c.Close()
				if fault == nil || !fault(n, c) {
					p.pass(c, func(dst, src net.Conn) { _, _ = io.Copy(dst, src) })
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = p.l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

// pass connects c with the target; up copies what c sends.
func (p *proxy) pass(c net.Conn, up func(dst, src net.Conn)) {
	s, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(c, s)
		_ = c.Close()
	})
	up(s, c)
	_ = s.Close()
	wg.Wait()
}

// breaks breaks the connections to come, until heal.
func (p *proxy) breaks(fault func(n int, c net.Conn) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

func (p *proxy) heal() { p.breaks(nil) }

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// compressions are the values of Config.Compression.
var compressions = []string{collector.Uncompressed, collector.Gzip, collector.Zstd}

// quick is a configuration that does not make a test wait.
func quick(t *testing.T, conn grpc.ClientConnInterface) Config {
	return Config{Conn: conn, Dir: t.TempDir(), Timeout: 5 * time.Second, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Pace: time.Nanosecond}
}

// flush waits until all is delivered, and closes q.
func flush(t *testing.T, q *Queue) Stats {
	t.Helper()
	await(q, func(s Stats) bool { return s.QueuedRequests == 0 })
	return drained(t, q)
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

func TestRetryableAnswersLoseNothing(t *testing.T) {
	for _, err := range []error{
		status.Error(codes.Canceled, ""), status.Error(codes.DeadlineExceeded, ""), status.Error(codes.Aborted, ""),
		status.Error(codes.OutOfRange, ""), status.Error(codes.Unavailable, ""), status.Error(codes.DataLoss, ""),
		withRetryInfo(codes.ResourceExhausted, time.Millisecond),
	} {
		t.Run(status.Code(err).String(), func(t *testing.T) {
			c, want := newReceiver(), ledger{}
			c.answer = func(n int, _ *request) (*response, error) {
				if n%3 != 0 {
					return nil, err
				}
				return nil, nil
			}
			l := listen(t, "127.0.0.1:0")
			c.serve(t, l)
			q := open(t, quick(t, dial(t, l.Addr().String())))
			for scrape := range 20 {
				accept(t, q, want, page(scrape, 5))
			}
			s := flush(t, q)
			if d := compare(t, want, c.held); d != 0 {
				t.Errorf("%d points twice", d)
			}
			if s.Retries != 40 || len(dropped(s)) != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestCollectorRestartedTwentyTimesUnderLoadLosesNothing(t *testing.T) {
	c, want := newReceiver(), ledger{}
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	server := c.serve(t, l)
	q := open(t, quick(t, dial(t, addr)))

	done := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for scrape := 0; ; scrape++ {
			select {
			case <-done:
				return
			default:
			}
			req := page(scrape, 5)
			want.add(req)
			if err := q.Accept(encode(req), 5); err != nil {
				t.Error(err)
			}
			await(q, func(s Stats) bool { return s.QueuedRequests < 50 || isClosed(done) })
		}
	})
	for range 20 {
		c.mu.Lock()
		n := c.n
		c.mu.Unlock()
		c.attempts(n + 1 + rand.IntN(30))
		server.Stop() // cuts off the answer that is on its way
		server = c.serve(t, listen(t, addr))
	}
	close(done)
	load.Wait()
	s := flush(t, q)
	d := compare(t, want, c.held)
	if d > 20*5 {
		t.Errorf("%d points twice, where 20 answers of 5 points were cut off", d)
	}
	if len(dropped(s)) != 0 {
		t.Errorf("dropped %v", dropped(s))
	}
	t.Logf("%d requests, %d retries, %d points twice", s.DeliveredRequests, s.Retries, d)
}

func TestGoAwayLosesNothingAndRepeatsNothing(t *testing.T) {
	c, want := newReceiver(), ledger{}
	l := listen(t, "127.0.0.1:0")
	c.serve(t, l, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 5 * time.Millisecond, MaxConnectionAgeGrace: time.Second}))
	p := newProxy(t, l.Addr().String())
	q := open(t, quick(t, dial(t, p.addr())))
	for scrape := 0; ; scrape++ {
		p.mu.Lock()
		n := p.n
		p.mu.Unlock()
		if n > 10 { // nine connections ended with GOAWAY
			break
		}
		accept(t, q, want, page(scrape, 5))
		c.attempts(scrape + 1)
	}
	flush(t, q)
	if d := compare(t, want, c.held); d != 0 {
		t.Errorf("%d points twice", d)
	}
}

func TestConnectionResetAnywhereInTheStreamLosesNothing(t *testing.T) {
	c, want := newReceiver(), ledger{}
	l := listen(t, "127.0.0.1:0")
	c.serve(t, l)
	req := page(0, 1000)
	size := proto.Size(req)
	p := newProxy(t, l.Addr().String())
	p.breaks(func(n int, conn net.Conn) bool {
		if n > 20 {
			return false
		}
		// The n-th connection breaks after n twentieths of a request.
		p.pass(conn, func(dst, src net.Conn) {
			_, _ = io.CopyN(dst, src, int64(size*n/20))
			reset(src)
		})
		return true
	})
	q := open(t, quick(t, dial(t, p.addr())))
	for scrape := range 20 {
		accept(t, q, want, page(scrape, 1000))
	}
	s := flush(t, q)
	compare(t, want, c.held)
	if s.Retries < 20 || len(dropped(s)) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAnAnswerThatIsCutOffIsTheOneCaseOfTwice(t *testing.T) {
	c, want := newReceiver(), ledger{}
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	p := newProxy(t, addr)
	cutOff := 0
	c.answer = func(n int, _ *request) (*response, error) {
		if n%4 == 0 {
			cutOff++
			p.cut() // before the answer leaves
		}
		return nil, nil
	}
	c.serve(t, l)
	q := open(t, quick(t, dial(t, p.addr())))
	for scrape := range 40 {
		accept(t, q, want, page(scrape, 5))
	}
	s := flush(t, q)
	d := compare(t, want, c.held)
	if cutOff < 10 || d != cutOff*5 || s.DeliveredPoints != 200 {
		t.Errorf("%d points twice, %d answers cut off, %+v", d, cutOff, s)
	}
}

func TestBlackHoleAndTrickleLoseNothing(t *testing.T) {
	for name, fault := range map[string]func(p *proxy, conn net.Conn, healed chan struct{}){
		"black hole": func(_ *proxy, _ net.Conn, healed chan struct{}) { <-healed },
		// What was swallowed arrives after all, when no one waits any more.
		"black hole that lets go": func(p *proxy, conn net.Conn, healed chan struct{}) {
			p.pass(conn, func(dst, src net.Conn) {
				<-healed
				_, _ = io.Copy(dst, src)
			})
		},
		// A byte a second, with a timeout as much shorter as the pause is.
		"1 byte at a time": func(p *proxy, conn net.Conn, healed chan struct{}) {
			p.pass(conn, func(dst, src net.Conn) {
				for {
					if _, err := io.CopyN(dst, src, 1); err != nil {
						return
					}
					select {
					case <-healed:
						return
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, want := newReceiver(), ledger{}
			l := listen(t, "127.0.0.1:0")
			c.serve(t, l)
			healed := make(chan struct{})
			p := newProxy(t, l.Addr().String())
			p.breaks(func(_ int, conn net.Conn) bool {
				fault(p, conn, healed)
				return true
			})
			cfg := quick(t, dial(t, p.addr()))
			cfg.Timeout = 100 * time.Millisecond
			q := open(t, cfg)
			for scrape := range 10 {
				accept(t, q, want, page(scrape, 100))
			}
			await(q, func(s Stats) bool { return s.Retries >= 3 })
			if s := q.Stats(); s.QueuedRequests != 10 || s.MemoryBytes != 0 {
				t.Errorf("%+v", s)
			}
			p.heal()
			close(healed)
			s := flush(t, q)
			d := compare(t, want, c.held)
			if int64(d) > s.Retries*100 {
				t.Errorf("%d points twice, %d attempts that timed out", d, s.Retries)
			}
			if len(dropped(s)) != 0 {
				t.Errorf("dropped %v", dropped(s))
			}
		})
	}
}

// http2Server breaks streams in a way that a gRPC server does not: for each
// request it writes the given frames, and closes the connection if asked to.
func http2Server(frames func(f *http2.Framer, stream uint32), then func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				frames(f, frame.StreamID)
				if then != nil {
					then(c)
				}
			}
		}
	}
}

func TestBrokenStreamsAndWrongServersLoseNothing(t *testing.T) {
	resetStream := func(code http2.ErrCode) func(net.Conn) {
		return http2Server(func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, code) }, nil)
	}
	hTTP := func(handler http.HandlerFunc) func(net.Conn) {
		return func(c net.Conn) {
			var protocols http.Protocols
			protocols.SetHTTP1(true)
			protocols.SetUnencryptedHTTP2(true)
			s := &http.Server{Handler: handler, Protocols: &protocols, ReadHeaderTimeout: time.Minute}
			l := &oneConn{c: c, done: make(chan struct{})}
			s.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateClosed {
					close(l.done)
				}
			}
			_ = s.Serve(l)
			_ = s.Close()
		}
	}
	for name, c := range map[string]struct {
		serve  func(net.Conn)
		reason string
	}{
		"RST_STREAM INTERNAL_ERROR":    {resetStream(http2.ErrCodeInternal), "unavailable"},
		"RST_STREAM NO_ERROR":          {resetStream(http2.ErrCodeNo), "unavailable"},
		"RST_STREAM CANCEL":            {resetStream(http2.ErrCodeCancel), "unavailable"},
		"RST_STREAM ENHANCE_YOUR_CALM": {resetStream(http2.ErrCodeEnhanceYourCalm), "throttled"},
		"GOAWAY that drops the stream": {http2Server(func(f *http2.Framer, _ uint32) {
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
		}, reset), "unavailable"},
		"GOAWAY with an error": {http2Server(func(f *http2.Framer, stream uint32) {
			_ = f.WriteGoAway(stream, http2.ErrCodeInternal, []byte("broken"))
		}, reset), "unavailable"},
		"an HTTP/1.1 server": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}, "not_otlp_grpc"},
		"an HTTP/2 server without the path": {hTTP(http.NotFound), "not_otlp_grpc"},
		"a proxy with an error page": {hTTP(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>", http.StatusInternalServerError)
		}), "not_otlp_grpc"},
		"a proxy without a backend": {hTTP(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "", http.StatusServiceUnavailable)
		}), "bad_gateway"},
		"a web page": {hTTP(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
		}), "not_otlp_grpc"},
		"a server that says nothing and hangs up": {func(c net.Conn) {
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}, "server_hangs_up"},
	} {
		t.Run(name, func(t *testing.T) {
			server, want, log := newReceiver(), ledger{}, logs{}
			l := listen(t, "127.0.0.1:0")
			server.serve(t, l)
			p := newProxy(t, l.Addr().String())
			p.breaks(func(_ int, conn net.Conn) bool {
				c.serve(conn)
				return true
			})
			cfg := quick(t, dial(t, p.addr()))
			cfg.Logger = log.logger()
			cfg.Timeout = 300 * time.Millisecond
			q := open(t, cfg)
			for scrape := range 5 {
				accept(t, q, want, page(scrape, 10))
			}
			await(q, func(s Stats) bool { return s.Retries >= 3 })
			p.heal()
			p.cut()
			s := flush(t, q)
			if d := compare(t, want, server.held); d != 0 {
				t.Errorf("%d points twice", d)
			}
			if len(dropped(s)) != 0 {
				t.Errorf("dropped %v", dropped(s))
			}
			if first := log.records()[0]; first["msg"] != "the Collector does not take requests: they wait" || first["reason"] != c.reason {
				t.Errorf("log: %v", first)
			}
			t.Log(log.records()[0]["error"])
		})
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	c    net.Conn
	done chan struct{}
	once bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.once {
		l.once = true
		return l.c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.c.LocalAddr() }

func TestAPageOf500000SamplesReachesADefaultCollector(t *testing.T) {
	series := 500_000
	if raceEnabled {
		series = 50_000 // the race detector takes minutes for more
	}
	c := newReceiver()
	count, next, most := 0, 0, 0
	c.answer = func(_ int, req *request) (*response, error) {
		most = max(most, proto.Size(req))
		for _, p := range req.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints {
			if p.Attributes[0].Value.GetStringValue() != fmt.Sprint(next) || p.TimeUnixNano != 7 {
				return nil, status.Errorf(codes.InvalidArgument, "series %d: %v", next, p)
			}
			next++
		}
		count += countPoints(req)
		req.ResourceMetrics = nil // the ledger would be larger than all else
		return nil, nil
	}
	l := listen(t, "127.0.0.1:0")
	c.serve(t, l) // takes 4 MiB
	q := open(t, Config{Conn: dial(t, l.Addr().String()), Compression: collector.Gzip, Dir: t.TempDir()})
	req := page(7, series)
	size := proto.Size(req)
	accept(t, q, nil, req)
	s := flush(t, q)
	if count != series || s.DeliveredPoints != int64(series) || len(dropped(s)) != 0 || s.Retries != 0 {
		t.Errorf("%d points arrived, %+v", count, s)
	}
	if most > 2<<20 || s.DeliveredRequests > int64(size/(2<<20)+2) {
		t.Errorf("%d requests of up to %d bytes for %d bytes", s.DeliveredRequests, most, size)
	}
}

// 64 MiB is where the SDK's exporter drops a request by default.
func TestARequestBeyond64MiBArrivesWhole(t *testing.T) {
	series, width := 500_000, 64
	if raceEnabled {
		series, width = 30_000, 1024 // the same bytes in less time
	}
	req := page(7, series)
	points := req.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints
	image, state := text("image", strings.Repeat("i", width)), text("state", strings.Repeat("s", width))
	for i, p := range points {
		p.Attributes = []*commonpb.KeyValue{text("container", fmt.Sprintf("%0*d", width, i)), image, state}
		p.Value = &metricpb.NumberDataPoint_AsInt{AsInt: int64(i)}
	}

	c := newReceiver()
	next := 0
	c.answer = func(_ int, req *request) (*response, error) {
		for _, p := range req.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints {
			if p.GetAsInt() != int64(next) || p.Attributes[0].Value.GetStringValue() != fmt.Sprintf("%0*d", width, next) {
				return nil, status.Errorf(codes.InvalidArgument, "series %d: %v", next, p)
			}
			next++
		}
		req.ResourceMetrics = nil // the ledger would be larger than all else
		return nil, nil
	}
	l := listen(t, "127.0.0.1:0")
	c.serve(t, l) // takes 4 MiB
	q := open(t, Config{Conn: dial(t, l.Addr().String()), Compression: collector.Gzip, Dir: t.TempDir(), Pace: 1})
	request := encode(req)
	if len(request) <= 64<<20 {
		t.Fatalf("%d bytes are within the bound: this proves nothing", len(request))
	}
	if err := q.Accept(request, series); err != nil {
		t.Fatal(err)
	}
	s := flush(t, q)
	if next != series || s.DeliveredPoints != int64(series) || len(dropped(s)) != 0 {
		t.Errorf("%d points arrived of %d, %+v", next, series, s)
	}
}

func TestASmallerCollectorThanTheDefaultIsSuited(t *testing.T) {
	c, want := newReceiver(), ledger{}
	l := listen(t, "127.0.0.1:0")
	c.serve(t, l, grpc.MaxRecvMsgSize(100_000))
	for _, compression := range compressions {
		t.Run("compression="+compression, func(t *testing.T) {
			c.held = ledger{}
			clear(want)
			cfg := quick(t, dial(t, l.Addr().String()))
			cfg.Compression = compression
			q := open(t, cfg)
			for scrape := range 3 {
				accept(t, q, want, page(scrape, 5_000))
			}
			s := flush(t, q)
			if d := compare(t, want, c.held); d != 0 || len(dropped(s)) != 0 {
				t.Errorf("%d points twice, dropped %v", d, dropped(s))
			}
		})
	}
}

func TestTheBytesOnTheWireAreTheRequestUnchanged(t *testing.T) {
	req := page(1, 10)
	req.ResourceMetrics = append(req.ResourceMetrics, &metricpb.ResourceMetrics{SchemaUrl: "empty"})
	for _, compression := range compressions {
		c := newReceiver()
		var got *request
		c.answer = func(_ int, r *request) (*response, error) {
			got = proto.CloneOf(r)
			return nil, nil
		}
		l := listen(t, "127.0.0.1:0")
		c.serve(t, l)
		cfg := quick(t, dial(t, l.Addr().String()))
		cfg.Compression = compression
		q := open(t, cfg)
		accept(t, q, nil, req)
		flush(t, q)
		if !proto.Equal(got, req) {
			t.Errorf("with %q sent %v\ngot %v", compression, req, got)
		}
	}
}
