package translate_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/internal/otlp"
	"otelmetricsplugin/pkg/translate"
)

// stepped returns t after a step of the wall clock, which its monotonic reading
// shows nothing of. No function of package time makes such a time.
func stepped(t *testing.T, at time.Time, seconds int64) time.Time {
	t.Helper()
	after := at
	// The first word of a time with a monotonic reading: 1 bit that there is
	// one, 33 bits of seconds, 30 bits of nanoseconds.
	*(*uint64)(unsafe.Pointer(&after)) += uint64(seconds) << 30
	if after.Sub(at) != 0 || after.Unix()-at.Unix() != seconds {
		t.Fatal("package time keeps its times in another form now")
	}
	return after
}

func TestRule05_StepOfTheClockIsNoRestart(t *testing.T) {
	for _, tc := range []struct {
		name  string
		step  int64 // of the wall clock between the expositions, in seconds
		start int64 // of the process on the second one, in seconds after the first one
		want  bool
	}{
		{"no step, no restart", 0, -60, false},
		{"no step, restart", 0, 5, true},
		// The kernel's start time moved with the clock.
		{"forward by an hour, no restart", 3600, 3600 - 60, false},
		{"forward by an hour, restart", 3600, 3600 + 5, true},
		{"back by an hour, no restart", -3600, -3600 - 60, false},
		{"back by an hour, restart", -3600, -3600 + 5, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			page := func(start int64, value float64) []byte {
				return encode(t,
					family("a", dto.MetricType_COUNTER, counter(value)),
					family("process_start_time_seconds", dto.MetricType_GAUGE, gauge(float64(began.Unix()+start))))
			}
			for name, newImplementation := range implementations {
				tr := newImplementation(translate.Config{})
				tr.translate(t, page(-60, 5), began)
				r := tr.translate(t, page(tc.start, 7), stepped(t, began.Add(10*time.Second), tc.step))
				p := r.scopes()[0].Metrics[0].GetSum().DataPoints[0]
				// The start of the first process is kept unless there is another one.
				start := int64(p.StartTimeUnixNano/1e9) - began.Unix()
				if restarted := start != -60; restarted != tc.want && p.StartTimeUnixNano != 0 {
					t.Errorf("%s: start %d, restarted %v, want %v", name, start, restarted, tc.want)
				}
			}
		})
	}
}

// held returns how many bytes of the heap tr holds.
func held(tr *translate.Translator) int64 {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	with := heap()
	*tr = translate.Translator{}
	return with - heap()
}

// translateEach translates expositions, one a second, and returns the translator.
func translateEach(cfg translate.Config, expositions ...[]byte) *translate.Translator {
	tr := translate.New(cfg)
	w := otlp.NewWriter(partSize, func([]byte, int) {})
	for i, exposition := range expositions {
		tr.Translate(exposition, at(float64(i)), w)
		w.Close()
	}
	return tr
}

func TestMemoryIsThatOfThePage(t *testing.T) {
	page := func(from, n int) []byte {
		var families []*dto.MetricFamily
		for f := range 3 {
			mf := family(fmt.Sprint("f", f), dto.MetricType_COUNTER)
			for i := range n {
				mf.Metric = append(mf.Metric, counter(1, "otel_scope_name", fmt.Sprint("s", from+i)))
			}
			families = append(families, mf)
		}
		return encode(t, families...)
	}
	var others [][]byte
	for i := range 20 {
		others = append(others, page(1000*i, 1000)) // other series every time
	}
	one := held(translateEach(translate.Config{}, others[0]))
	if twenty := held(translateEach(translate.Config{}, others...)); twenty > 3*one {
		t.Errorf("%d KiB after one exposition, %d KiB after 20 of its size", one>>10, twenty>>10)
	}
	small := encode(t, family("f0", dto.MetricType_COUNTER, counter(1)))
	alone := held(translateEach(translate.Config{}, small))
	if got := held(translateEach(translate.Config{}, append(others, small, small)...)); got > alone+32<<10 {
		t.Errorf("%d KiB after a small exposition, %d KiB where larger ones came before", alone>>10, got>>10)
	}
	if got := held(translateEach(translate.Config{}, append(others, nil)...)); got > 32<<10 {
		t.Errorf("%d KiB after an empty exposition", got>>10)
	}
}

func TestMemoryOfOneLargeMetricIsGivenBack(t *testing.T) {
	var pairs []string
	for i := range 200 {
		pairs = append(pairs, fmt.Sprint("l", i), strings.Repeat("v", 10<<10))
	}
	h := &dto.Histogram{SampleCount: proto.Uint64(0)}
	for i := range 100_000 {
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(float64(i)), CumulativeCount: proto.Uint64(0), Exemplar: &dto.Exemplar{}})
	}
	wide := &dto.Histogram{PositiveSpan: spans(0, 100_000), PositiveDelta: make([]int64, 100_000)}
	for range 100_000 {
		wide.Exemplars = append(wide.Exemplars, &dto.Exemplar{})
	}
	s := &dto.Summary{SampleCount: proto.Uint64(0)}
	for i := range 100_000 {
		s.Quantile = append(s.Quantile, &dto.Quantile{Quantile: proto.Float64(float64(i) / 100_000)})
	}
	large := encode(t,
		family("a", dto.MetricType_GAUGE, gauge(1, pairs...)),
		family("b", dto.MetricType_HISTOGRAM, histogram(h), histogram(wide, "l", "v")),
		family("c", dto.MetricType_SUMMARY, &dto.Metric{Summary: s}))
	small := encode(t, family("a", dto.MetricType_GAUGE, gauge(1)))
	if got := held(translateEach(translate.Config{}, large, small)); got > 1<<20 {
		t.Errorf("%d KiB after a small exposition", got>>10)
	}

	many := &dto.Histogram{}
	for range 500_000 {
		many.PositiveSpan = append(many.PositiveSpan, &dto.BucketSpan{})
	}
	manySpans := encode(t, family("b", dto.MetricType_HISTOGRAM, histogram(many)))
	if got := held(translateEach(translate.Config{}, manySpans, small)); got > 1<<20 {
		t.Errorf("%d KiB after a histogram of many spans", got>>10)
	}
}

func TestMemoryOfDeltasIsThatOfThePage(t *testing.T) {
	page := func(n int, count uint64) []byte {
		mf := family("a", dto.MetricType_HISTOGRAM)
		for i := range n {
			h := &dto.Histogram{SampleCount: proto.Uint64(count)}
			for b := range 9 {
				h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(float64(b)), CumulativeCount: proto.Uint64(1)})
			}
			mf.Metric = append(mf.Metric, histogram(h, "l", fmt.Sprint(i)))
		}
		return encode(t, mf)
	}
	cfg := translate.Config{Temporality: selectors["delta"]}
	var large [][]byte
	for i := range 20 {
		large = append(large, page(1000, 10+uint64(i)))
	}
	one := held(translateEach(cfg, large[0]))
	if twenty := held(translateEach(cfg, large...)); twenty > 2*one {
		t.Errorf("%d KiB after one exposition, %d KiB after 20 of the same series", one>>10, twenty>>10)
	}
	small := held(translateEach(cfg, page(1, 10)))
	if got := held(translateEach(cfg, append(large, page(1, 30), page(1, 31))...)); got > 4*small+32<<10 {
		t.Errorf("%d KiB after a small exposition, %d KiB where larger ones came before", small>>10, got>>10)
	}
}

func TestMemoryOfANativeHistogramIsThatOfItsBuckets(t *testing.T) {
	page := func(buckets int) []byte {
		h := &dto.Histogram{PositiveSpan: spans(0, int32(buckets)), PositiveDelta: make([]int64, buckets)}
		mf := family("a", dto.MetricType_HISTOGRAM)
		for i := range 100 {
			mf.Metric = append(mf.Metric, histogram(h, "l", fmt.Sprint(i)))
		}
		return encode(t, mf)
	}
	small := held(translateEach(translate.Config{}, page(10)))
	if got := held(translateEach(translate.Config{}, page(1000), page(10))); got > 3*small+32<<10 {
		t.Errorf("%d KiB with 10 buckets, %d KiB where they were 1000 before", small>>10, got>>10)
	}
}

func TestTextsThatEveryRequestRepeatsAreBounded(t *testing.T) {
	long := strings.Repeat("ä", 1<<20)
	var pairs []string
	for i := range 1000 {
		pairs = append(pairs, fmt.Sprintf("a%03d", i), "v")
	}
	one := func(name string, pairs ...string) *dto.MetricFamily {
		mf := family(name, dto.MetricType_GAUGE, gauge(1, pairs...))
		mf.Help, mf.Unit = proto.String("x"+long), proto.String(long)
		return mf
	}
	r := translateOnce(t, translate.Config{}, 1, one("engine_daemon_engine_info", "version", "29"), one("target_info", pairs...))
	m := r.scopes()[0].Metrics[0]
	if want := "x" + strings.Repeat("ä", 2047); m.Description != want {
		t.Errorf("the description has %d bytes, want %d", len(m.Description), len(want))
	}
	if want := strings.Repeat("ä", 32); m.Unit != want {
		t.Errorf("the unit has %d bytes, want %d", len(m.Unit), len(want))
	}
	const maxResource = 128
	attrs := r.request.ResourceMetrics[0].Resource.Attributes
	if n := len(attrs); n != maxResource || attrs[n-1].Key != "service.version" || attrs[n-1].Value.GetStringValue() != "29" {
		t.Errorf("the resource has %d attributes, the last %v", n, attrs[n-1])
	}

	pairs = pairs[:8]
	for i := 1; i < len(pairs); i += 2 {
		pairs[i] = strings.Repeat("v", 8<<10)
	}
	r = translateOnce(t, translate.Config{}, 1, one("a"), one("target_info", pairs...))
	if n := len(r.request.ResourceMetrics[0].Resource.Attributes); n != 1 {
		t.Errorf("the resource has %d attributes of 8 KiB", n)
	}
}
