//go:build linux

package proc

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCPU compares the clock with getrusage, which knows this process only.
func TestCPU(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	read := func() time.Duration {
		d, err := cpu(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	var work string
	for begin := used(); used()-begin < 50*time.Millisecond; {
		work = strings.Repeat("x", 1000)
	}
	if len(work) == 0 {
		t.Fatal("no work was done")
	}
	before, clock, after := used(), read(), used()
	// getrusage rounds to microseconds; user and system time are rounded one by one.
	if clock < before-10*time.Microsecond || clock > after+10*time.Microsecond {
		t.Errorf("the CPU clock says %v, getrusage %v and then %v", clock, before, after)
	}
	if _, err := cpu(1 << 22); err == nil {
		t.Error("a process that cannot exist has a CPU clock")
	}
}

func TestParseStatus(t *testing.T) {
	text := "Name:\tx\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nRssAnon:\t 1 kB\nThreads:\t7\n"
	got, err := parseStatus([]byte(text))
	if want := (Status{RSS: 10 << 20, Peak: 20 << 20, Threads: 7}); got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "Name:\tx\nThreads:\t1\n", strings.Replace(text, "10240", "many", 1)} {
		if got, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q gives %+v", bad, got)
		}
	}
}

func TestProcess(t *testing.T) {
	p, err := Start(t.Context(), nil, "/bin/sh", "-c", "echo started; exec sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := p.Status(); err != nil || s.RSS == 0 || s.Threads == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if n, err := p.Files(); err != nil || n < 3 {
		t.Errorf("%d files, %v", n, err)
	}
	if err := p.Stop(10 * time.Second); err != nil {
		t.Error(err)
	}
	if _, err := p.CPU(); err == nil {
		t.Error("an ended process has a CPU clock")
	}
}
