package translate_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/metrics"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/internal/otlp"
	"otelmetricsplugin/pkg/translate"
)

// foreignPages returns parts of the text pages in the directory that the
// environment variable TEXT_PAGES names, if it does: the test data of
// github.com/prometheus/prometheus, model/textparse/testdata, for one.
func foreignPages(t testing.TB) (pages [][]byte) {
	dir := os.Getenv("TEXT_PAGES")
	if dir == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("TEXT_PAGES=%s: no *.txt there: %v", dir, err)
	}
	for _, name := range files {
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		const size = 2000 // larger ones are slow to mutate
		for len(page) > size {
			end := size + 1 + bytes.IndexByte(page[size:], '\n')
			pages, page = append(pages, page[:end:end]), page[end:]
		}
		pages = append(pages, page)
	}
	return pages
}

// translateAll translates families, then half of them, then nothing, then all
// again, and returns what was wrong with what came out.
func translateAll(t testing.TB, families []*dto.MetricFamily, selector sdkmetric.TemporalitySelector) error {
	tr := newSubject(translate.Config{Version: "v1", Temporality: selector})
	now := epoch
	for _, page := range [][]*dto.MetricFamily{families, families[len(families)/2:], nil, families} {
		now = now.Add(10 * time.Second)
		exposition := encode(t, page...)
		before := allocated()
		var r translated
		if page == nil {
			r = tr.missed(t, now)
		} else {
			r = tr.translate(t, exposition, now)
		}
		if n := allocated() - before; n > 64<<20 {
			return fmt.Errorf("translating allocated %d MiB", n>>20)
		}
		points, err := pointsOf(r.request)
		if err != nil {
			return err
		}
		if page == nil {
			continue
		}
		if err := checkAccounting(page, r.Result, points); err != nil {
			return err
		}
	}
	return nil
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// edgeCases are pages that a decoder may hand over but no client library
// writes.
func edgeCases() map[string][]*dto.MetricFamily {
	u := func(v uint64) *uint64 { return &v }
	d := func(v float64) *float64 { return &v }
	big := native(8, 1, 1, spans(1<<30, 1, 1<<30, 1, 1<<30, 1), 1, math.MaxInt64, math.MinInt64)
	stale := native(0, staleNaN, 0, spans(1, 1), 1)
	withExemplar := counter(1, "l", "v")
	withExemplar.Counter.Exemplar = &dto.Exemplar{Label: labels("trace_id", "00", "span_id", "0102030405060708"), Timestamp: created(-1e10)}
	withExemplar.Counter.CreatedTimestamp = created(1e10)
	dated := gauge(1)
	dated.TimestampMs = millis(-1e12)
	return map[string][]*dto.MetricFamily{
		"histograms": {family("a", dto.MetricType_HISTOGRAM,
			histogram(big, "l", "1"), histogram(stale, "l", "2"),
			histogram(&dto.Histogram{SampleCount: u(math.MaxUint64), Bucket: buckets(nan, 1, inf, 2, -inf, 3)}, "l", "3"),
			histogram(&dto.Histogram{SampleCountFloat: d(-1), Bucket: buckets(1, 1)}, "l", "4"),
			histogram(native(8, 1, 0, spans(-1074*256, 1, 1<<14, 1), 1, 1), "l", "5"),
			histogram(native(-4, 1, math.MaxInt64, spans(0, 2), math.MaxInt64, 0), "l", "6"),
		)},
		"summaries": {family("a", dto.MetricType_SUMMARY,
			&dto.Metric{Summary: &dto.Summary{SampleCount: u(1), Quantile: []*dto.Quantile{{Quantile: d(nan)}, {Quantile: d(2), Value: d(nan)}}}},
		)},
		"numbers":    {family("a", dto.MetricType_COUNTER, counter(-1), counter(nan, "l", "1"), counter(staleNaN, "l", "2"), withExemplar, dated)},
		"mismatched": {family("a", dto.MetricType_COUNTER, gauge(1)), family("a", dto.MetricType_GAUGE, counter(1)), {}},
		"labels":     {family("\xff", dto.MetricType_GAUGE, gauge(1)), family("b", dto.MetricType_GAUGE, gauge(1, "l", "\xff"), gauge(1, "l", "1", "l", "2"), gauge(1, "", "x"), gauge(1, "l", ""))},
	}
}

func TestEdgeCasesAreExportedOrCounted(t *testing.T) {
	for name, families := range edgeCases() {
		t.Run(name, func(t *testing.T) {
			families = append(families, nil, &dto.MetricFamily{}, family("n", dto.MetricType_HISTOGRAM, nil,
				histogram(&dto.Histogram{Bucket: []*dto.Bucket{nil}, PositiveSpan: []*dto.BucketSpan{nil}, Exemplars: []*dto.Exemplar{nil}}),
				&dto.Metric{Label: []*dto.LabelPair{nil, {}}}))
			for _, selector := range []sdkmetric.TemporalitySelector{nil, sdkmetric.DeltaTemporalitySelector} {
				if err := translateAll(t, families, selector); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestAllocationIsBoundedByThePage(t *testing.T) {
	const pageSize, limit = 1 << 20, 64 << 20
	for name, metric := range map[string]func(i int) (*dto.Metric, dto.MetricType){
		"series": func(i int) (*dto.Metric, dto.MetricType) {
			return &dto.Metric{Label: labels("l", fmt.Sprint(i)), Gauge: &dto.Gauge{}}, dto.MetricType_GAUGE
		},
		"scopes": func(i int) (*dto.Metric, dto.MetricType) {
			return &dto.Metric{Label: labels("otel_scope_name", fmt.Sprint(i)), Gauge: &dto.Gauge{}}, dto.MetricType_GAUGE
		},
		"scope attributes": func(i int) (*dto.Metric, dto.MetricType) {
			return &dto.Metric{Label: labels("otel_scope_"+fmt.Sprint(i), "v"), Gauge: &dto.Gauge{}}, dto.MetricType_GAUGE
		},
		"native gaps": func(i int) (*dto.Metric, dto.MetricType) {
			return &dto.Metric{Label: labels("l", fmt.Sprint(i)), Histogram: &dto.Histogram{
				PositiveSpan: spans(0, 1, 1<<14-2, 1), PositiveDelta: []int64{1, 0}}}, dto.MetricType_HISTOGRAM
		},
		"buckets": func(i int) (*dto.Metric, dto.MetricType) {
			h := &dto.Histogram{SampleCount: proto.Uint64(0)}
			for b := range 100 {
				h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(float64(i * b))})
			}
			return &dto.Metric{Label: labels("l", fmt.Sprint(i)), Histogram: h}, dto.MetricType_HISTOGRAM
		},
		"quantiles": func(i int) (*dto.Metric, dto.MetricType) {
			s := &dto.Summary{SampleCount: proto.Uint64(0)}
			for q := range 100 {
				s.Quantile = append(s.Quantile, &dto.Quantile{Quantile: proto.Float64(float64(q) / 100)})
			}
			return &dto.Metric{Label: labels("l", fmt.Sprint(i)), Summary: s}, dto.MetricType_SUMMARY
		},
	} {
		t.Run(name, func(t *testing.T) {
			var metrics []*dto.Metric
			var typ dto.MetricType
			for size, i := 0, 0; size < pageSize; i++ {
				var m *dto.Metric
				m, typ = metric(i)
				size += proto.Size(m) + 3
				metrics = append(metrics, m)
			}
			for form, families := range map[string][]*dto.MetricFamily{
				"one family": {family("a", typ, metrics...)},
				"a family each": func() (each []*dto.MetricFamily) {
					for i, m := range metrics[:len(metrics)/2] {
						each = append(each, family(fmt.Sprint("a", i), typ, m))
					}
					return each
				}(),
			} {
				exposition := encode(t, families...)
				for _, selector := range []sdkmetric.TemporalitySelector{nil, sdkmetric.DeltaTemporalitySelector} {
					tr := translate.New(translate.Config{Temporality: selector})
					w := otlp.NewWriter(4<<20, func([]byte, int) {})
					for i := range 3 {
						before := allocated()
						tr.Translate(exposition, at(float64(i)), w)
						w.Close()
						n := allocated() - before
						t.Log(form, i, n>>20)
						if n > limit {
							t.Errorf("%s, page %d: allocated %d MiB for %d metrics", form, i+1, n>>20, len(metrics))
						}
					}
				}
			}
		})
	}
}
