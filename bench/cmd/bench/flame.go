//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"otelmetricsplugin/bench/internal/flame"
	"otelmetricsplugin/bench/internal/page"
)

// flameGraph watches the program's steady state with perf. The binary is built with symbols, which the usual one lacks.
func (b *bench) flameGraph(ctx context.Context) (err error) {
	const samples, warm, seconds = 100_000, 3, 20
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	withSymbols := filepath.Join(b.dir, "otelmetricsplugin")
	if err := command(ctx, b.root, nil, "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", withSymbols, "./cmd/otelmetricsplugin"); err != nil {
		return err
	}
	b.plugin = withSymbols
	s, err := newStation(ctx, b.dir, nil)
	if err != nil {
		return err
	}
	defer s.close()
	set, err := page.Encode(samples, warm+seconds+2)
	if err != nil {
		return err
	}
	s.server.Show(set)
	process, err := startPlugin("none")(ctx, s, b.programs, time.Second)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, process.Stop(10*time.Second)) }()
	if err := waitServed(ctx, s.server, process, warm); err != nil {
		return err
	}
	data := filepath.Join(b.dir, "perf.data")
	if err := command(ctx, b.dir, nil, "perf", "record", "--quiet", "-e", "cpu-clock", "-F", "1999", "--call-graph", "fp",
		"-p", strconv.Itoa(process.PID()), "-o", data, "--", "sleep", strconv.Itoa(seconds)); err != nil {
		return err
	}
	script := exec.CommandContext(ctx, "perf", "script", "-i", data, "-F", "comm,ip,sym") //nolint:gosec // a file of its own
	script.Stderr = os.Stderr
	text, err := script.StdoutPipe()
	if err != nil {
		return err
	}
	if err := script.Start(); err != nil {
		return err
	}
	stacks, err := flame.FromPerf(text)
	if err = errors.Join(err, script.Wait()); err != nil {
		return err
	}
	file, err := os.Create(b.flame)
	if err != nil {
		return err
	}
	title := fmt.Sprintf("otelmetricsplugin: CPU time of %d scrapes of %s samples, no compression", seconds, thousands(samples))
	return errors.Join(flame.Write(file, stacks, title, ""), file.Close())
}
