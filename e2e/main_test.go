// Package e2e proves the plugin against a real Docker Engine and a real
// OpenTelemetry Collector. README.md says what it needs.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"otelmetricsplugin/e2e/internal/engine"
)

// patience bounds each wait for something that is expected to happen. It is
// never waited out unless the test fails.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		cleanUp()
		os.Exit(1)
	}()
	code := m.Run()
	if !cleanUp() {
		code = 1
	}
	os.Exit(code)
}

// cleanUp ends and removes what outlives a test.
func cleanUp() (ok bool) {
	if err := errors.Join(engine.CloseAll(), os.RemoveAll(built.dir)); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		return false
	}
	return true
}

// waiting bounds a wait of the test; what says what is waited for.
func waiting(t *testing.T, what string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("waited for "+what))
	t.Cleanup(cancel)
	return ctx
}

var shared struct {
	once   sync.Once
	engine *engine.Engine
	err    error
}

// sharedEngine is the one engine for all tests that do not break it, the
// manager of a swarm: that gives it most of the families that there are.
func sharedEngine(t *testing.T) *engine.Engine {
	t.Helper()
	engine.Require(t)
	shared.once.Do(func() {
		shared.engine, shared.err = engine.New()
		if shared.err == nil {
			shared.engine.InitSwarm(t)
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.engine
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// program is the plugin's binary, built once from the tree above.
func program(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "otelmetrics-e2e-build-"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-trimpath", "-o", built.dir+string(filepath.Separator), "./cmd/otelmetricsplugin")
		build.Dir = ".."
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the plugin: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "otelmetricsplugin")
}

// config is the plugin's own config.json, with the given keys replaced.
func config(t *testing.T, replace map[string]any) []byte {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(read(t, "../config.json"), &fields); err != nil {
		t.Fatalf("config.json: %v", err)
	}
	for key, value := range replace {
		if _, ok := fields[key]; !ok {
			t.Fatalf("config.json has no %q to replace", key)
		}
		fields[key] = value
	}
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
