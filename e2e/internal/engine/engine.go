// Package engine runs Docker Engines that belong to a test: each with its own
// data root, exec root, socket and log, beside whatever engine the machine has
// and without a bridge or a firewall rule.
package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"otelmetricsplugin/e2e/internal/feed"
)

// patience bounds one step of an engine: a start, a stop, an API call.
const patience = 60 * time.Second

// Require skips the test with the reason where no engine can be started. With
// CI=true that is a failure.
func Require(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath(dockerd())
	switch {
	case err != nil:
		err = fmt.Errorf("no dockerd (Debian package docker.io; DOCKERD names another one): %w", err)
	case os.Geteuid() != 0:
		err = errors.New("dockerd must be started by root")
	default:
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func dockerd() string {
	if path := os.Getenv("DOCKERD"); path != "" {
		return path
	}
	return "dockerd"
}

// Engine is one dockerd, which may be stopped and started again.
type Engine struct {
	// Log holds every line that the daemon logged, over all its starts.
	Log feed.Feed[string]

	dir    string
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}  // closed when cmd has ended
	clean  []func() error // what Close undoes besides, last first
}

// Start runs a new engine with further dockerd flags until the end of the test.
func Start(t *testing.T, args ...string) *Engine {
	t.Helper()
	Require(t)
	e, err := New(args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close the engine in %s: %v", e.dir, err)
		}
	})
	return e
}

// open holds every engine that is not closed yet.
var open = struct {
	sync.Mutex
	engines map[*Engine]bool
}{engines: map[*Engine]bool{}}

// CloseAll closes every engine that is still open, for the end of the tests.
func CloseAll() error {
	open.Lock()
	engines := slices.Collect(maps.Keys(open.engines))
	open.Unlock()
	errs := make([]error, len(engines))
	for i, e := range engines {
		errs[i] = e.Close()
	}
	return errors.Join(errs...)
}

// New is Start for an engine that outlives a test: Close or CloseAll must be
// called.
func New(args ...string) (*Engine, error) {
	// Not t.TempDir: it is longer than a unix socket's path may be, and it
	// cannot be removed while the engine has mounts in it.
	dir, err := os.MkdirTemp("", "otelmetrics-e2e-")
	if err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, args: args}
	open.Lock()
	open.engines[e] = true
	open.Unlock()
	if err := e.start(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Socket is the engine's API socket.
func (e *Engine) Socket() string { return filepath.Join(e.dir, "docker.sock") }

// MetricsSocket is the socket whose page the engine hands to its metrics
// plugins (moby daemon/metrics_unix.go).
func (e *Engine) MetricsSocket() string { return filepath.Join(e.execRoot(), "metrics.sock") }

func (e *Engine) execRoot() string { return filepath.Join(e.dir, "exec") }

// Restart starts the daemon that Stop or Kill ended, and returns when its API
// answers.
func (e *Engine) Restart(t *testing.T) {
	t.Helper()
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
}

func (e *Engine) start() error {
	// An own configuration file, or /etc/docker/daemon.json would be read.
	config := filepath.Join(e.dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		return err
	}
	args := append([]string{
		"--config-file", config,
		"--data-root", filepath.Join(e.dir, "data"),
		"--exec-root", e.execRoot(),
		"--pidfile", filepath.Join(e.dir, "dockerd.pid"),
		"--host", "unix://" + e.Socket(),
		"--bridge=none", "--iptables=false",
	}, e.args...)
	e.cmd = exec.CommandContext(context.Background(), dockerd(), args...) //nolint:gosec // whoever runs the tests names the engine
	// A group of its own: Ctrl-C is for the test, which then stops the daemon
	// in its order. A test that dies without a word takes the daemon with it.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	e.cmd.Stdout, e.cmd.Stderr = w, w
	mark := e.Log.Len()
	if err := e.cmd.Start(); err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	if err := w.Close(); err != nil {
		return err
	}
	go e.follow(r)
	cmd, exited := e.cmd, make(chan struct{})
	e.exited = exited
	go func() {
		_ = cmd.Wait() // the status stands in cmd.ProcessState
		close(exited)
	}()
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, errors.New("dockerd is not ready"))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-exited:
			fail(fmt.Errorf("dockerd ended: %v", cmd.ProcessState))
		case <-ctx.Done():
		}
	}()
	_, _, err = e.Log.Wait(ctx, mark, func(line string) bool { return strings.Contains(line, "API listen on") })
	fail(nil)
	if err != nil {
		return fmt.Errorf("start dockerd in %s: %w; its log ends with\n%s", e.dir, err, e.Tail(40))
	}
	return nil
}

func (e *Engine) follow(r io.ReadCloser) {
	defer r.Close()
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		if line != "" {
			e.Log.Append(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return
		}
	}
}

// Stop ends the daemon with SIGTERM and returns when it has ended.
func (e *Engine) Stop(t *testing.T) {
	t.Helper()
	if err := e.end(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// Kill ends the daemon with SIGKILL and returns when it has ended.
func (e *Engine) Kill(t *testing.T) {
	t.Helper()
	if err := e.end(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (e *Engine) end(sig unix.Signal) error {
	if e.ended() {
		return nil
	}
	containerd := e.containerd()
	// Through os.Process: it never signals a pid that is no longer its own.
	if err := e.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to dockerd: %w", sig, err)
	}
	select {
	case <-e.exited:
	case <-time.After(patience):
		return fmt.Errorf("dockerd (pid %d) has not ended %v after %v", e.cmd.Process.Pid, patience, sig)
	}
	// The kernel kills containerd with its daemon. A daemon started while it is
	// still dying would take it for a running one and fail.
	return containerd.waitEnd()
}

// Close ends the engine and all that it runs, and removes all that it made. A
// second Close does nothing.
func (e *Engine) Close() error {
	open.Lock()
	is := open.engines[e]
	delete(open.engines, e)
	open.Unlock()
	if !is {
		return nil
	}
	var errs []error
	if e.ended() {
		// Only a daemon can take down what another one left running.
		errs = append(errs, e.start())
	}
	for _, undo := range slices.Backward(e.clean) {
		errs = append(errs, undo())
	}
	errs = append(errs, e.removePlugins())
	if err := e.end(unix.SIGTERM); err != nil {
		errs = append(errs, err, e.end(unix.SIGKILL))
	}
	return errors.Join(append(errs, e.endStrays(), e.unmount(), os.RemoveAll(e.dir))...)
}

func (e *Engine) ended() bool {
	select {
	case <-e.exited:
		return true
	default:
		return false
	}
}

// endStrays kills what outlived the daemon all the same: processes with the
// engine's directory in their command line (containerd and its shims), and
// their descendants (the plugins and containers).
func (e *Engine) endStrays() error {
	procs, err := processes()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range procs {
		if procs.descends(p, e.owns) {
			errs = append(errs, p.kill())
		}
	}
	return errors.Join(errs...)
}

// owns reports whether p is the engine's daemon, containerd or a shim.
func (e *Engine) owns(p process) bool { return strings.Contains(p.cmdline, e.dir+"/") }

// containerd is the engine's own containerd, the zero process if there is none.
func (e *Engine) containerd() process {
	procs, err := processes()
	if err != nil {
		return process{}
	}
	for _, p := range procs {
		if p.parent == e.cmd.Process.Pid && strings.Contains(p.cmdline, "containerd --config "+e.dir) {
			return p
		}
	}
	return process{}
}

// unmount detaches every mount below the engine's directory, the innermost
// first.
func (e *Engine) unmount() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
		fields := strings.Fields(line) // proc_pid_mountinfo(5): the fifth is the mount point
		if len(fields) > 4 && strings.HasPrefix(fields[4], e.dir+"/") {
			if err := unix.Unmount(fields[4], unix.MNT_DETACH); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", fields[4], err))
			}
		}
	}
	return errors.Join(errs...)
}

// Tail returns the last n lines of the daemon's log without grpc's chatter.
func (e *Engine) Tail(n int) string {
	lines := slices.DeleteFunc(e.Log.Since(0), func(line string) bool { return strings.Contains(line, "module=grpc") })
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
