package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFootprint_ReleasesAfterAPeakAndOnlyThen(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		var released atomic.Int32
		f := &footprint{release: func() { released.Add(1) }}
		steps := []struct {
			size int
			want int32
		}{
			{100, 1}, {100, 1}, // the start is a peak
			{90 << 20, 1}, {80 << 20, 1}, // a large exposition
			{1 << 20, 2}, {1 << 20, 2}, // it shrank: once
			{3 << 20, 2}, {100, 2}, // small ones are not worth it
			{50 << 20, 2}, {10 << 20, 3}, // another peak
		}
		for i, step := range steps {
			f.saw(step.size)
			time.Sleep(2 * settleTime) // fake time
			if released := released.Load(); released != step.want {
				t.Errorf("step %d: released %d times, want %d", i, released, step.want)
			}
		}
	})
}

func TestCleanMappings_OnlyWhatComesBackAsItWas(t *testing.T) {
	const smaps = `00400000-00b3c000 r-xp 00000000 fe:00 1234                               /otelmetricsplugin
Size:               7408 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00b3c000-0117f000 r--p 0073c000 fe:00 1234                               /otelmetricsplugin
Anonymous:             0 kB
0117f000-011e0000 r--p 00d7f000 fe:00 1234                               /otelmetricsplugin
Anonymous:           388 kB
011e0000-01250000 rw-p 00de0000 fe:00 1234                               /otelmetricsplugin
Anonymous:             0 kB
01250000-01290000 rw-p 00000000 00:00 0
Anonymous:            40 kB
7ffd3a1f1000-7ffd3a1f3000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0xb3c000}, {0xb3c000, 0x117f000}}
	if got := cleanMappings(smaps); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestReleaseMemory_DropsTheProgramsPages(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	fileBytes := func() (n int) {
		_, rest, _ := strings.Cut(read("/proc/self/status"), "RssFile:")
		if _, err := fmt.Sscanf(rest, "%d kB", &n); err != nil {
			t.Fatal(err)
		}
		return n << 10
	}
	defer func(before []mapping) { programFile = before }(programFile)
	programFile = cleanMappings(read("/proc/self/smaps"))
	before := fileBytes()
	releaseMemory()
	if after := fileBytes(); before-after < 1<<20 {
		t.Errorf("%d bytes of files are resident, %d before", after, before)
	}
}
