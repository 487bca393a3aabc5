package e2e

import (
	"testing"

	"otelmetricsplugin/e2e/internal/collector"
	"otelmetricsplugin/e2e/internal/engine"
)

// TestArrivesAfterALiveRestore restarts an engine that keeps its plugins
// running: the plugin's process lives on with a metrics socket that nobody
// listens on any more, and must ask for a new one by ending itself.
func TestArrivesAfterALiveRestore(t *testing.T) {
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
		{"engine stopped", e.Stop},
		{"engine killed", e.Kill},
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
