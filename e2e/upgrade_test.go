package e2e

import (
	"testing"

	"otelmetricsplugin/e2e/internal/collector"
	"otelmetricsplugin/e2e/internal/engine"
	"otelmetricsplugin/e2e/internal/registry"
)

// TestArrivesAfterInstallAndUpgradeFromARegistry does what a user does: install
// from a registry, set, enable, and later upgrade, which keeps the settings.
func TestArrivesAfterInstallAndUpgradeFromARegistry(t *testing.T) {
	e := sharedEngine(t)
	c := collector.New(t, nil)
	c.Start(t)
	r := registry.Start(t)
	p := e.InstallPlugin(t, "otelmetrics:installed", push(t, r, "v1"))
	configure(t, p, c)
	p.Enable(t)
	checkArrival(t, e, c)

	p.Disable(t)
	p.Upgrade(t, push(t, r, "v2"))
	p.Enable(t)
	checkArrival(t, e, c)
}

// push puts the plugin into the registry; the tag makes its rootfs another one.
func push(t *testing.T, r *registry.Registry, tag string) string {
	t.Helper()
	rootfs := engine.Archive(t,
		engine.File{Name: "otelmetricsplugin", Mode: 0o755, Data: read(t, program(t))},
		engine.File{Name: "tag", Mode: 0o644, Data: []byte(tag)},
	)
	return r.Push(t, "otelmetrics", tag, config(t, nil), rootfs.Bytes())
}
