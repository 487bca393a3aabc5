//go:build linux

// Package proc runs the programs that are measured, one process each, and reads what the kernel knows about them.
package proc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a running program.
type Process struct {
	cmd  *exec.Cmd
	log  tail
	done chan struct{}
}

// Start runs a program with these variables as its whole environment. It is killed when ctx ends.
func Start(ctx context.Context, env []string, program string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.CommandContext(ctx, program, args...), done: make(chan struct{})} //nolint:gosec // it runs what the driver names
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Log is the end of what the program wrote.
func (p *Process) Log() string { return p.log.String() }

// Stop sends SIGTERM, and SIGKILL if the program still runs after the grace period.
func (p *Process) Stop(grace time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("still running %v after SIGTERM", grace)
	}
}

// CPU is the time that all threads of the process, past ones included, spent on a CPU in user and kernel mode, by the
// scheduler's clock: in nanoseconds, where /proc/PID/stat has hundredths of a second.
func (p *Process) CPU() (time.Duration, error) { return cpu(p.cmd.Process.Pid) }

func cpu(pid int) (time.Duration, error) {
	const perProcessScheduled = 2          // CPUCLOCK_SCHED, without the bit for a single thread
	clock := ^pid<<3 | perProcessScheduled // as clock_getcpuclockid(3) makes it
	var t unix.Timespec
	if err := unix.ClockGettime(int32(clock), &t); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// Status is the part of /proc/PID/status that is measured.
type Status struct {
	// RSS is resident now, Peak the most that ever was, in bytes.
	RSS, Peak int64
	Threads   int
}

// Status reads /proc/PID/status.
func (p *Process) Status() (Status, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return Status{}, err
	}
	return parseStatus(text)
}

func parseStatus(text []byte) (s Status, err error) {
	found := 0
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		switch key {
		case "VmRSS", "VmHWM", "Threads":
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				return s, fmt.Errorf("%s in status: %w", key, err)
			}
			found++
			switch key {
			case "VmRSS":
				s.RSS = n << 10
			case "VmHWM":
				s.Peak = n << 10
			case "Threads":
				s.Threads = int(n)
			}
		}
	}
	if found != 3 {
		return s, errors.New("status has no VmRSS, VmHWM or Threads")
	}
	return s, nil
}

// Files is the number of open file descriptors.
func (p *Process) Files() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	return len(entries), err
}

// tail keeps the last few kilobytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write appends, and forgets what is old.
func (t *tail) Write(b []byte) (int, error) {
	const most = 8 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - most; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
