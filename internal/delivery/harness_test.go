package delivery

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"otelmetricsplugin/internal/collector"
)

// roleEnv selects what a copy of the test binary does instead of the tests.
const roleEnv = "DELIVERY_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
		goleak.VerifyTestMain(m)
	case "accept":
		roleAccept()
	case "open":
		roleOpen()
	case "tmpfs":
		os.Exit(m.Run()) // one test, in a mount namespace of its own
	default:
		fmt.Fprintln(os.Stderr, "unknown role", role)
		os.Exit(2)
	}
}

type request = colmetricpb.ExportMetricsServiceRequest
type response = colmetricpb.ExportMetricsServiceResponse

func text(k, v string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
}

// page is what a scrape of the given number gives: a gauge of so many series,
// whose values and times are the scrape's number.
func page(scrape, series int) *request {
	points := make([]*metricpb.NumberDataPoint, series)
	for i := range points {
		points[i] = &metricpb.NumberDataPoint{
			Attributes:        []*commonpb.KeyValue{text("series", fmt.Sprint(i))},
			StartTimeUnixNano: 1,
			TimeUnixNano:      uint64(scrape),
			Value:             &metricpb.NumberDataPoint_AsInt{AsInt: int64(scrape)},
		}
	}
	return &request{ResourceMetrics: []*metricpb.ResourceMetrics{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("service.name", "dockerd")}},
		ScopeMetrics: []*metricpb.ScopeMetrics{{
			Scope: &commonpb.InstrumentationScope{Name: "test", Version: "1"},
			Metrics: []*metricpb.Metric{{
				Name: "requests", Description: "Requests.", Unit: "{request}",
				Metadata: []*commonpb.KeyValue{text("prometheus.type", "gauge")},
				Data:     &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: points}},
			}},
		}},
	}}}
}

// ledger holds data points in the order in which they came, by series: the
// resource, the scope, the metric without its points, and the attributes are
// the series; all else is the point.
type ledger map[string][]string

func (l ledger) add(req *request) {
	must := func(m proto.Message) string {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	for _, rm := range req.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				head := must(&metricpb.ResourceMetrics{Resource: rm.Resource, SchemaUrl: rm.SchemaUrl}) + "|" +
					must(&metricpb.ScopeMetrics{Scope: sm.Scope, SchemaUrl: sm.SchemaUrl}) + "|" +
					must(withoutPoints(m))
				point := func(p interface {
					proto.Message
					GetAttributes() []*commonpb.KeyValue
				}) {
					k := head + "|" + must(&resourcepb.Resource{Attributes: p.GetAttributes()})
					l[k] = append(l[k], must(p))
				}
				for _, p := range m.GetGauge().GetDataPoints() {
					point(p)
				}
				for _, p := range m.GetSum().GetDataPoints() {
					point(p)
				}
				for _, p := range m.GetHistogram().GetDataPoints() {
					point(p)
				}
				for _, p := range m.GetExponentialHistogram().GetDataPoints() {
					point(p)
				}
				for _, p := range m.GetSummary().GetDataPoints() {
					point(p)
				}
			}
		}
	}
}

// withoutPoints returns a metric without its data points.
func withoutPoints(m *metricpb.Metric) *metricpb.Metric {
	c := &metricpb.Metric{Name: m.Name, Description: m.Description, Unit: m.Unit, Metadata: m.Metadata}
	switch d := m.GetData().(type) {
	case *metricpb.Metric_Gauge:
		c.Data = &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{}}
	case *metricpb.Metric_Sum:
		c.Data = &metricpb.Metric_Sum{Sum: &metricpb.Sum{AggregationTemporality: d.Sum.GetAggregationTemporality(), IsMonotonic: d.Sum.GetIsMonotonic()}}
	case *metricpb.Metric_Histogram:
		c.Data = &metricpb.Metric_Histogram{Histogram: &metricpb.Histogram{AggregationTemporality: d.Histogram.GetAggregationTemporality()}}
	case *metricpb.Metric_ExponentialHistogram:
		c.Data = &metricpb.Metric_ExponentialHistogram{ExponentialHistogram: &metricpb.ExponentialHistogram{AggregationTemporality: d.ExponentialHistogram.GetAggregationTemporality()}}
	case *metricpb.Metric_Summary:
		c.Data = &metricpb.Metric_Summary{Summary: &metricpb.Summary{}}
	}
	return c
}

// countPoints returns the number of data points of a request.
func countPoints(req *request) (n int) {
	for _, rm := range req.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				n += len(m.GetGauge().GetDataPoints()) + len(m.GetSum().GetDataPoints()) + len(m.GetHistogram().GetDataPoints()) +
					len(m.GetExponentialHistogram().GetDataPoints()) + len(m.GetSummary().GetDataPoints())
			}
		}
	}
	return n
}

// encode returns a request in its wire format.
func encode(req *request) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		panic(err)
	}
	return b
}

// decompress returns the bytes of a request without its compression, by another
// implementation than the one that made them where there is one.
func decompress(r *collector.Request) ([]byte, error) {
	data := slices.Clone(r.Body.Bytes())
	switch r.Encoding {
	case collector.Gzip:
		zr, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(zr)
	case collector.Zstd:
		zr, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer zr.Close()
		return io.ReadAll(zr)
	}
	return data, nil
}

func (l ledger) points() (n int) {
	for _, p := range l {
		n += len(p)
	}
	return n
}

// compare fails the test unless held has each point of want, in order per
// series, and nothing else. A point may be repeated; it returns how many were.
func compare(t testing.TB, want, held ledger) (duplicates int) {
	t.Helper()
	for series := range held {
		if _, ok := want[series]; !ok {
			t.Errorf("held a series that was never accepted: %q", series)
		}
	}
	for series, points := range want {
		seen := make(map[string]bool, len(points))
		var once []string
		for _, p := range held[series] {
			if seen[p] {
				duplicates++
				continue
			}
			seen[p] = true
			once = append(once, p)
		}
		if !slices.Equal(once, points) {
			t.Fatalf("series %q: %d points held of %d accepted, or out of order", series, len(once), len(points))
		}
	}
	return duplicates
}

// receiver is a Collector whose answers are scripted.
type receiver struct {
	colmetricpb.UnimplementedMetricsServiceServer

	// answer decides on the n-th request, from 1; nil takes everything. A
	// request is held when the error is nil or errCutOff, whose answer is
	// never sent.
	answer func(n int, req *request) (*response, error)

	mu       sync.Mutex
	n        int
	held     ledger
	requests []int // points of each held request
	changed  chan struct{}
}

func newReceiver() *receiver { return &receiver{held: ledger{}, changed: make(chan struct{})} }

func (c *receiver) Export(_ context.Context, req *request) (*response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	var err error
	resp := &response{}
	if c.answer != nil {
		resp, err = c.answer(c.n, req)
	}
	if err == nil {
		c.held.add(req)
		c.requests = append(c.requests, countPoints(req))
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return resp, err
}

func (c *receiver) script(answer func(n int, req *request) (*response, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// wait waits until the collector's state is as ok says.
func (c *receiver) wait(ok func() bool) {
	for {
		c.mu.Lock()
		done, changed := ok(), c.changed
		c.mu.Unlock()
		if done {
			return
		}
		<-changed
	}
}

// attempts waits for the n-th request.
func (c *receiver) attempts(n int) { c.wait(func() bool { return c.n >= n }) }

// serve serves c on l until the test ends or the server is stopped.
func (c *receiver) serve(t testing.TB, l net.Listener, opts ...grpc.ServerOption) *grpc.Server {
	t.Helper()
	s := grpc.NewServer(opts...)
	colmetricpb.RegisterMetricsServiceServer(s, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return s
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dial(t testing.TB, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// connFunc is a connection without a network, from an uncompressed request to
// the answer.
type connFunc func(ctx context.Context, data []byte) (*response, error)

func (f connFunc) Invoke(ctx context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	data, err := decompress(args.(*collector.Request))
	if err != nil {
		return err
	}
	resp, err := f(ctx, data)
	if resp != nil {
		proto.Merge(reply.(*response), resp)
	}
	return err
}

func (connFunc) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("not a stream")
}

// rawConn is a connection without a network, from a request as it is sent to
// the answer.
type rawConn func(ctx context.Context, r *collector.Request) (*response, error)

func (f rawConn) Invoke(ctx context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	resp, err := f(ctx, args.(*collector.Request))
	if resp != nil {
		proto.Merge(reply.(*response), resp)
	}
	return err
}

func (rawConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("not a stream")
}

// to is a connection straight to c.
func to(c *receiver) connFunc {
	return func(ctx context.Context, data []byte) (*response, error) {
		var req request
		if err := proto.Unmarshal(data, &req); err != nil {
			return nil, err
		}
		return c.Export(ctx, &req)
	}
}

// withRetryInfo is an error that asks for a pause.
func withRetryInfo(code codes.Code, d time.Duration) error {
	st, err := status.New(code, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// logs collects what a Queue logs.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// records returns the lines so far, without their times.
func (l *logs) records() (out []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			panic(err)
		}
		delete(r, "time")
		out = append(out, r)
	}
	return out
}

// messages returns the messages so far.
func (l *logs) messages() (out []string) {
	for _, r := range l.records() {
		out = append(out, r["msg"].(string))
	}
	return out
}

func open(t testing.TB, cfg Config) *Queue {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	q, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close(ended()) })
	return q
}

// ended is a context that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func accept(t testing.TB, q *Queue, want ledger, req *request) {
	t.Helper()
	if want != nil {
		want.add(req)
	}
	if err := q.Accept(encode(req), countPoints(req)); err != nil {
		t.Fatal(err)
	}
}

// drained closes q when all is delivered, and fails if anything was left.
func drained(t testing.TB, q *Queue) Stats {
	t.Helper()
	if err := q.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s := q.Stats()
	if s.QueuedRequests != 0 || s.QueuedPoints != 0 || s.DiskBytes != 0 || s.MemoryBytes != 0 {
		t.Fatalf("not drained: %+v", s)
	}
	return s
}

// await waits until the state of q is as ok says. It looks again and again: a
// queue tells of its state when asked, and has no event for a change of it.
func await(q *Queue, ok func(Stats) bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok(q.Stats()) {
		<-tick.C
	}
}

func dropped(s Stats) map[string]int64 {
	out := map[string]int64{}
	for k, v := range s.Dropped {
		if v != 0 {
			out[k] = v
		}
	}
	return out
}
