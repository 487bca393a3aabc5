// Package receive is a small OTLP/gRPC metrics receiver for people: it shows
// what arrives, for a first look and for debugging.
//
// It takes requests over plaintext gRPC of up to 4 MiB, which is what an
// OpenTelemetry Collector takes by default, and writes a table for a terminal or
// one OTLP JSON request a line. It stores nothing, forwards nothing, and passes
// nothing that came from the network to the terminal unescaped.
package receive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	_ "otelmetricsplugin/internal/collector" // registers the decompressors of gzip and zstd
	"otelmetricsplugin/internal/otlp"
)

const (
	// DefaultListen is the address of OTLP/gRPC on this machine.
	DefaultListen = "localhost:4317"

	// MaxMessageBytes is the size of the largest request that is taken, after
	// decompression: the default of an OpenTelemetry Collector's otlp receiver.
	MaxMessageBytes = 4 << 20

	// drainTimeout limits how long a request in flight may take once the server ends.
	drainTimeout = time.Second
)

// Server is an OTLP/gRPC metrics receiver. Fill in its fields, then call
// [Server.Run], once.
type Server struct {
	// Listen is where to listen: host:port, port 0 for any free one, or
	// unix:///path. Empty is [DefaultListen].
	Listen string

	// Out gets what is received, one Write a request. An error from it ends the
	// server.
	Out io.Writer

	// JSON selects one OTLP JSON request a line, as [otlp.AppendJSON] writes it,
	// instead of the table.
	JSON bool

	// Width is the number of columns of the table, at least 60; 0 is that of the
	// terminal if Out is one, otherwise 120.
	Width int

	// Listening, if not nil, is called once, before the first request is taken,
	// with the address that the server listens on.
	Listening func(net.Addr)

	// Log gets the address listened on, and that a first request arrived, at
	// info; nil discards both. It must not write where Out writes.
	Log *slog.Logger

	now func() time.Time // replaced in tests

	mu       sync.Mutex // one request is written at a time
	requests int
	table    *table
	fail     context.CancelCauseFunc

	colmetricpb.UnimplementedMetricsServiceServer
}

// Run listens and serves until ctx ends, and then returns nil. It returns an
// error if it cannot listen on the address or cannot write to Out.
func (s *Server) Run(ctx context.Context) error {
	ctx, s.fail = context.WithCancelCause(ctx)
	defer s.fail(nil)
	if s.now == nil {
		s.now = time.Now
	}
	s.table = newTable(s.width())

	network, address := "tcp", s.Listen
	if address == "" {
		address = DefaultListen
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, network, address)
	if err != nil {
		return fmt.Errorf("listening for OTLP/gRPC on %s %q: %w (name another address with --listen)", network, address, err)
	}

	server := grpc.NewServer(grpc.MaxRecvMsgSize(MaxMessageBytes), grpc.StatsHandler(wireHandler{}))
	colmetricpb.RegisterMetricsServiceServer(server, s)
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.Log.Info("listening for OTLP/gRPC metrics", "address", listener.Addr().String())
	if s.Listening != nil {
		s.Listening(listener.Addr())
	}

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving OTLP/gRPC on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}

	cut := time.AfterFunc(drainTimeout, server.Stop)
	server.GracefulStop()
	cut.Stop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving OTLP/gRPC on %s: %w", listener.Addr(), err)
	}

	if cause := context.Cause(ctx); errors.As(cause, new(*writeError)) {
		return cause
	}
	if !s.JSON {
		return s.write(s.table.summary())
	}
	return nil
}

// Export takes one request: the metrics service of OTLP.
func (s *Server) Export(ctx context.Context, req *colmetricpb.ExportMetricsServiceRequest) (*colmetricpb.ExportMetricsServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.requests++; s.requests == 1 {
		s.Log.Info("first request arrived", "bytes", proto.Size(req))
	}

	var text []byte
	if s.JSON {
		var err error
		if text, err = otlp.AppendJSON(nil, req); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		text = append(text, '\n')
	} else {
		text = s.table.request(req, s.now(), wireOf(ctx))
	}
	if err := s.write(text); err != nil {
		s.fail(err)
		return nil, status.Error(codes.Unavailable, "the receiver cannot write what it receives")
	}
	return &colmetricpb.ExportMetricsServiceResponse{}, nil
}

func (s *Server) write(text []byte) error {
	if _, err := s.Out.Write(text); err != nil {
		return &writeError{err}
	}
	return nil
}

func (s *Server) width() int {
	if s.Width != 0 {
		return s.Width
	}
	if f, ok := s.Out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return defaultWidth
}

// writeError is an error of Out, unlike the end of a context by its owner.
type writeError struct{ err error }

func (e *writeError) Error() string { return "writing what was received: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// wire describes a request as it was on the connection.
type wire struct {
	compression string // as in grpc-encoding; empty is none
	bytes       int    // the message as it was sent
}

type wireKey struct{}

// wireOf returns what [wireHandler] noted of the request that ctx belongs to.
func wireOf(ctx context.Context) wire {
	if w, ok := ctx.Value(wireKey{}).(*wire); ok {
		return *w
	}
	return wire{}
}

// wireHandler notes each request's [wire] in its context.
type wireHandler struct{}

func (wireHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, wireKey{}, &wire{})
}

func (wireHandler) HandleRPC(ctx context.Context, event stats.RPCStats) {
	w, ok := ctx.Value(wireKey{}).(*wire)
	if !ok {
		return
	}
	switch event := event.(type) {
	case *stats.InHeader:
		w.compression = event.Compression
	case *stats.InPayload:
		w.bytes = event.CompressedLength
	}
}

func (wireHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (wireHandler) HandleConn(context.Context, stats.ConnStats) {}
