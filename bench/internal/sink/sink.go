// Package sink receives what the benchmark's programs send, OTLP over gRPC and Prometheus remote write over HTTP, and
// counts it. It walks the wire format and builds no objects, so that it takes little CPU from what is measured beside it.
package sink

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// DefaultLimit is the largest request that a receiver takes by default: gRPC's 4 MiB, uncompressed.
const DefaultLimit = 4 << 20

// Counts is what has arrived.
type Counts struct {
	Requests int64
	// Bytes is the size of the requests, Wire the size in which they were sent, compressed.
	Bytes, Wire int64
	// Points are data points of metrics from the page, or samples in the case of remote write; what a program adds
	// about itself is not counted.
	Points int64
	// Errors are requests that are malformed.
	Errors int64
}

// Sub returns c - before.
func (c Counts) Sub(before Counts) Counts {
	return Counts{
		Requests: c.Requests - before.Requests,
		Bytes:    c.Bytes - before.Bytes,
		Wire:     c.Wire - before.Wire,
		Points:   c.Points - before.Points,
		Errors:   c.Errors - before.Errors,
	}
}

type counter struct{ requests, bytes, wire, points, errors atomic.Int64 }

// Counts returns what has arrived until now.
func (c *counter) Counts() Counts {
	return Counts{
		Requests: c.requests.Load(),
		Bytes:    c.bytes.Load(),
		Wire:     c.wire.Load(),
		Points:   c.points.Load(),
		Errors:   c.errors.Load(),
	}
}

func (c *counter) add(size, points int, err error) {
	c.requests.Add(1)
	c.bytes.Add(int64(size))
	c.points.Add(int64(points))
	if err != nil {
		c.errors.Add(1)
	}
}

// OTLP is an OTLP/gRPC receiver of metrics on a loopback port.
type OTLP struct {
	// Address is the host:port, the same after every Start.
	Address string

	counter
	limit   int
	prefix  string
	observe func(request []byte) error

	observing sync.Mutex

	mu     sync.Mutex
	server *grpc.Server
}

// NewOTLP returns a started receiver that takes requests of at most limit bytes and counts data points of metrics whose
// name starts with prefix. Unless nil, observe gets each request before it is answered, one at a time and during the
// call only; an error is the answer then.
func NewOTLP(limit int, prefix string, observe func(request []byte) error) (*OTLP, error) {
	s := &OTLP{Address: "127.0.0.1:0", limit: limit, prefix: prefix, observe: observe}
	return s, s.Start()
}

// Start listens again after Stop.
func (s *OTLP) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", s.Address)
	if err != nil {
		return err
	}
	s.Address = listener.Addr().String()
	s.server = grpc.NewServer(
		grpc.ForceServerCodecV2(raw{}),
		grpc.MaxRecvMsgSize(s.limit),
		grpc.StatsHandler(wire{&s.counter}),
		grpc.ConnectionTimeout(10*time.Second),
	)
	s.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.metrics.v1.MetricsService",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Export", Handler: s.export}},
	}, s)
	go func(server *grpc.Server) { _ = server.Serve(listener) }(s.server)
	return nil
}

// Stop closes the port and every connection, as a receiver that dies does.
func (s *OTLP) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		s.server.Stop()
		s.server = nil
	}
}

func (s *OTLP) export(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc's order of arguments
	var request message
	if err := decode(&request); err != nil {
		return nil, err
	}
	defer request.Free()
	data := request.ReadOnlyData()
	if s.observe != nil {
		s.observing.Lock()
		err := s.observe(data)
		s.observing.Unlock()
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
	}
	points, err := Points(data, s.prefix)
	s.add(len(data), points, err)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return nil, nil //nolint:nilnil // an empty response is encoded as no bytes
}

// message is a request's bytes.
type message struct{ mem.Buffer }

// raw is a codec that leaves messages as they are.
type raw struct{}

// Name is the codec's, in place of the generated types' one.
func (raw) Name() string { return "proto" }

// Marshal encodes the response, which is always empty.
func (raw) Marshal(any) (mem.BufferSlice, error) { return nil, nil }

// Unmarshal keeps the bytes.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("unmarshal into %T", v)
	}
	m.Buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return nil
}

// wire counts bytes as they are sent.
type wire struct{ *counter }

func (wire) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (wire) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (wire) HandleConn(context.Context, stats.ConnStats)                       {}

// HandleRPC looks at a request's size.
func (w wire) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		w.wire.Add(int64(in.CompressedLength))
	}
}
