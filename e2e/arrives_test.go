package e2e

import (
	"fmt"
	"maps"
	"os"
	"reflect"
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

// pageScope is the instrumentation scope of what was on the page.
const pageScope = "otelmetricsplugin/pkg/translate"

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
func install(t testing.TB, e *engine.Engine, c *collector.Collector, replace map[string]any) *engine.Plugin {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	p := e.CreatePlugin(t, "otelmetrics:"+name, config(t, replace), program(t))
	p.Set(t, "OTLP_ENDPOINT=http://"+c.Endpoint, "OTEL_METRIC_EXPORT_INTERVAL=1s")
	return p
}

// collection is what one scrape became.
type collection struct {
	page []page.Point // what was on the page
	own  []page.Point // what the plugin measured itself
}

// checkArrival waits for collections that are taken from now on and fails the
// test unless one of them is the engine's page, whole and with nothing else.
func checkArrival(t *testing.T, e *engine.Engine, c *collector.Collector) {
	t.Helper()
	// At boot the page comes before the engine is initialised; the engine's
	// API, which Restart waits for, comes after.
	confirmed := map[string]bool{}
	var unsettled []string
	// A gauge may move between two looks at the page; in a few collections
	// each one has been seen at rest.
	for range 5 {
		before := getPage(t, e)
		got := nextCollection(t, c, time.Now())
		after := getPage(t, e)

		var wrong []string
		expected := page.Expect(before)
		wrong, unsettled = page.Compare(expected, page.Expect(after), got.page)
		wrong = append(wrong, compareOwn(got, before, after)...)
		for _, p := range slices.Concat(got.page, got.own) {
			if want := resource(t, after); !maps.Equal(p.Resource, want) {
				wrong = append(wrong, fmt.Sprintf("%s: resource\n%v, want\n%v", p.Key(), p.Resource, want))
				break
			}
		}
		if len(wrong) > 0 {
			t.Fatalf("%d differences between the engine's page (%d series) and a collection (%d points):\n%s",
				len(wrong), len(expected), len(got.page), strings.Join(wrong[:min(len(wrong), 40)], "\n"))
		}
		moved := map[string]bool{}
		for _, u := range unsettled {
			key, _, _ := strings.Cut(u, ": value ")
			moved[key] = true
		}
		for key := range expected {
			if !moved[key] {
				confirmed[key] = true
			}
		}
		unsettled = slices.DeleteFunc(unsettled, func(u string) bool {
			key, _, _ := strings.Cut(u, ": value ")
			return confirmed[key]
		})
		if len(unsettled) == 0 {
			return
		}
	}
	t.Errorf("gauges that never arrived with the value on the page:\n%s", strings.Join(unsettled, "\n"))
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
// time, and returns all of it: everything up to the first sign of the next.
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
		var at time.Time // when the page in this request was scraped
		for _, p := range points {
			if p.Scope == pageScope {
				at = p.Time
				break
			}
		}
		switch {
		case begun.IsZero() && !at.After(after):
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

// compareOwn says what is wrong with what the plugin measured itself.
func compareOwn(got collection, before, after []*dto.MetricFamily) (wrong []string) {
	names := map[string]page.Point{}
	for _, p := range got.own {
		names[p.Name] = p
	}
	want := []string{"scrape_duration_seconds", "scrape_samples_scraped", "up"}
	if have := slices.Sorted(maps.Keys(names)); !reflect.DeepEqual(have, want) {
		return []string{fmt.Sprintf("own metrics %v, want %v", have, want)}
	}
	if up := names["up"]; up.Kind != page.Gauge || up.Value != 1 {
		wrong = append(wrong, fmt.Sprintf("up: %s %v, want gauge 1", up.Kind, up.Value))
	}
	if n, low, high := names["scrape_samples_scraped"].Value, page.Samples(before), page.Samples(after); n < float64(low) || n > float64(high) {
		wrong = append(wrong, fmt.Sprintf("scrape_samples_scraped: %v, want %d to %d", n, low, high))
	}
	if d := names["scrape_duration_seconds"].Value; d <= 0 || d > patience.Seconds() {
		wrong = append(wrong, fmt.Sprintf("scrape_duration_seconds: %v", d))
	}
	return wrong
}

// resource is the resource of the engine that the page is of.
func resource(t *testing.T, families []*dto.MetricFamily) map[string]string {
	t.Helper()
	info := map[string]string{}
	for _, f := range families {
		if f.GetName() == "engine_daemon_engine_info" {
			for _, l := range f.Metric[0].Label {
				info[l.GetName()] = l.GetValue()
			}
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	arch := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[info["architecture"]]
	return map[string]string{
		"service.name":        "dockerd",
		"service.instance.id": info["daemon_id"],
		"service.version":     info["version"],
		"host.name":           host,
		"host.arch":           arch,
		"os.type":             info["os_type"],
		"os.description":      info["os"],
		"os.version":          info["os_version"],
	}
}
