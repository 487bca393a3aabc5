package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// limitFootprint keeps the program small, because it is a guest on the host that
// it measures: at most one core, and memory close to what is in use. One core
// also saves the wake-ups of idle threads, a fifth of the CPU at small
// expositions. Nothing is allocated for a sample in the steady state, so
// frequent garbage collections cost little. GOMAXPROCS and GOGC, where set, win.
func limitFootprint() {
	const gcPercent = 30
	if smaps, err := os.ReadFile("/proc/self/smaps"); err == nil {
		programFile = cleanMappings(string(smaps))
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// footprint gives memory back to the system after a peak: what it took is free
// by then, but would stay resident. The first peak is the start of the program;
// after it, expositions that have become much smaller end one.
type footprint struct {
	release func()
	started bool
	peak    int // bytes of the largest exposition since the last release
}

// settleTime is for how long parts of a peak may still be in use: delivery
// recycles its buffers for up to 20 s.
const settleTime = 25 * time.Second

// saw notes the size of an exposition.
func (f *footprint) saw(size int) {
	const worthIt = 4 << 20
	if !f.started || f.peak > worthIt && size < f.peak/4 {
		time.AfterFunc(settleTime, f.release)
		f.started, f.peak = true, 0
	}
	f.peak = max(f.peak, size)
}

// programFile is where the program's file is mapped. It is read before the
// process confines itself.
var programFile []mapping

// releaseMemory gives back what the heap does not use, and the pages of the
// program's file: most of what the start needed, a third of the resident memory,
// is not needed again. The rest comes back from the page cache.
func releaseMemory() {
	debug.FreeOSMemory()
	for _, m := range programFile {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// cleanMappings returns where a file is mapped that cannot be written there and
// has not been, as by a linker's relocations: only there a page that is dropped
// comes back as it was. The text is that of /proc/self/smaps, see proc(5).
func cleanMappings(smaps string) []mapping {
	var clean []mapping
	var m mapping
	var ofFile bool
	for line := range strings.Lines(smaps) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 6 && !strings.HasSuffix(fields[0], ":"):
			start, end, _ := strings.Cut(fields[0], "-")
			m = mapping{address(start), address(end)}
			ofFile = strings.HasPrefix(fields[1], "r-") && strings.HasPrefix(fields[5], "/")
		case len(fields) > 1 && fields[0] == "Anonymous:" && fields[1] == "0" && ofFile:
			clean = append(clean, m)
		}
	}
	return clean
}

func address(hex string) uintptr {
	n, _ := strconv.ParseUint(hex, 16, strconv.IntSize)
	return uintptr(n)
}
