package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"otelmetricsplugin/e2e/internal/collector"
	"otelmetricsplugin/e2e/internal/page"
)

// TestAPageOf500kSamplesReachesACollectorAtItsDefaults holds that no request
// is larger than the 4 MiB that a Collector's receiver takes by default: it
// would be refused whole.
func TestAPageOf500kSamplesReachesACollectorAtItsDefaults(t *testing.T) {
	const samples = 500_000
	text := bytes.NewBufferString("# TYPE e2e_series gauge\n")
	for n := range samples {
		fmt.Fprintf(text, "e2e_series{number=\"%d\"} %d\n", n, n)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(text.Bytes()) // a client that hangs up fails the test by what is missing
	}))
	t.Cleanup(server.Close)
	c := collector.New(t, nil)
	c.Start(t)
	run(t, "OTLP_ENDPOINT=http://"+c.Endpoint, "SCRAPE_URL="+server.URL+"/metrics",
		"OTEL_METRIC_EXPORT_INTERVAL=1h", "SPOOL_DIR="+t.TempDir())

	arrived := map[string]bool{}
	ctx, mark := waiting(t, "500k samples"), 0
	for len(arrived) < samples {
		md, next, err := c.Received.Wait(ctx, mark, func(pmetric.Metrics) bool { return true })
		if err != nil {
			t.Fatalf("%d of %d samples arrived: %v; the Collector said\n%s", len(arrived), samples, err, strings.Join(c.Log.Since(0), ""))
		}
		mark = next
		for _, p := range page.Points(md) {
			if p.Scope != pageScope {
				continue
			}
			var n int
			if _, err := fmt.Sscanf(p.Labels, "{number=\"%d\"}", &n); err != nil || p.Name != "e2e_series" || p.Value != float64(n) {
				t.Fatalf("%s is %v", p.Key(), p.Value)
			}
			if arrived[p.Labels] {
				t.Fatalf("%s arrived twice", p.Key())
			}
			arrived[p.Labels] = true
		}
	}
}

// run starts `otelmetricsplugin run` with settings alone, until the end of the
// test.
func run(t *testing.T, settings ...string) {
	t.Helper()
	var output bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program(t), "run")
	cmd.Env = append(settings, "HOME="+os.Getenv("HOME"))
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The end of the test's context has sent SIGTERM.
		if err := cmd.Wait(); t.Failed() {
			t.Logf("otelmetricsplugin run: %v\n%s", err, output.String())
		}
	})
}
