package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The benchmarks start the program as it is shipped, once an iteration, and
// report medians: the time that passed, which an engine that enables the plugin
// waits for, and the processor time, which a busy machine does not change much.

// BenchmarkRun_FirstExport measures from the start of the process to the arrival
// of its first request.
func BenchmarkRun_FirstExport(b *testing.B) {
	binary, collector, page := shippedBinary(b), startCollector(b), startPage(b)
	var took, used []time.Duration
	for b.Loop() {
		program := exec.Command(binary, "run", "--interval=1h")
		program.Env = []string{"OTLP_ENDPOINT=http://" + collector.address, "SCRAPE_URL=" + page.url, "SPOOL_DIR=" + shortDir(b)}
		began := time.Now()
		if err := program.Start(); err != nil {
			b.Fatal(err)
		}
		<-collector.requests
		took = append(took, time.Since(began))
		_ = program.Process.Kill()
		_ = program.Wait() // killed
		used = append(used, program.ProcessState.UserTime()+program.ProcessState.SystemTime())
	}
	reportMedians(b, took, used)
}

// BenchmarkPlugin_Ready measures from the start of the process to the moment from
// which its socket takes connections.
func BenchmarkPlugin_Ready(b *testing.B) {
	binary := shippedBinary(b)
	var took, used []time.Duration
	for b.Loop() {
		dir := shortDir(b)
		socket := filepath.Join(dir, "p.sock")
		program := exec.Command(binary)
		program.Env = []string{"PLUGIN_SOCKET=" + socket, "SPOOL_DIR=" + filepath.Join(dir, "lib"), "SCRAPE_URL=unix://" + filepath.Join(dir, "m.sock")}
		began := time.Now()
		if err := program.Start(); err != nil {
			b.Fatal(err)
		}
		for {
			conn, err := net.Dial("unix", socket)
			if err == nil {
				took = append(took, time.Since(began))
				_ = conn.Close()
				break
			}
			if time.Since(began) > 20*time.Second {
				b.Fatal(err)
			}
			time.Sleep(100 * time.Microsecond) // another process starts to listen: there is no event to await
		}
		_ = program.Process.Kill()
		_ = program.Wait() // killed
		used = append(used, program.ProcessState.UserTime()+program.ProcessState.SystemTime())
	}
	reportMedians(b, took, used)
}

func reportMedians(b *testing.B, took, used []time.Duration) {
	b.Helper()
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2].Microseconds()) / 1000
	}
	b.ReportMetric(median(took), "ms/median")
	b.ReportMetric(median(used), "cpu-ms/median")
}
