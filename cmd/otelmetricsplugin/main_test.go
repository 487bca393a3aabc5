package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip"

	"otelmetricsplugin/pkg/translate"
)

// asProgram in the environment makes the test's binary the program itself: the
// tests run it as a process, with signals, exit codes and an environment.
const asProgram = "OTELMETRICSPLUGIN_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		_ = os.Unsetenv(asProgram)
		main()
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(shipped.dir)
		os.Exit(code)
	}))
}

// process is the program running as one.
type process struct {
	*exec.Cmd
	stdout, stderr *lines
	exited         chan struct{}
}

func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(self, args...), stdout: newLines(), stderr: newLines(), exited: make(chan struct{})}
	// The race detector would linger for a second at the end.
	p.Env = append([]string{asProgram + "=1", "SPOOL_DIR=none", "GORACE=atexit_sleep_ms=0"}, env...)
	p.Stdout, p.Stderr = p.stdout, p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%v: stdout\n%.4000s\nstderr\n%.4000s", args, p.stdout, p.stderr)
		}
	})
	return p
}

// code waits for the end of the process and returns its exit code.
func (p *process) code(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("the process did not end within %v", within)
		return -1
	}
}

// lines is a buffer that can be waited on.
type lines struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func newLines() *lines { return &lines{wrote: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until the text holds what.
func (l *lines) await(t *testing.T, what string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(l.String(), what) {
		select {
		case <-l.wrote:
		case <-deadline:
			t.Fatalf("%q was not written within 20 s, but\n%s", what, l)
		}
	}
}

// testCollector is an OTLP/gRPC receiver in the test's process.
type testCollector struct {
	colmetricpb.UnimplementedMetricsServiceServer
	server   *grpc.Server
	address  string
	requests chan *colmetricpb.ExportMetricsServiceRequest
}

func startCollector(t testing.TB) *testCollector {
	t.Helper()
	return startCollectorAt(t, "127.0.0.1:0")
}

func startCollectorAt(t testing.TB, address string) *testCollector {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &testCollector{server: grpc.NewServer(), address: listener.Addr().String(), requests: make(chan *colmetricpb.ExportMetricsServiceRequest, 1000)}
	colmetricpb.RegisterMetricsServiceServer(c.server, c)
	go func() { _ = c.server.Serve(listener) }()
	t.Cleanup(c.server.Stop)
	return c
}

func (c *testCollector) Export(_ context.Context, req *colmetricpb.ExportMetricsServiceRequest) (*colmetricpb.ExportMetricsServiceResponse, error) {
	c.requests <- req
	return &colmetricpb.ExportMetricsServiceResponse{}, nil
}

// next returns the metrics of the next request by name.
func (c *testCollector) next(t *testing.T) map[string]*metricpb.Metric {
	t.Helper()
	select {
	case req := <-c.requests:
		return metricsOf(req)
	case <-time.After(20 * time.Second):
		t.Fatal("no request arrived within 20 s")
		return nil
	}
}

func metricsOf(req *colmetricpb.ExportMetricsServiceRequest) map[string]*metricpb.Metric {
	metrics := map[string]*metricpb.Metric{}
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				metrics[m.GetName()] = m
			}
		}
	}
	return metrics
}

// value returns the first point's value of a gauge or a sum.
func value(m *metricpb.Metric) float64 {
	points := m.GetGauge().GetDataPoints()
	if m.GetSum() != nil {
		points = m.GetSum().GetDataPoints()
	}
	if len(points) == 0 {
		return -1
	}
	return points[0].GetAsDouble()
}

// awaitUp waits for a request in which up has that value.
func (c *testCollector) awaitUp(t *testing.T, want float64) map[string]*metricpb.Metric {
	t.Helper()
	for {
		if metrics := c.next(t); value(metrics["up"]) == want {
			return metrics
		}
	}
}

// shortDir is a directory whose path leaves room for the name of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "omp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// page is a target on a unix socket whose answer can be changed.
type page struct {
	url     string
	reads   atomic.Int64
	handler atomic.Pointer[http.HandlerFunc]
	server  *http.Server
}

func startPage(t testing.TB) *page {
	t.Helper()
	p := &page{}
	socket := filepath.Join(shortDir(t), "m.sock")
	p.url = "unix://" + socket
	p.set(p.good)
	p.listen(t)
	t.Cleanup(func() { _ = p.server.Close() })
	return p
}

func (p *page) listen(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("unix", strings.TrimPrefix(p.url, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.reads.Add(1)
		(*p.handler.Load())(w, r)
	})}
	server := p.server
	go func() { _ = server.Serve(listener) }()
}

func (p *page) set(h http.HandlerFunc) { p.handler.Store(&h) }

func (p *page) good(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintf(w, "# TYPE reads_total counter\nreads_total %d\n", p.reads.Load())
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// blackHole is an address that takes connections and never says a word.
func blackHole(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				_ = c.Close()
			}
		}()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
		}
	}()
	return listener.Addr().String()
}

// nobody is an address that nobody listens on.
func nobody(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	return listener.Addr().String()
}

// engine speaks to a plugin's socket as an engine does.
type engine struct {
	client *http.Client
	socket string
}

func newEngine(t testing.TB) *engine {
	t.Helper()
	e := &engine{socket: filepath.Join(shortDir(t), "p.sock")}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	e.client = &http.Client{Transport: transport}
	return e
}

func (e *engine) post(t testing.TB, method string) {
	t.Helper()
	resp, err := e.client.Post("http://plugin.moby.localhost/"+method, "", http.NoBody)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "{\"Err\":\"\"}\n" {
		t.Fatalf("%s: %s %q %v", method, resp.Status, body, err)
	}
}

func TestStartMetricsAnswersAtOnceWhateverThePageAndTheEndpointDo(t *testing.T) {
	for _, test := range []struct {
		name     string
		endpoint string
		page     http.HandlerFunc
	}{
		{"page hangs", startCollector(t).address, hang},
		{"endpoint is a black hole", blackHole(t), nil},
		{"both", blackHole(t), hang},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, e := startPage(t), newEngine(t)
			if test.page != nil {
				p.set(test.page)
			}
			plugin := start(t, []string{"OTLP_ENDPOINT=http://" + test.endpoint, "SCRAPE_URL=" + p.url, "PLUGIN_SOCKET=" + e.socket, "OTEL_METRIC_EXPORT_INTERVAL=100ms"})
			plugin.stdout.await(t, "msg=ready")
			awaitSocket(t, e.socket)
			// What is asked for is that no answer waits for anything. A busy
			// machine may delay any one of them, hence the fastest of five.
			fastest := time.Hour
			for range 5 {
				began := time.Now()
				e.post(t, "MetricsCollector.StartMetrics")
				fastest = min(fastest, time.Since(began))
			}
			if fastest > 100*time.Millisecond {
				t.Errorf("StartMetrics took %v", fastest)
			}
			began := time.Now()
			e.post(t, "MetricsCollector.StopMetrics")
			if d := time.Since(began); d > 2*time.Second {
				t.Errorf("StopMetrics took %v", d)
			}
			if err := plugin.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := plugin.code(t, 5*time.Second); code != exitDone {
				t.Errorf("the exit code is %d", code)
			}
		})
	}
}

// awaitSocket waits until somebody listens.
func awaitSocket(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			_ = conn.Close()
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("nobody listens on %s: %v", path, err)
		}
	}
}

func TestABadPageExportsUpZeroAndRecoversByItself(t *testing.T) {
	c, p := startCollector(t), startPage(t)
	run := start(t, []string{"OTLP_ENDPOINT=http://" + c.address, "SCRAPE_URL=" + p.url}, "run", "--interval=200ms")
	first := c.awaitUp(t, 1)
	if value(first["reads_total"]) != 1 {
		t.Errorf("the first page arrived as %v", first["reads_total"])
	}

	p.set(hang)
	c.awaitUp(t, 0)
	p.set(p.good)
	c.awaitUp(t, 1)

	p.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	c.awaitUp(t, 0)
	p.set(p.good)
	c.awaitUp(t, 1)

	_ = p.server.Close() // the socket is gone: refused, or no such file
	c.awaitUp(t, 0)
	p.listen(t)
	again := c.awaitUp(t, 1)
	if value(again["reads_total"]) < 4 || value(again["scrape_samples_scraped"]) != 1 {
		t.Errorf("after it all %v and %v arrive", again["reads_total"], again["scrape_samples_scraped"])
	}

	run.stderr.await(t, "no complete exposition within 200ms")
	run.stderr.await(t, `500 Internal Server Error`)
	if n := strings.Count(run.stderr.String(), "the scrape failed"); n != 3 {
		t.Errorf("three failures were logged %d times", n)
	}
}

func TestSIGTERMCollectsOnceMoreAndEndsTheProcess(t *testing.T) {
	c, p := startCollector(t), startPage(t)
	for name, args := range map[string][]string{"run": {"run"}, "plugin": nil} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			program := start(t, []string{"OTLP_ENDPOINT=http://" + c.address, "SCRAPE_URL=" + p.url, "PLUGIN_SOCKET=" + e.socket, "OTEL_METRIC_EXPORT_INTERVAL=1h"}, args...)
			if name == "plugin" {
				awaitSocket(t, e.socket)
				e.post(t, "MetricsCollector.StartMetrics")
			} else {
				c.awaitUp(t, 1)
			}
			before := p.reads.Load()
			if err := program.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if got := value(c.next(t)["reads_total"]); got != float64(before+1) {
				t.Errorf("the last collection carried %v reads of %d", got, before+1)
			}
			if code := program.code(t, 5*time.Second); code != exitDone {
				t.Errorf("the exit code is %d", code)
			}
			if len(c.requests) != 0 || p.reads.Load() != before+1 {
				t.Errorf("%d more requests arrived, %d more pages were read", len(c.requests), p.reads.Load()-before-1)
			}
		})
	}
}

func TestStopMetricsReadsTheLastPageBeforeItAnswers(t *testing.T) {
	c, p, e := startCollector(t), startPage(t), newEngine(t)
	plugin := start(t, []string{"OTLP_ENDPOINT=http://" + c.address, "SCRAPE_URL=" + p.url, "PLUGIN_SOCKET=" + e.socket, "OTEL_METRIC_EXPORT_INTERVAL=1h"})
	awaitSocket(t, e.socket)
	e.post(t, "MetricsCollector.StartMetrics")
	e.post(t, "MetricsCollector.StopMetrics")
	_ = p.server.Close() // as the engine does right after the answer
	if err := plugin.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if metrics := c.next(t); value(metrics["up"]) != 1 {
		t.Errorf("the last collection has up %v", metrics["up"])
	}
	if code := plugin.code(t, 5*time.Second); code != exitDone {
		t.Errorf("the exit code is %d", code)
	}
}

func TestSIGTERMEndsTheProcessWhateverTheEndpointDoes(t *testing.T) {
	for name, address := range map[string]string{"nobody listens": nobody(t), "black hole": blackHole(t)} {
		t.Run(name, func(t *testing.T) {
			p := startPage(t)
			program := start(t, []string{"OTLP_ENDPOINT=http://" + address, "SCRAPE_URL=" + p.url}, "run", "--interval=100ms")
			program.stdout.await(t, "the first page was read")
			if err := program.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := program.code(t, 5*time.Second); code != exitDone {
				t.Errorf("the exit code is %d", code)
			}
		})
	}
}

// TestWhatCouldNotBeDelivered... kills the process again and again while its
// Collector is away. The page counts its reads, so each page that was read is a
// number that must arrive, once and in order.
func TestWhatCouldNotBeDeliveredOutlivesSIGKILLAndArrivesInOrder(t *testing.T) {
	p, address, spool := startPage(t), nobody(t), t.TempDir()
	program := func() *process {
		return start(t, []string{"OTLP_ENDPOINT=http://" + address, "SCRAPE_URL=" + p.url, "SPOOL_DIR=" + spool, "LOG_LEVEL=debug"}, "run", "--interval=100ms")
	}
	const kills = 10
	for range kills {
		running := program()
		for before := p.reads.Load(); p.reads.Load() < before+3; {
			select {
			case <-running.exited:
				t.Fatal("the program ended by itself")
			case <-time.After(time.Millisecond): // the page has no event to wait on
			}
		}
		_ = running.Process.Kill()
		<-running.exited
	}
	last := float64(p.reads.Load())

	c := startCollectorAt(t, address)
	program()
	got := []float64{}
	for len(got) == 0 || got[len(got)-1] <= last {
		if v := value(c.next(t)["reads_total"]); v >= 0 {
			got = append(got, v)
		}
	}
	missing := 0
	for i, want := 0, 1.0; want <= last; want++ {
		switch {
		case i < len(got) && got[i] == want:
			i++
		default:
			missing++
		}
	}
	if missing > kills || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("after %d kills %d of %v pages are missing: %v", kills, missing, last, got)
	}
	t.Logf("%v pages were read, %d of them in the moment of a kill", last, missing)
}

func TestTheLastCollectionOutlivesTheProcessWhenNobodyListens(t *testing.T) {
	p, address, spool := startPage(t), nobody(t), t.TempDir()
	env := []string{"OTLP_ENDPOINT=http://" + address, "SCRAPE_URL=" + p.url, "SPOOL_DIR=" + spool, "OTEL_METRIC_EXPORT_INTERVAL=1h"}
	first := start(t, env, "run")
	first.stdout.await(t, "the first page was read")
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := first.code(t, 5*time.Second); code != exitDone {
		t.Errorf("the exit code is %d", code)
	}
	c := startCollectorAt(t, address)
	start(t, env, "run")
	for _, want := range []float64{1, 2, 3} { // the first, the last, and the first of the second process
		if got := value(c.next(t)["reads_total"]); got != want {
			t.Errorf("%v arrived, want %v", got, want)
		}
	}
}

func TestFamiliesAreIncludedAndExcludedByName(t *testing.T) {
	c := startCollector(t)
	start(t, []string{"OTLP_ENDPOINT=http://" + c.address, "SCRAPE_URL=" + servePage(t, "297-active.pb"),
		"METRICS_INCLUDE=engine_daemon_.*|up", "METRICS_EXCLUDE=engine_daemon_engine_.*"}, "run")
	req := <-c.requests
	var names []string
	for _, sm := range req.GetResourceMetrics()[0].GetScopeMetrics() {
		for _, m := range sm.GetMetrics() {
			if sm.GetScope().GetName() == translate.ScopeName {
				names = append(names, m.GetName())
			}
		}
	}
	if len(names) < 5 || slices.ContainsFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, "engine_daemon_") || strings.HasPrefix(name, "engine_daemon_engine_")
	}) {
		t.Errorf("the families are %v", names)
	}
	metrics := metricsOf(req)
	if all, kept := value(metrics["scrape_samples_scraped"]), value(metrics["scrape_samples_post_metric_relabeling"]); all != 1818 || kept >= all || kept <= 0 {
		t.Errorf("%v samples were scraped and %v kept", all, kept)
	}
	// What the page says of its engine holds whether or not it is exported.
	if attrs := fmt.Sprint(req.GetResourceMetrics()[0].GetResource()); !strings.Contains(attrs, "c2390d4f-734b-4eb8-8ac6-c03cd53e8ac0") {
		t.Errorf("the resource is %s", attrs)
	}
}

// TestDeltas... counts the reads of the page: the source's growth.
func TestDeltasAddUpToWhatTheSourceCounted(t *testing.T) {
	c, p := startCollector(t), startPage(t)
	program := start(t, []string{"OTLP_ENDPOINT=http://" + c.address, "SCRAPE_URL=" + p.url, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta"}, "run", "--interval=500ms") // also the time limit of a scrape
	var sum float64
	var last uint64
	add := func(m *metricpb.Metric) {
		point := m.GetSum().GetDataPoints()[0]
		if m.GetSum().GetAggregationTemporality() != metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA {
			t.Errorf("the temporality is %v", m.GetSum().GetAggregationTemporality())
		}
		if last != 0 && point.GetStartTimeUnixNano() != last {
			t.Errorf("a delta from %d follows one to %d", point.GetStartTimeUnixNano(), last)
		}
		last = point.GetTimeUnixNano()
		sum += point.GetAsDouble()
	}
	if m := c.awaitUp(t, 1)["reads_total"]; m != nil {
		t.Errorf("the first page, which the deltas are counted from, gave %v", m)
	}
	for range 5 {
		add(c.next(t)["reads_total"])
	}
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := program.code(t, 5*time.Second); code != exitDone {
		t.Errorf("the exit code is %d", code)
	}
	for len(c.requests) > 0 {
		if m := c.next(t)["reads_total"]; m != nil {
			add(m)
		}
	}
	if want := float64(p.reads.Load() - 1); sum != want {
		t.Errorf("the deltas add up to %v, the source counted %v since the first page", sum, want)
	}
}

func TestBadSettingsExitWithTwoAndOneMessage(t *testing.T) {
	const endpoint = `OTLP_ENDPOINT="ftp://c:1": unknown scheme "ftp"; want http://host:port (plaintext), https://host:port (TLS), unix:///path, dns:///host:port or host:port (TLS)`
	const interval = `OTEL_METRIC_EXPORT_INTERVAL="soon": want milliseconds, as 15000, or a duration, as 15s, from 100ms to 24h0m0s`
	env := []string{"OTLP_ENDPOINT=ftp://c:1", "OTEL_METRIC_EXPORT_INTERVAL=soon"}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"run"}, "otelmetricsplugin: bad settings: " + endpoint + "; " + interval + "\n"},
		{[]string{"print", "--otlp-endpoint=http://localhost:4317"}, "otelmetricsplugin: bad settings: " + interval + "\n"}, // a flag wins
		{[]string{"run", "--bogus"}, "otelmetricsplugin: unknown flag --bogus; see otelmetricsplugin --help\n"},
		{[]string{"bogus"}, "otelmetricsplugin: unexpected argument bogus; see otelmetricsplugin --help\n"},
	} {
		p := start(t, env, test.args...)
		if code := p.code(t, 10*time.Second); code != exitSettings {
			t.Errorf("%v: the exit code is %d", test.args, code)
		}
		if got := p.stderr.String(); got != test.want || p.stdout.String() != "" {
			t.Errorf("%v: the message is\n%swant\n%sand stdout has %q", test.args, got, test.want, p.stdout)
		}
	}
}

func TestAPluginWithBadSettingsSaysSoOnceAndWaitsWithoutItsSocket(t *testing.T) {
	e := newEngine(t)
	p := start(t, []string{"OTLP_ENDPOINT=x", "PLUGIN_SOCKET=" + e.socket})
	p.stderr.await(t, "bad settings")
	if _, err := os.Stat(e.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is there: %v", err)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.code(t, 5*time.Second); code != exitSettings {
		t.Errorf("the exit code is %d", code)
	}
	if n := strings.Count(p.stderr.String(), "\n"); n != 1 {
		t.Errorf("the message has %d lines:\n%s", n, p.stderr)
	}
}

func TestEmptyIsUnset(t *testing.T) {
	c, p := startCollector(t), startPage(t)
	env := []string{"OTLP_ENDPOINT=", "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + c.address, "SCRAPE_URL=" + p.url, "SPOOL_DIR=none"}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_METRIC_EXPORT_INTERVAL", "LOG_LEVEL", "METRICS_INCLUDE", "OTEL_EXPORTER_OTLP_CERTIFICATE"} {
		env = append(env, name+"=")
	}
	start(t, env, "run")
	c.awaitUp(t, 1)
}

func TestAStaleSocketEndsTheProcessWithThree(t *testing.T) {
	dir := shortDir(t)
	stale := filepath.Join(dir, "m.sock")
	listener, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = listener.Close()
	e := newEngine(t)
	p := start(t, []string{"SCRAPE_URL=unix://" + stale, "PLUGIN_SOCKET=" + e.socket})
	awaitSocket(t, e.socket)
	e.post(t, "MetricsCollector.StartMetrics")
	if code := p.code(t, 20*time.Second); code != exitStale {
		t.Errorf("the exit code is %d", code)
	}
	if want := "the metrics socket is stale"; !strings.Contains(p.stderr.String(), want) {
		t.Errorf("nothing was said of it:\n%s", p.stderr)
	}
}

func TestVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"version"}, &stdout, &stderr); code != exitDone {
		t.Errorf("the exit code is %d", code)
	}
	if want := regexp.MustCompile(`^otelmetricsplugin \S+, commit \S+, go\S+ \w+/\w+\n$`); !want.MatchString(stdout.String()) || stderr.Len() != 0 {
		t.Errorf("it says %q and %q", &stdout, &stderr)
	}
}

func TestHelpNamesEveryFlagAndCommand(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--help"}, &stdout, &stderr); code != exitDone {
		t.Errorf("the exit code is %d", code)
	}
	for _, want := range []string{"--otlp-endpoint", "--interval", "--scrape-url", "run ", "print ", "receive ", "version "} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%s is missing in\n%s", want, &stdout)
		}
	}
}

func TestReceiveShowsWhatRunExports(t *testing.T) {
	p := startPage(t)
	receiver := start(t, nil, "receive", "--listen=127.0.0.1:0", "--json")
	receiver.stderr.await(t, "address=")
	address := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(receiver.stderr.String())[1]
	start(t, []string{"OTLP_ENDPOINT=http://" + address, "SCRAPE_URL=" + p.url}, "run")
	receiver.stdout.await(t, `"name":"reads_total"`)
	if err := receiver.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := receiver.code(t, 5*time.Second); code != exitDone {
		t.Errorf("the exit code is %d", code)
	}
}

func TestPrintOfAPageThatCannotBeReadFailsAndPrintsNothing(t *testing.T) {
	p := start(t, []string{"SCRAPE_URL=unix:///nonexistent/m.sock"}, "print")
	if code := p.code(t, 10*time.Second); code != exitFailed {
		t.Errorf("the exit code is %d", code)
	}
	if p.stdout.String() != "" || !strings.Contains(p.stderr.String(), "scrape unix:///nonexistent/m.sock: dial unix /nonexistent/m.sock: connect: no such file or directory") {
		t.Errorf("it printed %q and %q", p.stdout, p.stderr)
	}
}

// servePage serves a recorded page as the engine served it.
func servePage(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(pages, name))
	if err != nil {
		t.Fatal(err)
	}
	contentType := "text/plain; version=0.0.4; charset=utf-8"
	if filepath.Ext(name) == ".pb" {
		contentType = delimited
	}
	if strings.HasPrefix(name, "29") {
		contentType += "; escaping=underscores"
	}
	return serveBytes(t, contentType, content)
}

const delimited = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

// serveBytes serves a page and returns its URL.
func serveBytes(t *testing.T, contentType string, content []byte) string {
	t.Helper()
	return serveCounted(t, contentType, content, make(chan struct{}))
}

// serveCounted tells of each read, as far as somebody listens.
func serveCounted(t *testing.T, contentType string, content []byte, reads chan<- struct{}) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(content)
		select {
		case reads <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + "/metrics"
}

const pages = "../../testdata/pages"

func pageNames(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(pages)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if slices.Sort(names); len(names) < 5 {
		t.Fatalf("only %v in %s", names, pages)
	}
	return names
}
