package translate_test

import (
	"fmt"
	"math"
	"regexp"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"otelmetricsplugin/pkg/translate"
)

// What the text format cannot carry.
var protobufOnly = regexp.MustCompile(`(?m)^    exemplar .*\n|( unit=\S+)`)

func TestTextAndProtobufOfAPageGiveTheSame(t *testing.T) {
	for _, engine := range []string{"2010-active", "297-active"} {
		t.Run(engine, func(t *testing.T) {
			fromText := recorded(t, engine+".txt")
			fromProto := recorded(t, engine+".pb")
			at := pageTime(fromProto)
			// A start time that text has is that of the process.
			for _, mf := range fromProto {
				for _, m := range mf.GetMetric() {
					if m.Counter != nil {
						m.Counter.CreatedTimestamp = nil
					}
					if m.Histogram != nil {
						m.Histogram.CreatedTimestamp = nil
					}
					if m.Summary != nil {
						m.Summary.CreatedTimestamp = nil
					}
				}
			}
			text := translate.New(translate.Config{Version: "v1"}).Translate(fromText, at)
			proto := translate.New(translate.Config{Version: "v1"}).Translate(fromProto, at)
			if text.Samples != proto.Samples || text.Kept != proto.Kept || len(text.Dropped)+len(proto.Dropped) > 0 {
				t.Errorf("text: %d samples, %d kept, dropped %v; protobuf: %d, %d, %v",
					text.Samples, text.Kept, text.Dropped, proto.Samples, proto.Kept, proto.Dropped)
			}
			got := protobufOnly.ReplaceAllString(shape(t, proto), "")
			if want := shape(t, text); got != want {
				t.Errorf("protobuf and text differ:\n%s", firstDifference(got, want))
			}
		})
	}
}

// shape renders r but for the values: the two forms of a page were not
// recorded in the same instant.
func shape(t *testing.T, r *translate.Result) string {
	return regexp.MustCompile(`(\.\.\S+|count=|sum=).*`).ReplaceAllString(render(send(t, r)), "$1")
}

func firstDifference(a, b string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			from := max(0, i-200)
			return fmt.Sprintf("%s\n---\n%s", a[from:min(len(a), i+200)], b[from:min(len(b), i+200)])
		}
	}
	return fmt.Sprintf("lengths %d and %d", len(a), len(b))
}

// pageTime returns a time soon after the last created timestamp of a page.
func pageTime(families []*dto.MetricFamily) time.Time {
	var last float64
	for _, mf := range families {
		if mf.GetName() == "process_start_time_seconds" {
			last = mf.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return time.UnixMilli(int64(math.Round(last * 1000))).Add(24 * time.Hour).UTC()
}

func TestRecordedPagesAreTranslatedWhole(t *testing.T) {
	for name, metrics := range map[string]int{
		"2010-baseline.pb": 72, "2010-active.pb": 83, "2010-active.txt": 83, "297-active.pb": 92, "297-active.txt": 92,
	} {
		t.Run(name, func(t *testing.T) {
			families := recorded(t, name)
			tr := translate.New(translate.Config{Version: "v1"})
			for i := range 3 {
				r := tr.Translate(families, pageTime(families).Add(time.Duration(i)*time.Minute))
				points, err := pointsOf(send(t, r))
				if err != nil {
					t.Fatal(err)
				}
				want := 0
				for _, mf := range families {
					want += len(mf.GetMetric())
				}
				if len(points) != want || len(r.Dropped) != 0 || len(r.Scopes) != 1 || len(r.Scopes[0].Metrics) != metrics {
					t.Errorf("page %d: %d points of %d metrics, dropped %v", i+1, len(points), want, r.Dropped)
				}
			}
		})
	}
}

func BenchmarkTranslate(b *testing.B) {
	for _, name := range []string{"297-active.pb", "297-active.txt"} {
		b.Run(name, func(b *testing.B) {
			families := recorded(b, name)
			benchmark(b, families)
		})
	}
	for name, mf := range map[string]*dto.MetricFamily{"100k-counters": manyCounters(100_000), "10k-histograms": manyHistograms(10_000)} {
		b.Run(name, func(b *testing.B) { benchmark(b, []*dto.MetricFamily{mf}) })
	}
}

// benchmark measures every page but the first.
func benchmark(b *testing.B, families []*dto.MetricFamily) {
	tr := translate.New(translate.Config{})
	at := pageTime(families)
	samples := tr.Translate(families, at).Samples
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(15 * time.Second)
		if r := tr.Translate(families, at); len(r.Dropped) != 0 {
			b.Fatalf("dropped %v", r.Dropped)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
}

// manyCounters returns a family of n series with the labels that
// grpc_server_handled_total has on an engine.
func manyCounters(n int) *dto.MetricFamily {
	mf := family("grpc_server_handled_total", dto.MetricType_COUNTER)
	for i := range n {
		mf.Metric = append(mf.Metric, counter(float64(i),
			"grpc_code", "Unimplemented", "grpc_method", fmt.Sprintf("Method%05d", i),
			"grpc_service", "moby.swarmkit.v1.Control", "grpc_type", "unary"))
	}
	return mf
}

func manyHistograms(n int) *dto.MetricFamily {
	mf := family("engine_daemon_container_actions_seconds", dto.MetricType_HISTOGRAM)
	for i := range n {
		h := histograms(20, 0.005, 1, 0.01, 2, 0.025, 3, 0.05, 4, 0.1, 5, 0.25, 6, 0.5, 7, 1, 8, 2.5, 9, 5, 10, 10, 11)[0].Metric[0]
		h.Label = labels("action", fmt.Sprintf("action%05d", i))
		mf.Metric = append(mf.Metric, h)
	}
	return mf
}
