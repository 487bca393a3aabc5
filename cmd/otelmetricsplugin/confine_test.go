//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatCollectsAndExportsHasNoPrivilege(t *testing.T) {
	for name, args := range map[string][]string{"run": {"run"}, "plugin": nil} {
		t.Run(name, func(t *testing.T) {
			page, collector, engine := startPage(t), startCollector(t), newEngine(t)
			_, port, err := net.SplitHostPort(collector.address)
			if err != nil {
				t.Fatal(err)
			}
			p := start(t, []string{"OTLP_ENDPOINT=http://localhost:" + port, "SCRAPE_URL=" + page.url, "PLUGIN_SOCKET=" + engine.socket,
				"SPOOL_DIR=" + filepath.Join(shortDir(t), "spool"), "OTEL_METRIC_EXPORT_INTERVAL=100ms"}, args...)
			if args == nil {
				awaitSocket(t, engine.socket)
				engine.post(t, "MetricsCollector.StartMetrics")
			}
			collector.awaitUp(t, 1)

			files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Process.Pid))
			if err != nil || len(files) < 2 {
				t.Fatalf("%d threads, %v", len(files), err)
			}
			for _, file := range files {
				status, err := os.ReadFile(file)
				if err != nil {
					continue // a thread that ended
				}
				for _, want := range []string{"NoNewPrivs:\t1\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n"} {
					if !strings.Contains(string(status), want) {
						t.Errorf("%s lacks %q:\n%s", file, want, status)
					}
				}
			}
			p.stdout.await(t, "msg=confined sandbox.capabilities=none")
		})
	}
}

func TestTheSpoolIsForItsOwnerAloneAndHoldsNoSecret(t *testing.T) {
	dir := shortDir(t)
	spool := filepath.Join(dir, "spool")
	p := start(t, []string{"OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS=authorization=topsecret", "SCRAPE_URL=" + startPage(t).url,
		"SPOOL_DIR=" + dir, "OTEL_METRIC_EXPORT_INTERVAL=1h"}, "run")
	p.stderr.await(t, "they wait") // and with it the first scrape, which had its 10 s
	if info, err := os.Stat(spool); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("the directory: %v, %v", info.Mode(), err)
	}
	requests, err := filepath.Glob(filepath.Join(spool, "*.pb.gz"))
	if err != nil || len(requests) == 0 {
		t.Fatalf("%q, %v", requests, err)
	}
	f, err := os.Open(requests[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode() != 0o600 {
		t.Errorf("%s: %v, %v", requests[0], info.Mode(), err)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	request, err := io.ReadAll(z)
	if err != nil || !bytes.Contains(request, []byte("reads_total")) || bytes.Contains(request, []byte("topsecret")) {
		t.Errorf("the request is %q, %v", request, err)
	}
}

func TestALimitOfThePageIsUpZeroWithItsReason(t *testing.T) {
	page := startPage(t)
	for setting, test := range map[string]struct {
		value, want string
		page        http.HandlerFunc
	}{
		"SCRAPE_MAX_BYTES":       {"10", "the exposition has more than 10 bytes; SCRAPE_MAX_BYTES raises the limit", page.good},
		"SCRAPE_MAX_SAMPLES":     {"1", "the exposition has more than 1 samples; SCRAPE_MAX_SAMPLES raises the limit", twoSamples},
		"SCRAPE_MAX_LABEL_BYTES": {"3", "has more than 3 bytes", page.good},
		"SCRAPE_TIMEOUT":         {"50ms", "no complete exposition within 50ms; SCRAPE_TIMEOUT raises the limit", hang},
	} {
		t.Run(setting, func(t *testing.T) {
			page.set(test.page)
			collector := startCollector(t)
			p := start(t, []string{"OTLP_ENDPOINT=http://" + collector.address, "SCRAPE_URL=" + page.url,
				"OTEL_METRIC_EXPORT_INTERVAL=100ms", setting + "=" + test.value}, "run")
			collector.awaitUp(t, 0)
			p.stderr.await(t, test.want)
		})
	}
}

func twoSamples(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = fmt.Fprint(w, "a 1\nb 2\n")
}
