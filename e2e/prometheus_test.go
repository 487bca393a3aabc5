package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/prometheusexporter"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/collector/exporter"

	"otelmetricsplugin/e2e/internal/collector"
	"otelmetricsplugin/e2e/internal/loopback"
	"otelmetricsplugin/e2e/internal/page"
)

// prometheusExporter is the configuration of the Collector's prometheus
// exporter with which its page says what the engine's own page says. Without
// NoTranslation it appends _total to counters that are not named so, and
// without without_scope_info it adds three labels to each series.
const prometheusExporter = "{endpoint: %q, translation_strategy: NoTranslation, without_scope_info: true}"

// TestPrometheusReadsTheEnginesPageThroughACollector holds what a Prometheus
// server gets from a Collector against the page that it would have got from
// the engine: the same families, types, labels and values. The exporter adds
// job and instance, as the server would, and target_info.
func TestPrometheusReadsTheEnginesPageThroughACollector(t *testing.T) {
	e := sharedEngine(t)
	address := loopback.FreeAddress(t)
	c := collector.New(t, map[exporter.Factory]string{
		prometheusexporter.NewFactory(): fmt.Sprintf(prometheusExporter, address),
	})
	c.Start(t)
	e.Work(t, "prometheus", program(t), "version")
	install(t, e, c, nil).Enable(t)

	t.Run("page", func(t *testing.T) {
		settle(t, func() (wrong, unsettled []page.Diff) {
			before := getPage(t, e)
			nextCollection(t, c, time.Now())
			got, err := page.GetURL(waiting(t, "the exporter's page"), "http://"+address+"/metrics")
			if err != nil {
				t.Fatal(err)
			}
			after := getPage(t, e)
			got = slices.DeleteFunc(got, func(f *dto.MetricFamily) bool { return isOwn(f.GetName()) })
			if have, want := page.Types(got), page.Types(after); !maps.Equal(have, want) {
				t.Errorf("types %v\nwant %v", have, want)
			}
			return page.CompareLines(engineLines(before), engineLines(after), page.Lines(got))
		})
	})

	t.Run("server", func(t *testing.T) {
		p := startPrometheus(t, address)
		settle(t, func() (wrong, unsettled []page.Diff) {
			before := getPage(t, e)
			nextCollection(t, c, time.Now())
			p.waitScrape(t, time.Now())
			got := p.lines(t, engineTarget(before)...)
			after := getPage(t, e)
			return page.CompareLines(engineLines(before), engineLines(after), got)
		})
		want := map[string]string{}
		for name, kind := range page.Types(getPage(t, e)) {
			want[name] = strings.ToLower(kind)
		}
		if have := p.types(t); !maps.Equal(have, want) {
			t.Errorf("types %v\nwant %v", have, want)
		}
	})
}

// isOwn reports whether a family is not from the engine's page but from the
// plugin, or from the exporter.
func isOwn(family string) bool {
	return slices.Contains(scrapeMetrics, family) || family == "target_info" ||
		strings.HasPrefix(family, ownPrefix) || strings.HasPrefix(family, strings.ReplaceAll(ownPrefix, ".", "_"))
}

// engineTarget is the labels by which the exporter tells the engine from other
// targets, from service.name and service.instance.id.
func engineTarget(families []*dto.MetricFamily) []string {
	return []string{page.Label("job", "dockerd"), page.Label("instance", engineInfo(families)["daemon_id"])}
}

func engineLines(families []*dto.MetricFamily) map[string]page.Line {
	return page.Lines(families, engineTarget(families)...)
}

// prometheus is a Prometheus server that scrapes one target.
type prometheus struct{ url string }

// startPrometheus runs Prometheus (Debian package prometheus) until the end of
// the test.
func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	binary, err := exec.LookPath(cmp.Or(os.Getenv("PROMETHEUS"), "prometheus"))
	if err != nil {
		err = fmt.Errorf("no Prometheus server (Debian package prometheus; PROMETHEUS names another one): %w", err)
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s}
scrape_configs:
- job_name: collector
  honor_labels: true # job and instance are the engine's, not the Collector's
  static_configs: [{targets: [%q]}]
`, target), 0o600); err != nil {
		t.Fatal(err)
	}
	address := loopback.FreeAddress(t)
	var output bytes.Buffer
	cmd := exec.Command(binary, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("prometheus: %v\n%s", err, output.String())
		}
	})
	p := &prometheus{url: "http://" + address}
	poll(t, "Prometheus to be ready", func(ctx context.Context) bool {
		res, err := p.get(ctx, "/-/ready")
		return err == nil && len(res) > 0
	})
	return p
}

// waitScrape waits until a scrape that began after the given time can be
// queried. Its up is stored together with all the rest; what /api/v1/targets
// says is there a moment before.
func (p *prometheus) waitScrape(t *testing.T, after time.Time) {
	t.Helper()
	// The server may put a scrape's time a few milliseconds off, onto its grid.
	from := float64(after.Add(10*time.Millisecond).UnixNano()) / 1e9
	poll(t, "a scrape by Prometheus", func(context.Context) bool {
		return len(p.query(t, fmt.Sprintf(`timestamp(up{job="collector"} == 1) > %.3f`, from))) > 0
	})
}

// lines returns the samples that the server has of a target right now, without
// those that are not from the engine's page.
func (p *prometheus) lines(t *testing.T, target ...string) map[string]page.Line {
	t.Helper()
	all := map[string]page.Line{}
	for _, r := range p.query(t, page.Join(target)) {
		name := r.Metric["__name__"]
		if isOwn(name) {
			continue
		}
		delete(r.Metric, "__name__")
		var labels []string
		for k, v := range r.Metric {
			labels = append(labels, page.Label(k, v))
		}
		text, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name+page.Join(labels)] = page.Line{Value: value}
	}
	return all
}

// result is one series of an instant query.
type result struct {
	Metric map[string]string
	Value  [2]any // time, value as a string
}

func (p *prometheus) query(t *testing.T, query string) []result {
	t.Helper()
	var answer struct{ Result []result }
	p.api(t, "query", url.Values{"query": {query}}, &answer)
	return answer.Result
}

// types returns the types of the families that the server has scraped.
func (p *prometheus) types(t *testing.T) map[string]string {
	t.Helper()
	var result map[string][]struct{ Type string }
	p.api(t, "metadata", nil, &result)
	all := map[string]string{}
	for name, metadata := range result {
		if !isOwn(name) {
			all[name] = metadata[0].Type
		}
	}
	return all
}

func (p *prometheus) api(t *testing.T, path string, query url.Values, out any) {
	t.Helper()
	body, err := p.get(waiting(t, "Prometheus to answer"), "/api/v1/"+path+"?"+query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	answer := struct{ Data any }{Data: out}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("Prometheus: %s: %v", path, err)
	}
}

func (p *prometheus) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body := new(bytes.Buffer)
	if _, err := body.ReadFrom(res.Body); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s: %s", path, res.Status, body)
	}
	return body.Bytes(), nil
}

// poll asks again and again, for what has no event that could be waited on.
func poll(t *testing.T, what string, done func(context.Context) bool) {
	t.Helper()
	ctx := waiting(t, what)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		}
	}
}
