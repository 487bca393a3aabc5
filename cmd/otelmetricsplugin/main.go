// Command otelmetricsplugin sends everything a Docker Engine knows about itself
// to an OpenTelemetry Collector. Without a command it is the managed plugin;
// see the README for the others.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"otelmetricsplugin/internal/logging"
	"otelmetricsplugin/internal/settings"
	"otelmetricsplugin/pkg/lifecycle"
)

// Exit codes.
const (
	exitDone     = 0
	exitFailed   = 1 // at run time
	exitSettings = 2 // bad settings or command line
	exitStale    = 3 // the metrics socket is stale and a restart is wanted
)

func main() {
	limitFootprint()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the program with its arguments and returns its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	p := &program{stdout: stdout, stderr: stderr, given: map[string]string{}}
	line, err := p.parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		writeHelp(stdout, line)
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "otelmetricsplugin: %v; see otelmetricsplugin --help\n", err)
		return exitSettings
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return line.run(ctx)
}

// program is what a command runs with.
type program struct {
	stdout, stderr io.Writer
	given          map[string]string // the settings that were given as flags, by their variable
}

// lookup returns a setting as given; a flag wins over its variable.
func (p *program) lookup(name string) string {
	if text, ok := p.given[name]; ok {
		return text
	}
	return os.Getenv(name)
}

// withSettings reads the settings, does the work and returns the exit code.
// What is logged below warn goes to info, the rest to stderr.
func (p *program) withSettings(info io.Writer, work func(*settings.Settings, *slog.Logger) error) int {
	s, err := settings.Read(p.lookup)
	if err != nil {
		fmt.Fprintln(p.stderr, "otelmetricsplugin:", err)
		return exitSettings
	}
	// The SDK and the exporter would read the same variables once more, by
	// rules of their own, and silently differ from what was validated.
	unused := settings.Unused(os.Environ())
	for _, name := range append(settings.Variables(), unused...) {
		_ = os.Unsetenv(name)
	}

	logger, closeLog := logging.New(s.LogLevel, s.LogFormat, info, p.stderr)
	defer flush(closeLog)
	logging.Adopt(logger)
	if len(unused) > 0 {
		logger.Warn("these variables of OpenTelemetry are not used", "names", unused, "remedy", "docs/settings.md has those that are")
	}

	if needsPublicRoots(s) {
		x509.SetFallbackRoots(publicRoots()) // once per process
	}

	switch err := work(s, logger); {
	case errors.Is(err, lifecycle.ErrStale):
		logger.Error(err.Error())
		return exitStale
	case err != nil:
		logger.Error("failed", "error", err)
		return exitFailed
	}
	return exitDone
}

// flush writes what is left of the log, as long as somebody reads it.
func flush(closeLog func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	closeLog(ctx)
}
