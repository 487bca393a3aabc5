package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is what /proc says of one process.
type process struct {
	pid, parent int
	cmdline     string // arguments joined by spaces
	cgroup      string // a line for each hierarchy
}

type processTable map[int]process

// processes lists the processes of the machine. One that ends while it is
// looked at is left out.
func processes() (processTable, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	table := processTable{}
	for _, dir := range dirs {
		p, err := readProcess(dir)
		if err != nil {
			continue
		}
		table[p.pid] = p
	}
	return table, nil
}

func readProcess(dir string) (p process, err error) {
	proc := os.DirFS(dir)
	stat, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return p, err
	}
	// proc_pid_stat(5): "pid (comm) state ppid ..."; comm may hold anything.
	var state string
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	if _, err := fmt.Sscan(string(rest), &state, &p.parent); err != nil {
		return p, err
	}
	if p.pid, err = strconv.Atoi(filepath.Base(dir)); err != nil {
		return p, err
	}
	cmdline, err := fs.ReadFile(proc, "cmdline")
	if err != nil {
		return p, err
	}
	p.cmdline = strings.ReplaceAll(strings.TrimRight(string(cmdline), "\x00"), "\x00", " ")
	cgroup, err := fs.ReadFile(proc, "cgroup")
	p.cgroup = string(cgroup)
	return p, err
}

// descends reports whether p or one of its ancestors matches.
func (table processTable) descends(p process, match func(process) bool) bool {
	for ok := true; ok; p, ok = table[p.parent] {
		if match(p) {
			return true
		}
	}
	return false
}

// kill ends p with SIGKILL and waits until it has ended.
func (p process) kill() error {
	if err := unix.Kill(p.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %q: %w", p.cmdline, err)
	}
	return p.waitEnd()
}

// waitEnd waits until p has ended and its parent has taken notice: before that
// the pid still counts as a process.
func (p process) waitEnd() error {
	if p.pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d, %q: %w", p.pid, p.cmdline, err)
	}
	defer unix.Close(fd)
	// A pidfd becomes readable when its process ends.
	deadline := time.Now().Add(patience)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("watch process %d, %q: %w", p.pid, p.cmdline, err)
		case n == 0:
			return fmt.Errorf("process %d, %q, has not ended within %v", p.pid, p.cmdline, patience)
		default:
			return p.waitReaped(deadline)
		}
	}
}

// waitReaped polls: nothing tells when a parent reaps its child.
func (p process) waitReaped(deadline time.Time) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !errors.Is(unix.Kill(p.pid, 0), unix.ESRCH) {
		if now := <-tick.C; now.After(deadline) {
			return fmt.Errorf("process %d, %q, has ended, but was not reaped within %v", p.pid, p.cmdline, patience)
		}
	}
	return nil
}
