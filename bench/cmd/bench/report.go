//go:build linux

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// report collects results and writes them as tables.
type report struct {
	bench  *bench
	pages  []plan
	runs   map[key][]result
	failed map[key]error
	mu     sync.Mutex // guards memory
	memory []memoryCase
	begun  time.Time
}

type key struct {
	size int
	peer string
}

type memoryCase struct {
	program, what string
	rss, peak     int64
	err           error
}

func newReport(b *bench) *report {
	return &report{bench: b, runs: map[key][]result{}, failed: map[key]error{}, begun: time.Now()}
}

// addPage keeps one exposition of the page, for its size.
func (r *report) addPage(p plan) {
	set := *p.set
	set.Protobuf, set.Text = set.Protobuf[:1:1], set.Text[:1:1]
	p.set = &set
	r.pages = append(r.pages, p)
}

func (r *report) add(size int, p peer, got result, err error) {
	k := key{size, p.name}
	if err != nil {
		r.failed[k] = err
		return
	}
	r.runs[k] = append(r.runs[k], got)
}

func (r *report) addMemory(c memoryCase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory = append(r.memory, c)
}

// markdown returns all tables.
func (r *report) markdown() string {
	var b strings.Builder
	r.environment(&b)
	for _, p := range r.pages {
		r.table(&b, p)
	}
	if len(r.pages) > 1 {
		r.growth(&b)
	}
	if len(r.memory) > 0 {
		r.memoryTable(&b)
	}
	return b.String()
}

func (r *report) environment(b *strings.Builder) {
	fmt.Fprintf(b, "Measured on %s: %s.\n\n", r.begun.UTC().Format(time.DateOnly), machine())
	p := r.bench.programs
	fmt.Fprintf(b, "| program | version | binary |\n|---|---|---|\n")
	row := func(name, version, binary string) {
		if info, err := os.Stat(binary); err == nil {
			fmt.Fprintf(b, "| %s | %s | %s MiB |\n", name, cmp.Or(version, "?"), mib(float64(info.Size())))
		}
	}
	commit := ""
	if out, err := output(r.bench.root, "git", "describe", "--always", "--dirty", "--exclude", "*"); err == nil {
		commit = "commit " + out
	}
	row("otelmetricsplugin", commit, p.plugin)
	row("Collector: prometheus receiver, OTLP exporter", version(p.collector, "go.opentelemetry.io/collector/otelcol"), p.collector)
	row("contrib bridge, periodic reader, otlpmetricgrpc", version(p.bridge, "go.opentelemetry.io/contrib/bridges/prometheus"), p.bridge)
	row("vmagent", version(p.vmagent), p.vmagent)
	fmt.Fprintln(b)
}

func machine() string {
	var u unix.Utsname
	kernel := "?"
	if err := unix.Uname(&u); err == nil {
		kernel, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	}
	model := ""
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			if name, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
				model = " (" + strings.TrimSpace(value) + ")"
				break
			}
		}
	}
	return fmt.Sprintf("%d cores%s, Linux %s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}

// table has a row for each program on one page.
func (r *report) table(b *strings.Builder, p plan) {
	size := p.set.Samples
	fmt.Fprintf(b, "### %s samples\n\n", thousands(size))
	fmt.Fprintf(b, "%s data points in OTLP; %s MiB as protobuf, %s MiB as text; scraped every %v, %d times in each of %d runs. Medians (smallest–largest).\n\n",
		thousands(p.set.Points), mib(float64(len(p.set.Protobuf[0].Bytes))), mib(float64(len(p.set.Text[0].Bytes))), p.interval, p.scrapes, r.rounds(size))
	fmt.Fprintf(b, "| program | CPU ms per scrape | CPU s per 1M samples | of the Collector's | resident MiB | peak MiB | sent MiB per scrape |\n")
	fmt.Fprintf(b, "|---|---:|---:|---:|---:|---:|---:|\n")
	for _, peer := range wanted(r.bench.peers) {
		runs := r.runs[key{size, peer.name}]
		if len(runs) == 0 {
			if err := r.failed[key{size, peer.name}]; err != nil {
				reason, _, _ := strings.Cut(err.Error(), "; it said")
				fmt.Fprintf(b, "| %s | failed: %s | | | | | |\n", peer.name, reason)
			}
			continue
		}
		ms := spreadOf(runs, func(r result) float64 { return r.perScrape().Seconds() * 1e3 })
		ratio := "–"
		if base := r.runs[key{size, peer.baseline}]; len(base) > 0 {
			ratio = fmt.Sprintf("%.3f", ms.median/spreadOf(base, func(r result) float64 { return r.perScrape().Seconds() * 1e3 }).median)
		}
		fmt.Fprintf(b, "| %s | %s | %.3f | %s | %s | %s | %s |\n", peer.name, ms, ms.median/1e3*1e6/float64(size), ratio,
			mib(spreadOf(runs, func(r result) float64 { return float64(r.rss) }).median),
			mib(spreadOf(runs, func(r result) float64 { return float64(r.peak) }).median),
			mib(spreadOf(runs, func(r result) float64 { return float64(r.sent.Wire) / float64(r.scrapes) }).median))
	}
	fmt.Fprintln(b)
}

func (r *report) rounds(size int) (rounds int) {
	for k, runs := range r.runs {
		if k.size == size {
			rounds = max(rounds, len(runs))
		}
	}
	return rounds
}

// growth has a column for each page.
func (r *report) growth(b *strings.Builder) {
	fmt.Fprint(b, "### How the cost grows with the page\n\nCPU seconds per million samples, medians.\n\n| program |")
	for _, p := range r.pages {
		fmt.Fprintf(b, " %s |", thousands(p.set.Samples))
	}
	fmt.Fprintf(b, "\n|---|%s\n", strings.Repeat("---:|", len(r.pages)))
	for _, peer := range wanted(r.bench.peers) {
		fmt.Fprintf(b, "| %s |", peer.name)
		for _, p := range r.pages {
			runs := r.runs[key{p.set.Samples, peer.name}]
			if len(runs) == 0 {
				fmt.Fprint(b, " – |")
				continue
			}
			ms := spreadOf(runs, func(r result) float64 { return r.perScrape().Seconds() * 1e3 })
			fmt.Fprintf(b, " %.3f |", ms.median/1e3*1e6/float64(p.set.Samples))
		}
		fmt.Fprintln(b)
	}
	fmt.Fprintln(b)
}

func (r *report) memoryTable(b *strings.Builder) {
	fmt.Fprint(b, "### Resident memory\n\n| program | case | resident MiB | peak MiB |\n|---|---|---:|---:|\n")
	cases := slices.Clone(r.memory)
	slices.SortStableFunc(cases, func(a, b memoryCase) int { return cmp.Compare(a.program, b.program) })
	for _, c := range cases {
		if c.err != nil {
			reason, _, _ := strings.Cut(c.err.Error(), "; it said")
			fmt.Fprintf(b, "| %s | %s | failed: %s | |\n", c.program, c.what, strings.ReplaceAll(reason, "\n", " "))
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", c.program, c.what, mib(float64(c.rss)), mib(float64(c.peak)))
	}
	fmt.Fprintln(b)
}

// Between these lines of the document the tables are replaced.
const (
	beginMark = "<!-- what follows is written by make bench -->"
	endMark   = "<!-- end of what make bench writes -->"
)

// writeInto replaces the tables in a document.
func (r *report) writeInto(name string) error {
	text, err := os.ReadFile(name) //nolint:gosec // the flag names it
	if err != nil {
		return err
	}
	replaced, err := replaceTables(string(text), r.markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(replaced), 0o644) //nolint:gosec // a document
}

func replaceTables(text, tables string) (string, error) {
	before, rest, ok := strings.Cut(text, beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", fmt.Errorf("no lines %q and %q", beginMark, endMark)
	}
	return before + beginMark + "\n\n" + strings.TrimSpace(tables) + "\n\n" + endMark + after, nil
}

// spread is what several runs gave.
type spread struct{ median, least, most float64 }

// String has three significant digits.
func (s spread) String() string {
	if s.least == s.most {
		return digits(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", digits(s.median), digits(s.least), digits(s.most))
}

func spreadOf(runs []result, value func(result) float64) spread {
	values := make([]float64, len(runs))
	for i, r := range runs {
		values[i] = value(r)
	}
	slices.Sort(values)
	n := len(values)
	return spread{median: (values[(n-1)/2] + values[n/2]) / 2, least: values[0], most: values[n-1]}
}

func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func mib(bytes float64) string { return digits(bytes / (1 << 20)) }

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
