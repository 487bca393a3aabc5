//go:build linux

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/bench/internal/page"
	"otelmetricsplugin/bench/internal/proc"
	"otelmetricsplugin/bench/internal/sink"
)

func TestReport_Table(t *testing.T) {
	set, err := page.Encode(500, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := newReport(&bench{options: options{peers: pluginPlain + "," + collectorPlain}})
	r.addPage(plan{set: set, interval: time.Second, scrapes: 10})
	run := func(cpu time.Duration) result {
		return result{scrapes: 10, cpu: cpu, rss: 16 << 20, peak: 20 << 20, sent: sink.Counts{Wire: 10 << 20}}
	}
	for _, p := range wanted(r.bench.peers) {
		switch p.name {
		case pluginPlain:
			for _, took := range []time.Duration{8 * time.Millisecond, 12 * time.Millisecond, 9 * time.Millisecond} {
				r.add(500, p, run(took), nil)
			}
		case collectorPlain:
			r.add(500, p, run(90*time.Millisecond), nil)
		case collectorGzip:
			r.add(500, p, result{}, errors.New("ended; it said: a long story"))
		}
	}
	var b strings.Builder
	r.table(&b, r.pages[0])
	for _, want := range []string{
		"| otelmetricsplugin | 0.90 (0.80–1.20) | 1.800 | 0.100 | 16.0 | 20.0 | 1.00 |\n",
		"| Collector | 9.00 | 18.000 | 1.000 | 16.0 | 20.0 | 1.00 |\n",
		"| Collector, gzip | failed: ended |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %q in\n%s", want, &b)
		}
	}
}

func TestReplaceTables(t *testing.T) {
	text := "before\n" + beginMark + "\nold\n" + endMark + "\nafter\n"
	want := "before\n" + beginMark + "\n\nnew\n\n" + endMark + "\nafter\n"
	if got, err := replaceTables(text, "\nnew\n\n"); got != want || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := replaceTables("no marks", "new"); err == nil {
		t.Error("a document without marks is not an error")
	}
}

func TestSpread(t *testing.T) {
	var runs []result
	for _, n := range []int64{4, 1, 3, 2} {
		runs = append(runs, result{rss: n})
	}
	got := spreadOf(runs, func(r result) float64 { return float64(r.rss) })
	if want := (spread{median: 2.5, least: 1, most: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := thousands(1_000_000) + thousands(500); got != "1,000,000500" {
		t.Error(got)
	}
}

func TestLedger(t *testing.T) {
	l := &ledger{arrived: map[int]int{}, failed: map[int64]bool{}}
	request := func(number float64, up int64, at uint64) []byte {
		data, err := proto.Marshal(&collectorpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricspb.ResourceMetrics{{
			ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{
				{Name: page.NumberName, Data: &metricspb.Metric_Sum{Sum: &metricspb.Sum{DataPoints: []*metricspb.NumberDataPoint{
					{TimeUnixNano: at, Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: number}},
				}}}},
				{Name: "up", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{
					{TimeUnixNano: at, Value: &metricspb.NumberDataPoint_AsInt{AsInt: up}},
				}}}},
			}}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, r := range [][]byte{request(1, 1, 1), request(2, 1, 2), request(2, 1, 2), request(9, 0, 3), request(9, 0, 3)} {
		if err := l.observe(r); err != nil {
			t.Fatal(err)
		}
	}
	l.setRefuse(true)
	if l.observe(request(3, 1, 4)) == nil {
		t.Error("a request was taken while requests are refused")
	}
	if missing, repeated, failed := l.compare([]int{1, 2, 3}); missing != 1 || repeated != 1 || failed != 1 {
		t.Errorf("%d missing, %d repeated, %d failed; want 1 each", missing, repeated, failed)
	}
}

func TestFlat(t *testing.T) {
	samples := func(rss ...int64) (s []soakSample) {
		for _, r := range rss {
			s = append(s, soakSample{Status: proc.Status{RSS: r << 20, Threads: 8}, files: 10})
		}
		return s
	}
	if err := flat(samples(10, 20, 21, 20, 21, 20, 21, 20)); err != nil {
		t.Error(err)
	}
	if err := flat(samples(10, 20, 21, 22, 24, 26, 28, 30)); err == nil {
		t.Error("memory that grows is flat")
	}
	leak := samples(10, 10, 10, 10)
	for i := range leak {
		leak[i].files += 10 * i
		leak[i].Threads += 10 * i
	}
	if err := flat(leak); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("files and threads that grow: %v", err)
	}
	if err := flat(samples(1, 100)); err != nil {
		t.Error("two samples say nothing")
	}
}
