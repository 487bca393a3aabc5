package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"otelmetricsplugin/e2e/internal/collector"
	"otelmetricsplugin/e2e/internal/engine"
	"otelmetricsplugin/e2e/internal/feed"
	"otelmetricsplugin/e2e/internal/page"
	"otelmetricsplugin/e2e/internal/registry"
)

// TestNothingIsLostWhileTheCollectorIsAway takes the Collector away and then
// does to the plugin and its engine what an operator may do meanwhile. Each
// page that the plugin was given has a number, and each number must arrive
// once, in order.
func TestNothingIsLostWhileTheCollectorIsAway(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		args []string
	}{
		{"engine", nil},
		{"engine with live restore", []string{"--live-restore"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := engine.Start(t, test.args...)
			c := collector.New(t, nil)
			c.Start(t)
			pages := servePages(t)
			r := registry.Start(t)
			p := e.InstallPlugin(t, "otelmetrics:outage", push(t, r, "v1"))
			configure(t, p, c)
			p.Set(t, "SCRAPE_URL="+pages.url)
			p.Enable(t)
			pages.waitMore(t, 2)

			c.Stop(t)
			for _, step := range []func(){
				func() {},
				func() { p.Disable(t); p.Upgrade(t, push(t, r, "v2")); p.Enable(t) },
				func() { e.Stop(t); e.Restart(t) },
				func() { e.Kill(t); e.Restart(t) },
				func() { p.Disable(t); p.Enable(t) },
			} {
				step()
				pages.waitMore(t, 3)
			}
			c.Start(t)
			// A plugin that is told to stop before it has noticed that the
			// Collector is back leaves the rest to its next start.
			pages.awaitLast(t, c)
			pages.waitMore(t, 2)
			p.Disable(t) // the last page that is served is the last one collected
			pages.compare(t, c, 0)
		})
	}
}

// TestAtMostTheOneInFlightIsLostByAKill ends the plugin's process with SIGKILL
// again and again while the Collector is away.
func TestAtMostTheOneInFlightIsLostByAKill(t *testing.T) {
	const kills = 5
	e := sharedEngine(t)
	c := collector.New(t, nil)
	pages := servePages(t)
	p := install(t, e, c, nil)
	p.Set(t, "SCRAPE_URL="+pages.url)
	p.Enable(t)
	for range kills {
		pages.waitMore(t, 2)
		p.Kill(t)
	}
	pages.waitMore(t, 2)
	c.Start(t)
	pages.awaitLast(t, c)
	pages.waitMore(t, 2)
	p.Disable(t)
	pages.compare(t, c, kills)
}

// numberedPages serves a page with one gauge, the number of the page.
type numberedPages struct {
	url    string
	served feed.Feed[servedPage] // pages that went out whole, from 1 on
}

type servedPage struct {
	number int
	at     time.Time
}

const numberName = "e2e_page_number"

func servePages(t *testing.T) *numberedPages {
	t.Helper()
	pages := new(numberedPages)
	number := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		number++ // the one client scrapes one page after the other
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		if _, err := fmt.Fprintf(w, "# TYPE %s gauge\n%s %d\n", numberName, numberName, number); err == nil {
			pages.served.Append(servedPage{number, time.Now()})
		}
	}))
	t.Cleanup(server.Close)
	pages.url = server.URL + "/metrics"
	return pages
}

// waitMore waits until n more pages have been served.
func (s *numberedPages) waitMore(t *testing.T, n int) {
	t.Helper()
	ctx, mark := waiting(t, "scrapes"), s.served.Len()
	for range n {
		var err error
		if _, mark, err = s.served.Wait(ctx, mark, func(servedPage) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitLast waits for the last page that was served to arrive at the Collector.
func (s *numberedPages) awaitLast(t *testing.T, c *collector.Collector) {
	t.Helper()
	served := s.served.Since(0)
	last := served[len(served)-1].number
	_, _, err := c.Received.Wait(waiting(t, "the last page"), 0, func(md pmetric.Metrics) bool {
		return slices.Contains(numbers(md), last)
	})
	if err != nil {
		t.Errorf("page %d never arrived: %v", last, err)
	}
}

// compare waits for the last page to arrive at the Collector, and fails the
// test if others did not, arrived twice or out of order. At most the given
// number of pages may be missing.
func (s *numberedPages) compare(t *testing.T, c *collector.Collector, mayMiss int) {
	t.Helper()
	s.awaitLast(t, c)
	served := s.served.Since(0)
	var got, want []int
	for _, md := range c.Received.Since(0) {
		got = append(got, numbers(md)...)
	}
	for i, p := range served {
		// A page that is being scraped when the plugin is told to stop is
		// given up for the last page, which is then scraped at once.
		givenUp := i+1 < len(served) && served[i+1].at.Sub(p.at) < 50*time.Millisecond && !slices.Contains(got, p.number)
		if !givenUp {
			want = append(want, p.number)
		}
	}
	missing := slices.DeleteFunc(slices.Clone(want), func(n int) bool { return slices.Contains(got, n) })
	want = slices.DeleteFunc(want, func(n int) bool { return slices.Contains(missing, n) })
	if len(missing) > mayMiss {
		t.Errorf("of %d pages %d are missing, at most %d may be: %v", len(served), len(missing), mayMiss, missing)
	}
	if !slices.Equal(got, want) {
		t.Errorf("arrived:\n%v\nwant each page once and in order:\n%v", got, want)
	}
}

// numbers returns the numbers of the pages in a request.
func numbers(md pmetric.Metrics) (all []int) {
	for _, p := range page.Points(md) {
		if p.Name == numberName {
			all = append(all, int(p.Value))
		}
	}
	return all
}
