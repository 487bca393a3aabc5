package translate_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/internal/otlp"
	"otelmetricsplugin/pkg/translate"
)

const partSize = 4 << 20 // what a default receiver takes

// TestAnExpositionThatWasThereBeforeCostsNoAllocations translates expositions
// that differ in size by a factor of 200: the number of allocations of the
// second time is the same small constant, whatever the values.
func TestAnExpositionThatWasThereBeforeCostsNoAllocations(t *testing.T) {
	check := func(t *testing.T, cfg translate.Config, next func() []byte) {
		t.Helper()
		tr := translate.New(cfg)
		w := otlp.NewWriter(partSize, func([]byte, int) {})
		now := at(1e6)
		run := func() {
			exposition := next()
			now = now.Add(15 * time.Second)
			w.Reset(partSize, func([]byte, int) {})
			if r := tr.Translate(exposition, now, w); r.Samples == 0 {
				t.Error("no samples")
			}
			w.Close()
		}
		run()
		run() // makes room for deltas
		if got := testing.AllocsPerRun(3, run); got > maxAllocations {
			t.Errorf("%g allocations, want at most %d", got, maxAllocations)
		}
	}
	for _, n := range []int{500, 10_000, 100_000} {
		for temporality, selector := range selectors {
			t.Run(fmt.Sprintf("%d/%s", n, temporality), func(t *testing.T) {
				m := expositionOf(t, n)
				if m.samples < n*9/10 || m.samples > n*11/10 {
					t.Fatalf("%d samples, want about %d", m.samples, n)
				}
				check(t, translate.Config{Temporality: selector}, func() []byte {
					m.move()
					return m.bytes
				})
			})
		}
	}
	for _, name := range recordedPages {
		for temporality, selector := range selectors {
			t.Run(name+"/"+temporality, func(t *testing.T) {
				exposition := encode(t, recorded(t, name)...)
				check(t, translate.Config{Temporality: selector}, func() []byte { return exposition })
			})
		}
	}
}

const maxAllocations = 0

// TestMovingExpositionsMove: the expositions of the benchmarks are valid, and
// every point of them is another one after a move.
func TestMovingExpositionsMove(t *testing.T) {
	for name, m := range map[string]*moving{
		"mixed":   expositionOf(t, 500),
		"native":  newMoving(t, []*dto.MetricFamily{nativeFamily("a", 3)}),
		"summary": newMoving(t, []*dto.MetricFamily{summaryFamily("a", 3)}),
	} {
		p := newPair(translate.Config{Version: "v1", Temporality: selectors["delta"]}, partSize)
		p.translate(t, m.bytes, at(1000), true)
		before := slices.Clone(m.bytes)
		m.move()
		if slices.Equal(before, m.bytes) || len(m.doubles) == 0 {
			t.Errorf("%s: does not move", name)
		}
		p.translate(t, m.bytes, at(1015), true)

		tr := newSubject(translate.Config{Version: "v1", Temporality: selectors["delta"]})
		tr.translate(t, before, at(1000))
		r := tr.translate(t, m.bytes, at(1015))
		points, err := pointsOf(r.request)
		if err != nil || len(r.Dropped) > 0 {
			t.Errorf("%s: dropped %v: %v", name, r.Dropped, err)
		}
		for _, pt := range points {
			if pt.value <= 0 || pt.stale {
				t.Errorf("%s: %+v does not move", name, pt)
				break
			}
		}
	}
}

// BenchmarkTranslate measures expositions of that many samples, every one but
// the first.
func BenchmarkTranslate(b *testing.B) {
	for _, n := range []int{500, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmark(b, translate.Config{}, expositionOf(b, n)) })
	}
}

func BenchmarkTranslate_Delta(b *testing.B) {
	benchmark(b, translate.Config{Temporality: selectors["delta"]}, expositionOf(b, 10_000))
}

// BenchmarkTranslate_Unwanted measures families that Config.Keep does not want.
func BenchmarkTranslate_Unwanted(b *testing.B) {
	benchmark(b, translate.Config{Keep: func(string) bool { return false }}, expositionOf(b, 10_000))
}

func BenchmarkTranslate_Gauges(b *testing.B)           { benchmarkFamily(b, 10_000, gaugeFamily) }
func BenchmarkTranslate_Counters(b *testing.B)         { benchmarkFamily(b, 10_000, counterFamily) }
func BenchmarkTranslate_Histograms(b *testing.B)       { benchmarkFamily(b, 1000, histogramFamily) }
func BenchmarkTranslate_NativeHistograms(b *testing.B) { benchmarkFamily(b, 1000, nativeFamily) }
func BenchmarkTranslate_Summaries(b *testing.B)        { benchmarkFamily(b, 2000, summaryFamily) }

// BenchmarkTranslate_First measures what series cost that are new.
func BenchmarkTranslate_First(b *testing.B) {
	m := expositionOf(b, 10_000)
	w := otlp.NewWriter(partSize, func([]byte, int) {})
	b.ReportAllocs()
	for b.Loop() {
		translate.New(translate.Config{}).Translate(m.bytes, at(1e6), w)
		w.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(m.samples), "ns/sample")
}

// BenchmarkTranslate_Recorded measures the page of a real engine.
func BenchmarkTranslate_Recorded(b *testing.B) {
	families := recorded(b, "297-active.pb")
	m := &moving{bytes: encode(b, families...)}
	for _, mf := range families {
		m.samples += refSamples(refTypeOf(mf), mf.GetMetric())
	}
	benchmark(b, translate.Config{}, m)
}

func benchmarkFamily(b *testing.B, n int, metrics func(name string, n int) *dto.MetricFamily) {
	benchmark(b, translate.Config{}, newMoving(b, []*dto.MetricFamily{proto.CloneOf(metrics("bench", n))}))
}

func benchmark(b *testing.B, cfg translate.Config, m *moving) {
	tr := translate.New(cfg)
	w := otlp.NewWriter(partSize, func([]byte, int) {})
	now := at(1e6)
	next := func() {
		now = now.Add(15 * time.Second)
		w.Reset(partSize, func([]byte, int) {})
		tr.Translate(m.bytes, now, w)
		w.Close()
	}
	next()
	m.move()
	next()
	b.SetBytes(int64(len(m.bytes)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		m.move()
		b.StartTimer()
		next()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(m.samples), "ns/sample")
}
