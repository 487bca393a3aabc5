package translate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"google.golang.org/protobuf/proto"
)

// A step of the wall clock cannot be made with the times that a test can make,
// so this one fills in what a page takes from them.
func TestRule05_StepOfTheClockIsNoRestart(t *testing.T) {
	const second = int64(time.Second)
	began := time.Now()
	for _, tc := range []struct {
		name  string
		step  int64 // of the wall clock between the pages, in seconds
		start int64 // of the process at the second page, in seconds after the first one
		want  bool
	}{
		{"no step, no restart", 0, -60, false},
		{"no step, restart", 0, 5, true},
		// The kernel tells a start that moved with the clock.
		{"forward by an hour, no restart", 3600, 3600 - 60, false},
		{"forward by an hour, restart", 3600, 3600 + 5, true},
		{"back by an hour, no restart", -3600, -3600 - 60, false},
		{"back by an hour, restart", -3600, -3600 + 5, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wall := began.UnixNano()
			last := page{number: 1, at: began, now: wall, processStart: wall - 60*second}
			p := page{number: 2, at: began.Add(10 * time.Second), now: wall + (10+tc.step)*second}
			start := float64(wall/second + tc.start)
			p.findProcessStart([]*dto.MetricFamily{{
				Name:   proto.String(processStartTime),
				Type:   dto.MetricType_GAUGE.Enum(),
				Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: proto.Float64(start)}}},
			}}, last)
			if p.restarted != tc.want {
				t.Errorf("restarted %v, want %v", p.restarted, tc.want)
			}
		})
	}
}

func TestMemoryIsThatOfThePage(t *testing.T) {
	page := func(from, n int) []*dto.MetricFamily {
		var families []*dto.MetricFamily
		for f := range 3 {
			mf := &dto.MetricFamily{Name: proto.String(fmt.Sprint("f", f)), Type: dto.MetricType_COUNTER.Enum()}
			for i := range n {
				mf.Metric = append(mf.Metric, &dto.Metric{
					Label:   []*dto.LabelPair{{Name: proto.String("otel_scope_name"), Value: proto.String(fmt.Sprint("s", from+i))}},
					Counter: &dto.Counter{Value: proto.Float64(1)},
				})
			}
			families = append(families, mf)
		}
		return families
	}
	check := func(t *testing.T, tr *Translator, families, series, capacity int) {
		t.Helper()
		got := 0
		for _, f := range tr.families {
			got += len(f.series)
			if len(f.old) != 0 || f.index != nil {
				t.Errorf("%s remembers %d old series and an index of %d", f.name, len(f.old), len(f.index))
			}
			if cap(f.series) > capacity || cap(f.old) > capacity || len(f.groups) > series/families {
				t.Errorf("%s: room for %d and %d series, %d groups", f.name, cap(f.series), cap(f.old), len(f.groups))
			}
		}
		if len(tr.families) != families || got != series {
			t.Errorf("%d families with %d series, want %d with %d", len(tr.families), got, families, series)
		}
		if families > 0 && len(tr.scopes) != series/families || families == 0 && len(tr.scopes) != 0 {
			t.Errorf("%d scopes for %d series", len(tr.scopes), series)
		}
	}
	tr := New(Config{})
	for i := range 20 {
		tr.Translate(page(1000*i, 1000), time.Unix(int64(i), 0)) // other series every time
		check(t, tr, 3, 3000, 4000)
	}
	tr.Translate(page(0, 10), time.Unix(20, 0))
	check(t, tr, 3, 30, 40)
	tr.Missed(time.Unix(21, 0))
	check(t, tr, 3, 30, 40)
	tr.Translate(nil, time.Unix(22, 0))
	check(t, tr, 0, 0, 0)
}

func TestMemoryOfDeltasIsThatOfThePage(t *testing.T) {
	tr := New(Config{Temporality: sdkmetric.DeltaTemporalitySelector})
	page := func(n int) []*dto.MetricFamily {
		mf := &dto.MetricFamily{Name: proto.String("a"), Type: dto.MetricType_HISTOGRAM.Enum()}
		for i := range n {
			h := &dto.Histogram{SampleCount: proto.Uint64(10)}
			for b := range 9 {
				h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(float64(b)), CumulativeCount: proto.Uint64(1)})
			}
			mf.Metric = append(mf.Metric, &dto.Metric{
				Label:     []*dto.LabelPair{{Name: proto.String("l"), Value: proto.String(fmt.Sprint(i))}},
				Histogram: h,
			})
		}
		return []*dto.MetricFamily{mf}
	}
	const buckets = 10
	for i := range 20 {
		tr.Translate(page(1000), time.Unix(int64(i), 0))
		if got := cap(tr.arena.free); got > 4*1000*buckets {
			t.Fatalf("page %d: room for %d counts, the page has %d", i, got, 1000*buckets)
		}
	}
	for i := range 2 {
		tr.Translate(page(1), time.Unix(int64(20+i), 0))
	}
	if got := cap(tr.arena.free); got > minArena {
		t.Errorf("room for %d counts, the page has %d", got, buckets)
	}
}

func TestMemoryOfANativeHistogramIsThatOfItsBuckets(t *testing.T) {
	tr := New(Config{})
	page := func(buckets int) []*dto.MetricFamily {
		h := &dto.Histogram{PositiveSpan: []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(uint32(buckets))}}}
		for range buckets {
			h.PositiveDelta = append(h.PositiveDelta, 0)
		}
		return []*dto.MetricFamily{{
			Name: proto.String("a"), Type: dto.MetricType_HISTOGRAM.Enum(),
			Metric: []*dto.Metric{{Histogram: h}},
		}}
	}
	tr.Translate(page(1000), time.Unix(0, 0))
	tr.Translate(page(10), time.Unix(1, 0))
	if got := cap(tr.families["a"].series[0].exponential.positive.counts); got > 40 {
		t.Errorf("room for %d counts, the page has 10", got)
	}
}

func TestTextsThatEveryRequestRepeatsAreBounded(t *testing.T) {
	long := strings.Repeat("ä", 1<<20)
	var labels []*dto.LabelPair
	for i := range 1000 {
		labels = append(labels, &dto.LabelPair{Name: proto.String(fmt.Sprintf("a%03d", i)), Value: proto.String("v")})
	}
	one := func(name string, labels ...*dto.LabelPair) *dto.MetricFamily {
		return &dto.MetricFamily{
			Name: proto.String(name), Help: proto.String("x" + long), Unit: proto.String(long), Type: dto.MetricType_GAUGE.Enum(),
			Metric: []*dto.Metric{{Label: labels, Gauge: &dto.Gauge{Value: proto.Float64(1)}}},
		}
	}
	r := New(Config{}).Translate([]*dto.MetricFamily{
		one("engine_daemon_engine_info", &dto.LabelPair{Name: proto.String("version"), Value: proto.String("29")}),
		one("target_info", labels...),
	}, time.Unix(1, 0))
	m := r.Scopes[0].Metrics[0]
	if want := "x" + strings.Repeat("ä", 2047); m.Description != want {
		t.Errorf("the description has %d bytes, want %d", len(m.Description), len(want))
	}
	if want := strings.Repeat("ä", 32); m.Unit != want {
		t.Errorf("the unit has %d bytes, want %d", len(m.Unit), len(want))
	}
	if len(r.Resource) != maxResource || r.Resource[maxResource-1] != attribute.String("service.version", "29") {
		t.Errorf("the resource has %d attributes, the last %v", len(r.Resource), r.Resource[len(r.Resource)-1])
	}

	labels = labels[:4]
	for _, l := range labels {
		l.Value = proto.String(strings.Repeat("v", 8<<10))
	}
	r = New(Config{}).Translate([]*dto.MetricFamily{one("target_info", labels...)}, time.Unix(1, 0))
	if len(r.Resource) != 1 {
		t.Errorf("the resource has %d attributes of 8 KiB", len(r.Resource))
	}
}
