package page

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// Server serves a page on a unix socket and on a loopback port, never compressed: over a socket compression costs both
// sides more than it saves, and a program that would ask for it is told nothing that it did not expect.
type Server struct {
	// Unix and TCP are the page's URLs: unix:///path and http://127.0.0.1:port/metrics.
	Unix, TCP string
	// Address is the host:port in TCP.
	Address string

	http    http.Server
	mu      sync.Mutex
	set     *Set
	live    http.Handler
	started []time.Time
	served  atomic.Int64
	numbers []int // of the expositions of a live page that were served
}

// Serve listens until Close.
func Serve(ctx context.Context, socket string) (*Server, error) {
	var config net.ListenConfig
	unix, err := config.Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	tcp, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		_ = unix.Close()
		return nil, err
	}
	s := &Server{
		Unix:    "unix://" + socket,
		TCP:     "http://" + tcp.Addr().String() + "/metrics",
		Address: tcp.Addr().String(),
	}
	s.http = http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(s.serve)}
	for _, listener := range []net.Listener{unix, tcp} {
		go func() { _ = s.http.Serve(listener) }()
	}
	return s, nil
}

// Close ends the listeners and every connection.
func (s *Server) Close() error { return s.http.Close() }

// Show serves a set from its first exposition on, one per scrape. After the last it starts again, and its counters are
// reset then; nil serves nothing but status 503.
func (s *Server) Show(set *Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set, s.live, s.started = set, nil, nil
	s.served.Store(0)
}

// ShowLive serves a page that promhttp gathers on every scrape and that replaces some of its series before each.
func (s *Server) ShowLive(c *Churn, replace, transient int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := promhttp.HandlerFor(c.Registry, promhttp.HandlerOpts{DisableCompression: true})
	var one sync.Mutex
	number := 0
	s.set, s.numbers = nil, nil
	s.served.Store(0)
	s.live = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		c.Move()
		c.Replace(replace, transient)
		number++
		watched := &watch{ResponseWriter: w}
		next.ServeHTTP(watched, r)
		if watched.err != nil || http.NewResponseController(w).Flush() != nil || r.Context().Err() != nil {
			return
		}
		s.served.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.numbers = append(s.numbers, number)
	})
}

// watch remembers that a write failed.
type watch struct {
	http.ResponseWriter
	err error
}

func (w *watch) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Served is the number of expositions that were written to the end since Show or ShowLive.
func (s *Server) Served() int { return int(s.served.Load()) }

// Started is when the scrapes since Show began.
func (s *Server) Started() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.started...)
}

// Numbers are those of the expositions of a live page that were written to the end.
func (s *Server) Numbers() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.numbers...)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	set, live, n := s.set, s.live, len(s.started)
	if set != nil {
		s.started = append(s.started, time.Now())
	}
	s.mu.Unlock()
	switch {
	case live != nil:
		live.ServeHTTP(w, r)
	case set == nil:
		http.Error(w, "there is no page now", http.StatusServiceUnavailable)
	default:
		format, bodies := formatText, set.Text
		if negotiate(r).FormatType() == expfmt.TypeProtoDelim {
			format, bodies = formatProtobuf, set.Protobuf
		}
		w.Header().Set("Content-Type", contentType(format, r))
		if err := bodies[n%len(bodies)].writeTo(w); err == nil {
			s.served.Add(1)
		}
	}
}

// contentType is the format with the escaping scheme that the client asked for, as promhttp has it.
func contentType(format expfmt.Format, r *http.Request) string {
	return fmt.Sprintf("%s; escaping=%s", format, negotiate(r).ToEscapingScheme())
}

// negotiate returns the format that promhttp would answer with.
func negotiate(r *http.Request) expfmt.Format {
	return expfmt.NegotiateAccept(r.Header, expfmt.DefaultAcceptedFormats()...)
}
