//go:build linux

package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// vmagent is built from its own module, with the versions that it is released with.
const vmagentPackage = "github.com/VictoriaMetrics/VictoriaMetrics/app/vmagent@v1.151.0"

// programs are the paths of what is measured; vmagent is empty where it cannot be built.
type programs struct {
	plugin, collector, bridge, floor, vmagent string
	// collectorFormat is the exposition format that the Collector asks for, as scrape_protocols has it.
	collectorFormat string
}

func build(ctx context.Context, o options) (p programs, err error) {
	bin := filepath.Join(o.root, "bin", "bench")
	p = programs{
		plugin:    o.program,
		collector: filepath.Join(bin, "collector"),
		bridge:    filepath.Join(bin, "bridge"),
		floor:     filepath.Join(bin, "floor"),
		vmagent:   filepath.Join(bin, "vmagent"),

		collectorFormat: o.collectorFormat,
	}
	if p.plugin == "" {
		p.plugin = filepath.Join(o.root, "bin", "otelmetricsplugin")
		if err := command(ctx, o.root, nil, "make", "build"); err != nil {
			return p, err
		}
	} else if p.plugin, err = filepath.Abs(p.plugin); err != nil {
		return p, err
	}
	if o.soak > 0 || o.flame != "" {
		return p, nil
	}
	// The tag leaves out the prometheus receiver's service discovery, which is not used: a smaller and cheaper Collector.
	err = command(ctx, filepath.Join(o.root, "bench"), nil, "go", "build", "-trimpath", "-tags", "remove_all_sd", "-ldflags", "-s -w", "-o", bin+"/",
		"./cmd/collector", "./cmd/bridge", "./cmd/floor")
	if err != nil {
		return p, err
	}
	if version(p.vmagent) != "" {
		return p, nil
	}
	if err := command(ctx, os.TempDir(), []string{"GOBIN=" + bin}, "go", "install", "-trimpath", "-ldflags", "-s -w", vmagentPackage); err != nil {
		progress("vmagent is left out: %v", err)
		p.vmagent = ""
	}
	return p, nil
}

// command runs a build step with further variables.
func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	progress("%s %s", name, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // it runs what the driver names
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// version is the one of a binary's module, or of one that is linked into it.
func version(binary string, module ...string) string {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return ""
	}
	if len(module) == 0 {
		return info.Main.Version
	}
	for _, dependency := range info.Deps {
		if dependency.Path == module[0] {
			return dependency.Version
		}
	}
	return ""
}

// output is what a command says.
func output(dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(context.Background(), name, args...) //nolint:gosec // it runs what the driver names
	cmd.Dir = dir
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
