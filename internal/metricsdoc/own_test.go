package metricsdoc

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // registers the decompressor

	"otelmetricsplugin/pkg/lifecycle"
)

// enough is how many collections are looked at for a metric that comes late,
// such as the time of the last success.
const enough = 50

// TestEveryMetricOfThePluginIsDescribedRightly runs the program as it is built
// and holds what it says of itself against the document.
func TestEveryMetricOfThePluginIsDescribedRightly(t *testing.T) {
	_, _, rows := readDocument(t)
	requests := exports(t)
	deadline := time.After(time.Minute)
	have := map[string]*row{}
	for range enough {
		select {
		case req := <-requests:
			ownMetrics(have, req)
		case <-deadline:
			t.Fatal("the program exported too little within a minute")
		}
		if len(have) == len(rows) {
			break
		}
	}

	for _, name := range slices.Sorted(maps.Keys(have)) {
		h := have[name]
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			t.Errorf("docs/metrics.md: %s has no row, add\n%v", name, h)
			continue
		}
		r := rows[i]
		if r.typ != h.typ || r.unit != h.unit || !slices.Equal(r.labels, h.labels) {
			t.Errorf("docs/metrics.md line %d: %s is a %s, unit %q, attributes %q, not a %s, %q, %q",
				r.line, name, h.typ, h.unit, h.labels, r.typ, r.unit, r.labels)
		}
	}
	for _, r := range rows {
		if have[r.name] == nil {
			t.Errorf("docs/metrics.md line %d: %s is not exported", r.line, r.name)
		}
	}
}

// exports runs the program until the end of the test, on a page of which one
// point must be dropped, and returns what it exports.
func exports(t *testing.T) <-chan *colmetricpb.ExportMetricsServiceRequest {
	t.Helper()
	program := filepath.Join(t.TempDir(), "otelmetricsplugin")
	if output, err := exec.Command("go", "build", "-o", program, "../../cmd/otelmetricsplugin").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, output)
	}
	content, err := os.ReadFile("../../testdata/pages/297-active.txt")
	if err != nil {
		t.Fatal(err)
	}
	content = append(content, "# TYPE negative_total counter\nnegative_total -1\n"...)
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(content)
	}))
	t.Cleanup(engine.Close)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{requests: make(chan *colmetricpb.ExportMetricsServiceRequest), done: make(chan struct{})}
	server := grpc.NewServer()
	colmetricpb.RegisterMetricsServiceServer(server, c)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	t.Cleanup(func() { close(c.done) })

	var stderr strings.Builder
	cmd := exec.Command(program, "run", "--interval=100ms")
	cmd.Env = []string{"OTLP_ENDPOINT=http://" + listener.Addr().String(), "SCRAPE_URL=" + engine.URL + "/metrics", "SPOOL_DIR=" + t.TempDir()}
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the program's warnings:\n%s", &stderr)
		}
	})
	return c.requests
}

type collector struct {
	colmetricpb.UnimplementedMetricsServiceServer
	requests chan *colmetricpb.ExportMetricsServiceRequest
	done     chan struct{}
}

func (c *collector) Export(_ context.Context, req *colmetricpb.ExportMetricsServiceRequest) (*colmetricpb.ExportMetricsServiceResponse, error) {
	select {
	case c.requests <- req:
	case <-c.done:
	}
	return &colmetricpb.ExportMetricsServiceResponse{}, nil
}

// ownMetrics adds to rows the metrics in req that are the plugin's own.
func ownMetrics(rows map[string]*row, req *colmetricpb.ExportMetricsServiceRequest) {
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			if sm.GetScope().GetName() != lifecycle.ScopeName {
				continue
			}
			for _, m := range sm.GetMetrics() {
				if rows[m.GetName()] == nil {
					rows[m.GetName()] = &row{name: m.GetName(), unit: m.GetUnit()}
				}
				r := rows[m.GetName()]
				var points []*metricpb.NumberDataPoint
				switch data := m.GetData().(type) {
				case *metricpb.Metric_Gauge:
					r.typ, points = "gauge", data.Gauge.GetDataPoints()
				case *metricpb.Metric_Sum:
					r.typ, points = "up-down counter", data.Sum.GetDataPoints()
					if data.Sum.GetIsMonotonic() {
						r.typ = "counter"
					}
				}
				for _, p := range points {
					r.labels = slices.Compact(slices.Sorted(slices.Values(append(r.labels, keys(p.GetAttributes())...))))
				}
			}
		}
	}
}

func keys(attributes []*commonpb.KeyValue) []string {
	list := make([]string, 0, len(attributes))
	for _, a := range attributes {
		list = append(list, a.GetKey())
	}
	return list
}
