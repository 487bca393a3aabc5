package receive

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"

	"otelmetricsplugin/internal/otlp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var arrival = time.Date(2026, 11, 23, 15, 4, 5, 678e6, time.UTC)

// parse returns the request that stands in text as the text form of protobuf.
func parse(t *testing.T, text string) *colmetricpb.ExportMetricsServiceRequest {
	t.Helper()
	req := &colmetricpb.ExportMetricsServiceRequest{}
	if err := prototext.Unmarshal([]byte(text), req); err != nil {
		t.Fatal(err)
	}
	return req
}

// engine returns a request with one point of each kind, and of the same engine
// one more point of a counter, with the values of the given moment.
func engine(t *testing.T, moment int64) *colmetricpb.ExportMetricsServiceRequest {
	t.Helper()
	req := parse(t, `resource_metrics {
		resource {
			attributes { key: "service.name" value { string_value: "dockerd" } }
			attributes { key: "service.instance.id" value { string_value: "3LAP:TFRK:SWEU:ARUU:2BTV:TRMA:O4BV:I7VW:ROTN:4HLJ:W7GN:D2DJ" } }
			attributes { key: "service.version" value { string_value: "29.7.2" } }
			attributes { key: "host.name" value { string_value: "node-1" } }
		}
		scope_metrics {
			scope { name: "otelmetricsplugin/pkg/translate" version: "1.0.0" }
			metrics { name: "engine_daemon_container_states_containers" gauge {
				data_points { attributes { key: "state" value { string_value: "paused" } } as_double: 0 }
				data_points { attributes { key: "state" value { string_value: "running" } } as_double: 3 }
			} }
			metrics { name: "engine_daemon_events_total" sum { aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE is_monotonic: true
				data_points { as_double: 1e6 }
			} }
			metrics { name: "engine_daemon_container_actions_seconds" unit: "s" histogram { aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE
				data_points { attributes { key: "action" value { string_value: "start" } } count: 12 sum: 3.141592653589793 }
				data_points { attributes { key: "action" value { string_value: "delete" } } count: 2 }
			} }
			metrics { name: "requests_in_flight" sum { aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA
				data_points { as_int: -7 attributes { key: "code" value { int_value: 200 } } attributes { key: "tls" value { bool_value: true } } }
			} }
			metrics { name: "rpc_seconds" unit: "s" exponential_histogram { aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE
				data_points { count: 5 sum: 0.25 }
			} }
			metrics { name: "http_response_size_bytes" unit: "By" summary { data_points { count: 9 sum: 12345.678 } } }
			metrics { name: "temperature" gauge { data_points { as_double: nan } } }
			metrics { name: "vanished" gauge { data_points { flags: 1 } } }
			metrics { name: "nothing" gauge { } }
			metrics { name: "untold" }
			metrics { name: "process_start_time_seconds" unit: "s" gauge { data_points { as_double: 1763911415.12 } } }
		}
	}`)
	metrics := req.GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics()
	metrics[0].GetGauge().GetDataPoints()[1].Value = &metricpb.NumberDataPoint_AsDouble{AsDouble: float64(3 - moment)}
	metrics[1].GetSum().GetDataPoints()[0].Value = &metricpb.NumberDataPoint_AsDouble{AsDouble: float64(1e6 + 25*moment)}
	metrics[2].GetHistogram().GetDataPoints()[1].Count = uint64(2 + moment)
	return req
}

func TestTableShowsEachMetricOnceAndThenWhatChanged(t *testing.T) {
	tab := newTable(100)
	var got bytes.Buffer
	gzipped := wire{compression: "gzip", bytes: 321}
	got.Write(tab.request(engine(t, 0), arrival, gzipped))
	got.Write(tab.request(engine(t, 1), arrival.Add(2*time.Second), gzipped))
	got.Write(tab.request(engine(t, 1), arrival.Add(4*time.Second), wire{}))
	other := engine(t, 1)
	other.GetResourceMetrics()[0].GetResource().Attributes = nil
	got.Write(tab.request(other, arrival.Add(6*time.Second), wire{}))
	got.Write(tab.request(&colmetricpb.ExportMetricsServiceRequest{}, arrival.Add(8*time.Second), wire{}))
	got.Write(tab.summary())

	golden(t, "table.golden", got.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (if that is right: go test ./internal/receive -update)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestTableStaysInItsWidthAndPassesNothingUnprintable(t *testing.T) {
	const evil = "a\x1b[2J\x1b]0;owned\x07\r\n\tb\u009b31m\u202eu\u2028\x7f\x00é世"
	text := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: evil}}
	resource := []*commonpb.KeyValue{
		{Key: "service.name", Value: text},
		{Key: "service.version", Value: text},
		{Key: "service.instance.id", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: strings.Repeat("x", 1<<20)}}},
	}
	attributes := []*commonpb.KeyValue{{Key: evil, Value: text}}
	req := engine(t, 0)
	rm := req.GetResourceMetrics()[0]
	rm.GetResource().Attributes = resource
	rm.GetScopeMetrics()[0].GetScope().Name = evil
	for _, m := range rm.GetScopeMetrics()[0].GetMetrics() {
		m.Name, m.Unit, m.Description = evil+m.GetName()+strings.Repeat("\x1b", 1000), evil, evil
		for _, p := range m.GetGauge().GetDataPoints() {
			p.Attributes = attributes
		}
	}
	for _, width := range []int{1, 60, 137} {
		out := string(newTable(width).request(req, arrival, wire{compression: evil, bytes: 1}))
		for i, line := range strings.Split(out, "\n") {
			if n := len([]rune(line)); n > max(width, minWidth) {
				t.Errorf("width %d: line %d has %d runes: %q", width, i, n, line)
			}
			for _, r := range line {
				if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u202e' || r == '\u2028' {
					t.Errorf("width %d: line %d holds %U: %q", width, i, r, line)
				}
			}
		}
	}

	line, err := otlp.AppendJSON(nil, req)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range string(line) {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u202e' || r == '\u2028' {
			t.Errorf("JSON holds %U", r)
		}
	}
}

func TestTableIsBoundedInRowsAndMemory(t *testing.T) {
	req := &colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{{ScopeMetrics: []*metricpb.ScopeMetrics{{}}}}}
	scope := req.GetResourceMetrics()[0].GetScopeMetrics()[0]
	for range maxRows + 7 {
		scope.Metrics = append(scope.Metrics, &metricpb.Metric{Name: "m" + strings.Repeat("x", len(scope.GetMetrics()))})
	}
	tab := newTable(defaultWidth)
	out := string(tab.request(req, arrival, wire{}))
	if !strings.HasSuffix(out, "\n  7 more changed\n\n") {
		t.Errorf("a request of %d new metrics ends with %q", len(scope.GetMetrics()), out[max(0, len(out)-60):])
	}
	if rows := strings.Count(out, "no points"); rows != maxRows {
		t.Errorf("%d rows, want %d", rows, maxRows)
	}

	tab = newTable(defaultWidth)
	tab.limit = 10
	tab.request(req, arrival, wire{})
	if len(tab.seen) > tab.limit {
		t.Errorf("%d series remembered, the limit is %d", len(tab.seen), tab.limit)
	}
}

func TestNumbersReadWell(t *testing.T) {
	for v, want := range map[float64]string{
		0:                 "0",
		-42:               "-42",
		209715200:         "209715200",
		1763911415.125:    "1763911415.12",
		0.000123456789:    "0.000123457",
		3.141592653589793: "3.14159",
		1e15:              "1e+15",
		math.Inf(1):       "+Inf",
	} {
		if got := numberText(v); got != want {
			t.Errorf("numberText(%v) = %q, want %q", v, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 20: "3.0 MiB"} {
		if got := byteCount(n); got != want {
			t.Errorf("byteCount(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestJSONIsTheOTLPEncoding(t *testing.T) {
	req := parse(t, `resource_metrics {
		resource { attributes { key: "traceId" value { string_value: "a, b: \u009b" } } }
		scope_metrics { metrics { name: "😀\U000e0001" sum { aggregation_temporality: AGGREGATION_TEMPORALITY_CUMULATIVE is_monotonic: true
			data_points {
				time_unix_nano: 1763911415000000001
				as_int: 0
				exemplars { as_double: 0.5
					trace_id: "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c" span_id: "\xb7\xad\x6b\x71\x69\x20\x33\x31" }
				exemplars { as_int: 1 trace_id: "odd" }
			}
		} } }
	}`)
	before := proto.CloneOf(req)
	const want = `{"resourceMetrics":[{"resource":{"attributes":[{"key":"traceId","value":{"stringValue":"a, b: \u009b"}}]},` +
		`"scopeMetrics":[{"metrics":[{"name":"😀\udb40\udc01","sum":{"dataPoints":[{"timeUnixNano":"1763911415000000001","asInt":"0",` +
		`"exemplars":[{"asDouble":0.5,"spanId":"b7ad6b7169203331","traceId":"0af7651916cd43dd8448eb211c80319c"},{"asInt":"1","traceId":"b2Rk"}]}],` +
		`"aggregationTemporality":2,"isMonotonic":true}}]}]}]}`
	got, err := otlp.AppendJSON([]byte("> "), req)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "> "+want {
		t.Errorf("got  %s\nwant > %s", got, want)
	}
	if !proto.Equal(req, before) {
		t.Error("the request was changed")
	}
}

// running is a server that serves on loopback until the test ends.
type running struct {
	client colmetricpb.MetricsServiceClient
	end    context.CancelFunc
	ended  chan error
}

func start(t *testing.T, s *Server) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan net.Addr, 1)
	s.Listening = func(a net.Addr) { listening <- a }
	r := &running{end: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	var address string
	select {
	case a := <-listening:
		address = a.String()
		if a.Network() == "unix" {
			address = "unix://" + address
		}
	case err := <-r.ended:
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	r.client = colmetricpb.NewMetricsServiceClient(conn)
	return r
}

func TestServerShowsWhatArrivesUntilItsContextEnds(t *testing.T) {
	for name, listen := range map[string]string{
		"tcp":  "127.0.0.1:0",
		"unix": "unix://" + filepath.Join(t.TempDir(), "otlp.sock"),
	} {
		t.Run(name, func(t *testing.T) {
			var out, log bytes.Buffer
			s := &Server{
				Listen: listen, Out: &out, Width: 100, now: func() time.Time { return arrival },
				Log: slog.New(slog.NewTextHandler(&log, nil)),
			}
			r := start(t, s)
			for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
				if _, err := r.client.Export(t.Context(), engine(t, 0), options...); err != nil {
					t.Fatal(err)
				}
			}
			r.end()
			if err := <-r.ended; err != nil {
				t.Fatal(err)
			}

			var want bytes.Buffer
			tab := newTable(100)
			want.Write(tab.request(engine(t, 0), arrival, wire{}))
			want.Write(tab.request(engine(t, 0), arrival, wire{compression: "gzip", bytes: gzippedBytes(t, out.String())}))
			want.Write(tab.summary())
			if out.String() != want.String() {
				t.Errorf("got:\n%s\nwant:\n%s", &out, &want)
			}
			lines := strings.Split(log.String(), "\n")
			if len(lines) != 3 || !strings.Contains(lines[0], `msg="listening for OTLP/gRPC metrics" address=`) || !strings.Contains(lines[1], `msg="first request arrived"`) {
				t.Errorf("want the address and the first request in the log, got:\n%s", &log)
			}
		})
	}
}

// gzippedBytes returns the size that out gives for the gzip form of a request,
// which depends on the version of compress/gzip; it must be less than the
// request's own.
func gzippedBytes(t *testing.T, out string) int {
	t.Helper()
	size := proto.Size(engine(t, 0))
	for n := 1; n < size; n++ {
		if strings.Contains(out, wire{compression: "gzip", bytes: n}.String()) {
			return n
		}
	}
	t.Fatalf("no size below %d B with gzip in:\n%s", size, out)
	return 0
}

func TestServerWritesOneJSONRequestALine(t *testing.T) {
	var out bytes.Buffer
	r := start(t, &Server{Listen: "127.0.0.1:0", Out: &out, JSON: true})
	var want []byte
	for moment := range int64(3) {
		req := engine(t, moment)
		if _, err := r.client.Export(t.Context(), req, grpc.UseCompressor(gzip.Name)); err != nil {
			t.Fatal(err)
		}
		line, err := otlp.AppendJSON(nil, req)
		if err != nil {
			t.Fatal(err)
		}
		want = append(append(want, line...), '\n')
	}
	r.end()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", &out, want)
	}
}

func TestServerTakesWhatADefaultCollectorTakesAndNoMore(t *testing.T) {
	sized := func(size int) *colmetricpb.ExportMetricsServiceRequest {
		m := &metricpb.Metric{}
		req := &colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{{ScopeMetrics: []*metricpb.ScopeMetrics{{Metrics: []*metricpb.Metric{m}}}}}}
		m.Description = strings.Repeat("x", size)
		m.Description = strings.Repeat("x", size-(proto.Size(req)-size))
		if proto.Size(req) != size {
			t.Fatalf("made a request of %d bytes, want %d", proto.Size(req), size)
		}
		return req
	}
	r := start(t, &Server{Listen: "127.0.0.1:0", Out: io.Discard})
	if _, err := r.client.Export(t.Context(), sized(MaxMessageBytes)); err != nil {
		t.Errorf("4 MiB: %v", err)
	}
	for name, options := range map[string][]grpc.CallOption{"plain": nil, "gzip": {grpc.UseCompressor(gzip.Name)}} {
		if _, err := r.client.Export(t.Context(), sized(MaxMessageBytes+1), options...); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("4 MiB and a byte, %s: %v, want ResourceExhausted", name, err)
		}
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken pipe")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestServerEndsWhenNobodyReadsItsOutput(t *testing.T) {
	r := start(t, &Server{Listen: "127.0.0.1:0", Out: brokenWriter{}})
	if _, err := r.client.Export(t.Context(), engine(t, 0)); status.Code(err) != codes.Unavailable {
		t.Errorf("export: %v, want Unavailable", err)
	}
	err := <-r.ended
	if !errors.Is(err, errBroken) || err.Error() != "writing what was received: broken pipe" {
		t.Errorf("Run: %v", err)
	}
}

func TestServerNamesTheAddressThatItCannotListenOn(t *testing.T) {
	var config net.ListenConfig
	taken, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	err = (&Server{Listen: address, Out: io.Discard}).Run(t.Context())
	want := `listening for OTLP/gRPC on tcp "` + address + `": listen tcp ` + address + `: bind: address already in use (name another address with --listen)`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
