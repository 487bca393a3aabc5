package translate_test

import (
	"math"
	"regexp"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

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
			text := newSubject(translate.Config{Version: "v1"}).translate(t, encode(t, fromText...), at)
			proto := newSubject(translate.Config{Version: "v1"}).translate(t, encode(t, fromProto...), at)
			if text.Samples != proto.Samples || text.Kept != proto.Kept || len(text.Dropped)+len(proto.Dropped) > 0 {
				t.Errorf("text: %d samples, %d kept, dropped %v; protobuf: %d, %d, %v",
					text.Samples, text.Kept, text.Dropped, proto.Samples, proto.Kept, proto.Dropped)
			}
			got := protobufOnly.ReplaceAllString(shape(proto), "")
			if want := shape(text); got != want {
				t.Errorf("protobuf and text differ:\n%s", firstDifference(got, want))
			}
		})
	}
}

// shape renders r but for the values: the two forms of a page were not
// recorded in the same instant.
func shape(r translated) string {
	return regexp.MustCompile(`(\.\.\S+|count=|sum=).*`).ReplaceAllString(render(r.request), "$1")
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
			tr := newSubject(translate.Config{Version: "v1"})
			for i := range 3 {
				r := tr.translate(t, encode(t, families...), pageTime(families).Add(time.Duration(i)*time.Minute))
				points, err := pointsOf(r.request)
				if err != nil {
					t.Fatal(err)
				}
				want := 0
				for _, mf := range families {
					want += len(mf.GetMetric())
				}
				if len(points) != want || len(r.Dropped) != 0 || len(r.scopes()) != 1 || len(r.scopes()[0].Metrics) != metrics {
					t.Errorf("page %d: %d points of %d metrics, dropped %v", i+1, len(points), want, r.Dropped)
				}
			}
		})
	}
}

// TestRecordedPagesAreTranslatedAsTheReferenceDoes holds every recorded page,
// whole, against the reference.
func TestRecordedPagesAreTranslatedAsTheReferenceDoes(t *testing.T) {
	for _, name := range recordedPages {
		for temporality, selector := range selectors {
			t.Run(name+"/"+temporality, func(t *testing.T) {
				families := recorded(t, name)
				p := newPair(translate.Config{Version: "v1", Temporality: selector}, 10<<10)
				now := pageTime(families)
				p.translate(t, encode(t, families...), now, true)
				p.translate(t, encode(t, families...), now.Add(time.Minute), true)
				p.translate(t, encode(t, families[:len(families)/2]...), now.Add(2*time.Minute), true)
				p.missed(t, now.Add(3*time.Minute), true)
				p.translate(t, encode(t, families...), now.Add(4*time.Minute), true)
			})
		}
	}
}

var recordedPages = []string{"2010-baseline.pb", "2010-active.pb", "2010-active.txt", "297-active.pb", "297-active.txt"}

var selectors = map[string]sdkmetric.TemporalitySelector{
	"cumulative": sdkmetric.CumulativeTemporalitySelector,
	"delta":      sdkmetric.DeltaTemporalitySelector,
	"lowmemory":  sdkmetric.LowMemoryTemporalitySelector,
}
