package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"otelmetricsplugin/e2e/internal/collector"
	"otelmetricsplugin/e2e/internal/engine"
	"otelmetricsplugin/e2e/internal/page"
)

// The instrumentation scopes of what was on the page, and of what the plugin
// says itself: of each scrape as the Collector's prometheusreceiver does, of
// its own state with a prefix.
const (
	pageScope = "otelmetricsplugin/pkg/translate"
	ownScope  = "otelmetricsplugin"
	ownPrefix = "otelmetricsplugin."
)

// scrapeMetrics is what is said of each scrape.
var scrapeMetrics = []string{
	"scrape_duration_seconds", "scrape_samples_post_metric_relabeling", "scrape_samples_scraped", "up",
}

// TestEveryFamilyAndSampleArrives compares the engine's own page with what the
// Collector holds, after each thing that can happen to a plugin.
func TestEveryFamilyAndSampleArrives(t *testing.T) {
	e := sharedEngine(t)
	c := collector.New(t, nil)
	c.Start(t)
	e.Work(t, "arrives", program(t), "version")

	t.Run("plugin", func(t *testing.T) {
		p := install(t, e, c, nil)
		t.Run("enabled", func(t *testing.T) {
			p.Enable(t)
			checkArrival(t, e, c)
		})
		t.Run("disabled and enabled", func(t *testing.T) {
			p.Disable(t)
			p.Enable(t)
			checkArrival(t, e, c)
		})
		t.Run("killed", func(t *testing.T) {
			p.Kill(t)
			checkArrival(t, e, c)
		})
		t.Run("engine restarted", func(t *testing.T) {
			e.Stop(t)
			e.Restart(t)
			checkArrival(t, e, c)
		})
		t.Run("engine killed", func(t *testing.T) {
			e.Kill(t)
			e.Restart(t)
			checkArrival(t, e, c)
		})
	})
	// The configuration that the published protocol page asks for. An engine
	// newer than 18.02 does not restart such a plugin when its process dies.
	t.Run("published configuration", func(t *testing.T) {
		p := install(t, e, c, map[string]any{"propagatedMount": "/run/docker"})
		p.Enable(t)
		checkArrival(t, e, c)
		p.Disable(t)
		p.Enable(t)
		checkArrival(t, e, c)
	})
}

// install creates the plugin with settings for the test, not yet enabled. The
// name is new for each test.
func install(t *testing.T, e *engine.Engine, c *collector.Collector, replace map[string]any) *engine.Plugin {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	mark := e.Log.Len()
	p := e.CreatePlugin(t, "otelmetrics:"+name, config(t, replace), program(t))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the engine said of the plugin:\n%s", strings.Join(p.Log(mark), "\n"))
		}
	})
	configure(t, p, c)
	return p
}

// configure makes the plugin export to the Collector, every second.
func configure(t *testing.T, p *engine.Plugin, c *collector.Collector) {
	t.Helper()
	p.Set(t, "OTLP_ENDPOINT=http://"+c.Endpoint, "OTEL_METRIC_EXPORT_INTERVAL=1s")
}

// collection is what one scrape became.
type collection struct {
	page []page.Point // what was on the page
	own  []page.Point // what the plugin measured itself
}

// checkArrival fails the test unless a collection that is taken from now on is
// the engine's page, whole and with nothing else.
func checkArrival(t *testing.T, e *engine.Engine, c *collector.Collector) {
	t.Helper()
	settle(t, func() (wrong, unsettled []page.Diff) {
		before := getPage(t, e)
		got := nextCollection(t, c, time.Now())
		after := getPage(t, e)
		wrong, unsettled = page.Compare(page.Expect(before), page.Expect(after), got.page)
		wrong = append(wrong, compareOwn(got, before, after)...)
		return append(wrong, compareResource(t, got, after)...), unsettled
	})
}

// settle looks until nothing is wrong and every gauge has been seen with the
// value that the page had before and after: one may move between two looks,
// but not at each.
func settle(t *testing.T, look func() (wrong, unsettled []page.Diff)) {
	t.Helper()
	const looks = 5
	moving := map[string]int{}
	for i := range looks {
		wrong, unsettled := look()
		if len(wrong) > 0 {
			t.Fatalf("%d differences from the engine's page:\n%s", len(wrong), list(wrong))
		}
		for _, d := range unsettled {
			moving[d.Key]++
		}
		unsettled = slices.DeleteFunc(unsettled, func(d page.Diff) bool { return moving[d.Key] <= i })
		if len(unsettled) == 0 {
			return
		}
		if i == looks-1 {
			t.Errorf("gauges that never arrived with the value on the page:\n%s", list(unsettled))
		}
	}
}

// list is the first differences, a line each.
func list(diffs []page.Diff) string {
	diffs = diffs[:min(len(diffs), 40)]
	lines := make([]string, len(diffs))
	for i, d := range diffs {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

func getPage(t *testing.T, e *engine.Engine) []*dto.MetricFamily {
	t.Helper()
	families, err := page.Get(waiting(t, "the engine's page"), e.MetricsSocket())
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// nextCollection waits for the first collection that was begun after the given
// time and read the page, and returns all of it: everything up to the first sign
// of the next. One that read no page says that each series has no value.
func nextCollection(t *testing.T, c *collector.Collector, after time.Time) collection {
	t.Helper()
	var got collection
	var begun time.Time
	ctx, mark := waiting(t, "a collection"), c.Received.Len()
	for {
		md, next, err := c.Received.Wait(ctx, mark, func(pmetric.Metrics) bool { return true })
		if err != nil {
			t.Fatalf("%v; the Collector said\n%s", err, strings.Join(c.Log.Since(0), ""))
		}
		mark = next
		points := page.Points(md)
		missed := slices.ContainsFunc(points, func(p page.Point) bool {
			return p.Scope == ownScope && p.Name == "up" && p.Value == 0
		})
		var at time.Time // when the page in this request was scraped
		for _, p := range points {
			if p.Scope == pageScope {
				at = p.Time
				break
			}
		}
		switch {
		case begun.IsZero() && (missed || !at.After(after)):
			continue
		case begun.IsZero():
			begun = at
		case at.After(begun):
			return got
		}
		for _, p := range points {
			if p.Scope == pageScope {
				got.page = append(got.page, p)
			} else {
				got.own = append(got.own, p)
			}
		}
	}
}

// compareOwn says what is wrong with what the plugin says itself.
func compareOwn(got collection, before, after []*dto.MetricFamily) (wrong []page.Diff) {
	scrape := map[string]page.Point{}
	for _, p := range got.own {
		switch {
		case p.Scope != ownScope:
			wrong = append(wrong, page.Diff{Key: p.Key(), What: fmt.Sprintf("is in scope %q", p.Scope)})
		case !strings.HasPrefix(p.Name, ownPrefix):
			scrape[p.Name] = p
		}
	}
	if have := slices.Sorted(maps.Keys(scrape)); !slices.Equal(have, scrapeMetrics) {
		return append(wrong, page.Diff{Key: "scrape metrics", What: fmt.Sprintf("%v, want %v", have, scrapeMetrics)})
	}
	low, high := float64(page.Samples(before)), float64(page.Samples(after))
	for _, gauge := range []struct {
		name      string
		low, high float64
	}{
		{"up", 1, 1},
		{"scrape_samples_scraped", low, high},
		{"scrape_samples_post_metric_relabeling", low, high},
		{"scrape_duration_seconds", 1e-6, patience.Seconds()},
	} {
		p := scrape[gauge.name]
		if p.Kind != page.Gauge || p.Value < gauge.low || p.Value > gauge.high {
			wrong = append(wrong, page.Diff{Key: p.Key(), What: fmt.Sprintf("%s %v, want gauge %v to %v", p.Kind, p.Value, gauge.low, gauge.high)})
		}
	}
	return wrong
}

// compareResource says whose resource is not the engine's.
func compareResource(t *testing.T, got collection, families []*dto.MetricFamily) (wrong []page.Diff) {
	t.Helper()
	want := resource(t, families)
	for _, p := range slices.Concat(got.page, got.own) {
		if !maps.Equal(p.Resource, want) {
			wrong = append(wrong, page.Diff{Key: p.Key(), What: fmt.Sprintf("resource %v, want %v", p.Resource, want)})
		}
	}
	return wrong
}

// resource is the resource of the engine that the page is of.
func resource(t *testing.T, families []*dto.MetricFamily) map[string]string {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	info := engineInfo(families)
	return map[string]string{
		"service.name":        "dockerd",
		"service.instance.id": info["daemon_id"],
		"service.version":     info["version"],
		"host.name":           host,
		"host.arch":           map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[info["architecture"]],
		"os.type":             info["os_type"],
		"os.description":      info["os"],
		"os.version":          info["os_version"],
	}
}

// engineInfo is the labels of engine_daemon_engine_info.
func engineInfo(families []*dto.MetricFamily) map[string]string {
	info := map[string]string{}
	for _, f := range families {
		if f.GetName() == "engine_daemon_engine_info" {
			for _, l := range f.GetMetric()[0].GetLabel() {
				info[l.GetName()] = l.GetValue()
			}
		}
	}
	return info
}
