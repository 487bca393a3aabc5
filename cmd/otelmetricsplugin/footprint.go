package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// limitFootprint keeps the program small, because it is a guest on the host that
// it measures: at most one core, and memory close to what is in use. One core
// also saves the wake-ups of idle threads, a fifth of the CPU at small
// expositions. Nothing is allocated for a sample in the steady state, so
// frequent garbage collections cost little. GOMAXPROCS and GOGC, where set, win.
func limitFootprint() {
	const gcPercent = 30
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// footprint gives memory back to the system when expositions have become much
// smaller: what a peak took is free by then, but would stay resident.
type footprint struct {
	release func()
	peak    int // bytes of the largest exposition since the last release
}

// settleTime is for how long parts of a peak may still be in use: delivery
// recycles its buffers for up to 20 s.
const settleTime = 25 * time.Second

// saw notes the size of an exposition.
func (f *footprint) saw(size int) {
	const worthIt = 4 << 20
	if f.peak > worthIt && size < f.peak/4 {
		time.AfterFunc(settleTime, f.release)
		f.peak = 0
	}
	f.peak = max(f.peak, size)
}
