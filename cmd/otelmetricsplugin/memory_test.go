package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"otelmetricsplugin/internal/delivery"
	"otelmetricsplugin/pkg/lifecycle"
)

// bound is what the program may hold on the page of an active swarm manager,
// with its Collector away.
const bound = 40 << 20

// away is a connection to a Collector that is away.
type away struct{ grpc.ClientConnInterface }

func (away) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return status.Error(codes.Unavailable, "nobody listens")
}

func TestMemoryIsFlatOverASimulatedWeekWithoutACollector(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(pages, "297-active.pb"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		queue, err := delivery.Open(delivery.Config{Conn: away{}, Dir: t.TempDir(), MaxBytes: 256 << 10, MaxBackoff: 10 * time.Minute, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		manager, err := lifecycle.New(lifecycle.Config{
			Scrape:      func(context.Context) ([]byte, error) { return page, nil },
			Delivery:    queue,
			Interval:    time.Hour,
			Instruments: queue.Register,
		})
		if err != nil {
			t.Fatal(err)
		}
		manager.Start()
		var heaps []uint64
		for range 7 {
			time.Sleep(24 * time.Hour) // fake time
			synctest.Wait()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heaps = append(heaps, m.HeapAlloc)
		}
		stats := queue.Stats()
		if err := manager.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := queue.Close(t.Context()); err != nil {
			t.Error(err)
		}
		// The first day fills the spool to its bound; nothing grows after that.
		first, last := heaps[1], heaps[len(heaps)-1]
		if last > first+first/10 || last > bound {
			t.Errorf("the heap at the end of each day is %v", heaps)
		}
		if stats.Dropped[delivery.DroppedQueueFull] == 0 || stats.QueuedRequests == 0 {
			t.Errorf("the spool was never full: %+v", stats)
		}
		t.Logf("the heap at the end of each day is %v bytes", heaps)
	})
}

// TestTheProcessStaysSmall... reads the resident memory of the program as it is
// shipped, without the race detector, from the kernel.
func TestTheProcessStaysSmallOnTheRealPageWithoutACollector(t *testing.T) {
	binary := shippedBinary(t)
	page, err := os.ReadFile(filepath.Join(pages, "297-active.pb"))
	if err != nil {
		t.Fatal(err)
	}
	reads := make(chan struct{}, 1000)
	url := serveCounted(t, delimited, page, reads)
	program := exec.CommandContext(t.Context(), binary, "run", "--interval=100ms")
	program.Env = []string{"OTLP_ENDPOINT=http://" + nobody(t), "SCRAPE_URL=" + url, "SPOOL_DIR=" + t.TempDir()}
	stderr := newLines()
	program.Stderr = stderr
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	for range 100 { // 25 minutes at the default interval
		select {
		case <-reads:
		case <-time.After(20 * time.Second):
			t.Fatalf("no scrape for 20 s: %s", stderr)
		}
	}
	resident := residentBytes(t, program.Process.Pid)
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("the program ended with %v: %s", err, stderr)
	}
	if resident > bound {
		t.Errorf("%d MiB are resident at most, the bound is %d MiB", resident>>20, bound>>20)
	}
	t.Logf("%d MiB are resident at most", resident>>20)
}

// residentBytes is the most memory that a process had resident.
func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no VmHWM in %s", text)
	return 0
}
