package main

import (
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
			{90 << 20, 0}, {80 << 20, 0}, // a large exposition
			{1 << 20, 1}, {1 << 20, 1}, // it shrank: once
			{3 << 20, 1}, {100, 1}, // small ones are not worth it
			{50 << 20, 1}, {10 << 20, 2}, // another peak
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
