package e2e

import (
	"slices"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"otelmetricsplugin/e2e/internal/collector"
	"otelmetricsplugin/e2e/internal/engine"
	"otelmetricsplugin/e2e/internal/page"
)

// TestArrivesAfterALiveRestore restarts an engine that keeps its plugins
// running: the plugin's process lives on with a metrics socket that nobody
// listens on any more, and must ask for a new one by ending itself.
func TestArrivesAfterALiveRestore(t *testing.T) {
	t.Parallel()
	e := engine.Start(t, "--live-restore")
	c := collector.New(t, nil)
	c.Start(t)
	e.Work(t, "restore", program(t), "version")
	p := install(t, e, c, nil)
	p.Enable(t)
	checkArrival(t, e, c)
	for _, test := range []struct {
		name string
		end  func(*testing.T)
	}{
		// With StopMetrics, the plugin's pipeline ends.
		{"engine stopped", e.Stop},
		// Without, it goes on and has to say what it sees.
		{"engine killed", func(t *testing.T) {
			mark := c.Received.Len()
			e.Kill(t)
			waitUp(t, c, mark, 0)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := p.PID(t)
			test.end(t)
			if now := p.PID(t); now != before {
				t.Fatalf("the plugin's process was %d, and is %d with the engine down: this is no live restore", before, now)
			}
			e.Restart(t)
			checkArrival(t, e, c)
			if now := p.PID(t); now == before {
				t.Errorf("the plugin's process is still %d: its socket cannot have been stale", now)
			}
		})
	}
}

// waitUp waits for a request after the mark in which up has the value.
func waitUp(t *testing.T, c *collector.Collector, mark int, value float64) {
	t.Helper()
	_, _, err := c.Received.Wait(waiting(t, "a certain up"), mark, func(md pmetric.Metrics) bool {
		return slices.ContainsFunc(page.Points(md), func(p page.Point) bool {
			return p.Scope == ownScope && p.Name == "up" && p.Value == value
		})
	})
	if err != nil {
		t.Fatalf("up never was %v: %v", value, err)
	}
}
