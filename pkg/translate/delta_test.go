package translate_test

import (
	"testing"

	dto "github.com/prometheus/client_model/go"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/pkg/translate"
)

var baseline = map[string]int{translate.DropBaseline: 1}

func TestDeltaOfCounters(t *testing.T) {
	const typed = "# TYPE a counter\n"
	withCreated := func(v, start float64) []*dto.MetricFamily {
		m := counter(v)
		m.Counter.CreatedTimestamp = created(start)
		return []*dto.MetricFamily{family("a", dto.MetricType_COUNTER, m)}
	}
	keep := func(name string) bool { return name == "a" }
	run(t, []scenario{{
		name:  "growth since the first observation, then a reset",
		delta: true,
		steps: []step{
			{at: 10, text: typed + "a 5\n", dropped: baseline},
			{at: 20, text: typed + "a 7\n", want: deltaSum("10..20 2")},
			{at: 30, text: typed + "a 7\n", want: deltaSum("20..30 0")},
			{at: 40, text: typed + "a 3\n", want: deltaSum("30..40 3")},
			{at: 50, text: typed + "a 4\n", want: deltaSum("40..50 1")},
		},
	}, {
		name:  "missed scrapes lose nothing",
		delta: true,
		steps: []step{
			{at: 10, text: typed + "a 5\n", dropped: baseline},
			{at: 20, text: typed + "a 7\n", want: deltaSum("10..20 2")},
			{at: 30, want: deltaSum("-..30 no recorded value")},
			{at: 40, want: ""},
			{at: 50, text: typed + "a 10\n", want: deltaSum("20..50 3")},
		},
	}, {
		name:  "neither does a gap of any length between two pages, with or without a missed scrape",
		delta: true,
		keep:  keep,
		steps: []step{
			{at: 10, text: typed + "a 5\n" + processStart(1), dropped: baseline},
			{at: 20, text: typed + "a 7\n" + processStart(1), want: deltaSum("10..20 2")},
			{at: 9e6, text: typed + "a 1000\n" + processStart(1), want: deltaSum("20..9e+06 993")},
			{at: 9e6 + 10, want: deltaSum("-..9.00001e+06 no recorded value")},
			{at: 18e6, text: typed + "a 2000\n" + processStart(1), want: deltaSum("9e+06..1.8e+07 1000")},
			{at: 18e6 + 10, text: typed + "a 2001\n" + processStart(1), want: deltaSum("1.8e+07..1.800001e+07 1")},
			{at: 27e6, text: typed + "a 3000\n" + processStart(20e6), want: deltaSum("2e+07..2.7e+07 3000")}, // restarted in the gap
		},
	}, {
		name:  "neither do values that are no numbers",
		delta: true,
		steps: []step{
			{at: 10, text: typed + "a 5\n", dropped: baseline},
			{at: 20, text: typed + "a NaN\n", dropped: map[string]int{translate.DropNotFinite: 1}},
			{at: 30, text: typed + "a +Inf\n", dropped: map[string]int{translate.DropNotFinite: 1}},
			{at: 40, text: typed + "a -1\n", dropped: map[string]int{translate.DropNegativeCounter: 1}},
			{at: 50, proto: []*dto.MetricFamily{family("a", dto.MetricType_COUNTER, counter(staleNaN))}, want: deltaSum("-..50 no recorded value")},
			{at: 60, text: typed + "a 6\n", want: deltaSum("10..60 1")},
		},
	}, {
		name:  "created since the last page: from zero",
		delta: true,
		steps: []step{
			{at: 10, text: "b 1\n", want: "b prometheus.type=unknown: gauge\n  {} -..10 1\n"},
			{at: 20, proto: withCreated(3, 15), want: deltaSum("15..20 3") + "b prometheus.type=unknown: gauge\n  {} -..20 no recorded value\n"},
			{at: 30, proto: withCreated(4, 15), want: deltaSum("20..30 1")},
			{at: 40, proto: withCreated(4, 35), want: deltaSum("35..40 4")},
		},
	}, {
		name:  "created before: the first observation is the baseline",
		delta: true,
		keep:  keep,
		steps: []step{
			{at: 10, text: "b 1\n"},
			{at: 20, proto: withCreated(3, 5), dropped: baseline},
			{at: 30, proto: withCreated(4, 5), want: deltaSum("20..30 1")},
		},
	}, {
		name:  "created before the first page of all: the baseline too",
		delta: true,
		steps: []step{
			{at: 10, proto: withCreated(3, 9), dropped: baseline},
		},
	}, {
		name:  "a created timestamp that jitters is no reset, a decrease beside it is",
		delta: true,
		steps: []step{
			{at: 10, proto: withCreated(3, 5), dropped: baseline},
			{at: 20, proto: withCreated(4, 6), want: deltaSum("10..20 1")},
			{at: 30, proto: withCreated(6, 5), want: deltaSum("20..30 2")},
			{at: 40, proto: withCreated(7, 1), want: deltaSum("30..40 1")},
			{at: 50, proto: withCreated(2, 1.5), want: deltaSum("40..50 2")},
		},
	}, {
		name:  "one that jitters where the target's clock is ahead is none either",
		delta: true,
		steps: []step{
			{at: 10, proto: withCreated(3, 40), dropped: baseline},
			{at: 20, proto: withCreated(4, 40.001), want: deltaSum("10..20 1")},
			{at: 30, proto: withCreated(6, 40.002), want: deltaSum("20..30 2")},
		},
	}, {
		name:  "one that moved is a reset where the target's clock is behind",
		delta: true,
		steps: []step{
			{at: 100, proto: withCreated(5, 1), dropped: baseline},
			{at: 120, proto: withCreated(7, 82), want: deltaSum("100..120 7")}, // began at 112
			{at: 130, proto: withCreated(8, 82), want: deltaSum("120..130 1")},
		},
	}, {
		name:  "and where it is ahead",
		delta: true,
		steps: []step{
			{at: 100, proto: withCreated(5, 1), dropped: baseline},
			{at: 120, proto: withCreated(7, 142), want: deltaSum("100..120 7")}, // began at 112
			{at: 130, proto: withCreated(8, 142), want: deltaSum("120..130 1")},
		},
	}, {
		name:  "and where samples are dated later than they were made",
		delta: true,
		steps: []step{
			{at: 100, proto: dated(1000, withCreated(5, 1)), dropped: baseline},
			{at: 120, proto: dated(1020, withCreated(7, 112)), want: deltaSum("1000..1020 7")},
			{at: 130, proto: dated(1030, withCreated(8, 112)), want: deltaSum("1020..1030 1")},
		},
	}, {
		name:  "created after its own point: the baseline",
		delta: true,
		keep:  keep,
		steps: []step{
			{at: 10, text: "b 1\n"},
			{at: 20, proto: withCreated(3, 25), dropped: baseline},
			{at: 30, proto: withCreated(4, 25), want: deltaSum("20..30 1")},
		},
	}, {
		name:  "a new process counts from zero, series that were not there included",
		delta: true,
		keep:  keep,
		steps: []step{
			{at: 10, text: typed + "a{l=\"1\"} 5\n" + processStart(2), dropped: baseline},
			{at: 20, text: typed + "a{l=\"1\"} 6\na{l=\"2\"} 3\n" + processStart(15), want: `
				a prometheus.type=counter: delta sum
				  {l="1"} 15..20 6
				  {l="2"} 15..20 3
			`},
			{at: 30, text: typed + "a{l=\"1\"} 7\na{l=\"3\"} 3\n" + processStart(15), want: `
				a prometheus.type=counter: delta sum
				  {l="1"} 20..30 1
				  {l="2"} -..30 no recorded value
			`, dropped: baseline},
		},
	}, {
		name:  "a reset in a gap is known by the created timestamp",
		delta: true,
		steps: []step{
			{at: 10, proto: withCreated(5, 1), dropped: baseline},
			{at: 9e6, proto: withCreated(1000, 100), want: deltaSum("100..9e+06 1000")},
			{at: 9e6 + 10, proto: withCreated(1001, 100), want: deltaSum("9e+06..9.00001e+06 1")},
		},
	}, {
		name:  "samples with their own times",
		delta: true,
		steps: []step{
			{at: 10, text: typed + "a 5 1767225601000\n", dropped: baseline},
			{at: 20, text: typed + "a 6 1767225602000\n", want: deltaSum("1..2 1")},
			{at: 30, text: typed + "a 7 1767225602000\n", want: deltaSum("2..2 1")},
			{at: 40, text: typed + "a 9 1767225601000\n", want: deltaSum("-..1 2")},
			{at: 50, text: typed + "a 10 1767225603000\n", want: deltaSum("1..3 1")},
		},
	}, {
		name:  "the clock is set back",
		delta: true,
		steps: []step{
			{at: 3610, text: typed + "a 5\n", dropped: baseline},
			{at: 20, text: typed + "a 6\n", want: deltaSum("-..20 1")},
			{at: 30, text: typed + "a 8\n", want: deltaSum("20..30 2")},
		},
	}, {
		name:  "gauges are as they are",
		delta: true,
		steps: []step{
			{at: 10, text: "# TYPE g gauge\ng 5\n", want: "g prometheus.type=gauge: gauge\n  {} -..10 5\n"},
			{at: 20, text: "# TYPE g gauge\ng 4\n", want: "g prometheus.type=gauge: gauge\n  {} -..20 4\n"},
		},
	}})
}

// dated dates the metrics of families.
func dated(s float64, families []*dto.MetricFamily) []*dto.MetricFamily {
	for _, mf := range families {
		for _, m := range mf.GetMetric() {
			m.TimestampMs = millis(s)
		}
	}
	return families
}

func TestDeltaOfHistograms(t *testing.T) {
	sum := func(families []*dto.MetricFamily, v float64) []*dto.MetricFamily {
		families[0].Metric[0].Histogram.SampleSum = proto.Float64(v)
		return families
	}
	run(t, []scenario{{
		name:  "growth, nothing, and a reset of one bucket",
		delta: true,
		steps: []step{
			{at: 10, proto: histograms(10, 1, 2, 2, 6), dropped: baseline},
			{at: 20, proto: histograms(15, 1, 3, 2, 10), want: `
				a prometheus.type=histogram: delta histogram
				  {} 10..20 count=5 sum=5 bounds=[1 2] counts=[1 3 1]
			`},
			{at: 30, proto: histograms(15, 1, 3, 2, 10), want: `
				a prometheus.type=histogram: delta histogram
				  {} 20..30 count=0 sum=0 bounds=[1 2] counts=[0 0 0]
			`},
			{at: 40, proto: histograms(16, 1, 2, 2, 10), want: `
				a prometheus.type=histogram: delta histogram
				  {} 30..40 count=16 sum=16 bounds=[1 2] counts=[2 8 6]
			`},
			{at: 50, proto: histograms(17, 1, 3, 2, 11), want: `
				a prometheus.type=histogram: delta histogram
				  {} 40..50 count=1 sum=1 bounds=[1 2] counts=[1 0 0]
			`},
		},
	}, {
		name:  "other buckets than before: those that both have",
		delta: true,
		steps: []step{
			{at: 10, proto: histograms(10, 1, 2, 2, 6, 3, 8), dropped: baseline},
			{at: 20, proto: histograms(20, 0, 1, 1, 4, 3, 15), want: `
				a prometheus.type=histogram: delta histogram
				  {} 10..20 count=10 sum=10 bounds=[1 3] counts=[2 5 3]
			`},
			{at: 30, proto: histograms(21, 0, 2, 1, 5, 3, 16), want: `
				a prometheus.type=histogram: delta histogram
				  {} 20..30 count=1 sum=1 bounds=[0 1 3] counts=[1 0 0 0]
			`},
			{at: 40, proto: histograms(25, 5, 20), want: `
				a prometheus.type=histogram: delta histogram
				  {} 30..40 count=4 sum=4 bounds=[] counts=[4]
			`},
			{at: 50, proto: histograms(26, 5, 19, 6, 26), want: `
				a prometheus.type=histogram: delta histogram
				  {} 40..50 count=26 sum=26 bounds=[5 6] counts=[19 7 0]
			`},
		},
	}, {
		name:  "sums: noise of the last bits is none, negative observations are",
		delta: true,
		steps: []step{
			{at: 10, proto: sum(histograms(1, 1, 1), 0.1+0.7), dropped: baseline},
			{at: 20, proto: sum(histograms(2, 1, 2), 0.7999999999999998), want: `
				a prometheus.type=histogram: delta histogram
				  {} 10..20 count=1 sum=0 bounds=[1] counts=[1 0]
			`},
			{at: 30, proto: sum(histograms(3, 1, 3), -4.2), want: `
				a prometheus.type=histogram: delta histogram
				  {} 20..30 count=1 sum=-5 bounds=[1] counts=[1 0]
			`},
		},
	}, {
		name:  "an invalid one in between",
		delta: true,
		steps: []step{
			{at: 10, proto: histograms(10, 1, 2), dropped: baseline},
			{at: 20, proto: histograms(1, 1, 2), dropped: map[string]int{translate.DropInvalidBuckets: 1}},
			{at: 30, proto: histograms(11, 1, 3), want: `
				a prometheus.type=histogram: delta histogram
				  {} 10..30 count=1 sum=1 bounds=[1] counts=[1 0]
			`},
		},
	}})
}

func TestDeltaOfNativeHistograms(t *testing.T) {
	page := func(h *dto.Histogram) []*dto.MetricFamily {
		return []*dto.MetricFamily{family("a", dto.MetricType_HISTOGRAM, histogram(h))}
	}
	threshold := func(v float64, h *dto.Histogram) *dto.Histogram {
		h.ZeroThreshold = proto.Float64(v)
		return h
	}
	const head = "a prometheus.type=histogram: delta exponential histogram\n  {} "
	run(t, []scenario{{
		name:  "growth in old and new buckets",
		delta: true,
		steps: []step{
			{at: 10, proto: page(native(3, 10, 1, spans(5, 2), 2, 1)), dropped: baseline},
			{at: 20, proto: page(native(3, 13, 2, spans(3, 1, 1, 2), 1, 1, 2)),
				want: head + "10..20 count=3 sum=3 scale=3 zero=1 threshold=1e-128 positive=2[1 0 0 1] negative=0[]\n"},
		},
	}, {
		name:  "negative buckets, and nothing new",
		delta: true,
		steps: []step{
			{at: 10, proto: page(negative(native(0, -5, 0, spans(1, 1), 2))), dropped: baseline},
			{at: 20, proto: page(negative(native(0, -5, 0, spans(1, 1), 2))),
				want: head + "10..20 count=0 sum=0 scale=0 zero=0 threshold=1e-128 positive=0[] negative=0[0]\n"},
			{at: 30, proto: page(negative(native(0, -7, 0, spans(0, 2), 1, 1))),
				want: head + "20..30 count=1 sum=-2 scale=0 zero=0 threshold=1e-128 positive=0[] negative=-1[1 0]\n"},
		},
	}, {
		name:  "a bucket decreases: from zero",
		delta: true,
		steps: []step{
			{at: 10, proto: page(native(0, 5, 0, spans(1, 2), 2, 1)), dropped: baseline},
			{at: 20, proto: page(native(0, 6, 0, spans(1, 2), 1, 4)),
				want: head + "10..20 count=6 sum=6 scale=0 zero=0 threshold=1e-128 positive=0[1 5] negative=0[]\n"},
		},
	}, {
		name:  "a bucket goes: from zero",
		delta: true,
		steps: []step{
			{at: 10, proto: page(native(0, 5, 0, spans(1, 2), 2, 1)), dropped: baseline},
			{at: 20, proto: page(native(0, 9, 0, spans(1, 1), 9)),
				want: head + "10..20 count=9 sum=9 scale=0 zero=0 threshold=1e-128 positive=0[9] negative=0[]\n"},
		},
	}, {
		name:  "the source merges buckets to a lower schema",
		delta: true,
		steps: []step{
			// Schema 2, buckets 1 to 5 and -3: of schema 0 they are 1, 1, 1, 1, 2 and 0.
			{at: 10, proto: page(native(2, 10, 0, spans(-3, 1, 3, 5), 1, 0, 1, 1, 1, 1)), dropped: baseline},
			{at: 20, proto: page(native(0, 12, 0, spans(0, 3), 1, 14, -9)),
				want: head + "10..20 count=6 sum=2 scale=0 zero=0 threshold=1e-128 positive=-1[0 5 1] negative=0[]\n"},
			{at: 30, proto: page(native(0, 13, 0, spans(0, 3), 1, 14, -8)),
				want: head + "20..30 count=1 sum=1 scale=0 zero=0 threshold=1e-128 positive=-1[0 0 1] negative=0[]\n"},
		},
	}, {
		name:  "a higher schema is a reset",
		delta: true,
		steps: []step{
			{at: 10, proto: page(native(0, 5, 0, spans(1, 1), 2)), dropped: baseline},
			{at: 20, proto: page(native(1, 6, 0, spans(1, 2), 2, 1)),
				want: head + "10..20 count=5 sum=6 scale=1 zero=0 threshold=1e-128 positive=0[2 3] negative=0[]\n"},
		},
	}, {
		name:  "the source merges buckets into the zero bucket",
		delta: true,
		steps: []step{
			// The upper bounds of 1, 2 and 3 are 2, 4 and 8.
			{at: 10, proto: page(threshold(1, native(0, 10, 1, spans(1, 3), 2, 1, 1))), dropped: baseline},
			{at: 20, proto: page(threshold(4, native(0, 12, 7, spans(3, 1), 5))),
				want: head + "10..20 count=2 sum=2 scale=0 zero=1 threshold=4 positive=2[1] negative=0[]\n"},
		},
	}, {
		name:  "a lower threshold is a reset",
		delta: true,
		steps: []step{
			{at: 10, proto: page(threshold(4, native(0, 10, 1, spans(3, 1), 2))), dropped: baseline},
			{at: 20, proto: page(threshold(1, native(0, 12, 1, spans(3, 1), 3))),
				want: head + "10..20 count=4 sum=12 scale=0 zero=1 threshold=1 positive=2[3] negative=0[]\n"},
		},
	}, {
		name:  "the zero bucket decreases: from zero",
		delta: true,
		steps: []step{
			{at: 10, proto: page(native(0, 10, 2, spans(3, 1), 2)), dropped: baseline},
			{at: 20, proto: page(native(0, 12, 1, spans(3, 1), 4)),
				want: head + "10..20 count=5 sum=12 scale=0 zero=1 threshold=1e-128 positive=2[4] negative=0[]\n"},
		},
	}, {
		name:  "created timestamps",
		delta: true,
		steps: []step{
			{at: 10, proto: page(createdAt(native(0, 2, 0, spans(1, 1), 2), 1)), dropped: baseline},
			{at: 20, proto: page(createdAt(native(0, 5, 0, spans(1, 1), 5), 15)),
				want: head + "15..20 count=5 sum=5 scale=0 zero=0 threshold=1e-128 positive=0[5] negative=0[]\n"},
		},
	}})
}

// negative turns the positive buckets of h into negative ones.
func negative(h *dto.Histogram) *dto.Histogram {
	h.NegativeSpan, h.PositiveSpan = h.PositiveSpan, nil
	h.NegativeDelta, h.PositiveDelta = h.PositiveDelta, nil
	return h
}

func createdAt(h *dto.Histogram, s float64) *dto.Histogram {
	h.CreatedTimestamp = created(s)
	return h
}

func TestTemporalityPreference(t *testing.T) {
	const (
		cumulative = metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
		delta      = metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	)
	page := append(text(t, "# TYPE a counter\na 1\n# TYPE b histogram\nb_sum 1\nb_count 1\n"),
		family("c", dto.MetricType_HISTOGRAM, histogram(native(0, 1, 0, spans(1, 1), 1))))
	for _, tc := range []struct {
		name               string
		selector           sdkmetric.TemporalitySelector
		counter, histogram metricpb.AggregationTemporality
	}{
		{"none", nil, cumulative, cumulative},
		{"cumulative", sdkmetric.CumulativeTemporalitySelector, cumulative, cumulative},
		{"delta", sdkmetric.DeltaTemporalitySelector, delta, delta},
		{"lowmemory", sdkmetric.LowMemoryTemporalitySelector, cumulative, delta},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, newImplementation := range implementations {
				tr := newImplementation(translate.Config{Temporality: tc.selector})
				tr.translate(t, encode(t, page...), at(10))
				metrics := tr.translate(t, encode(t, page...), at(20)).scopes()[0].Metrics
				got := [3]metricpb.AggregationTemporality{
					metrics[0].GetSum().GetAggregationTemporality(),
					metrics[1].GetHistogram().GetAggregationTemporality(),
					metrics[2].GetExponentialHistogram().GetAggregationTemporality(),
				}
				if want := [3]metricpb.AggregationTemporality{tc.counter, tc.histogram, tc.histogram}; got != want {
					t.Errorf("%s: counter, histogram, native histogram: %v, want %v", name, got, want)
				}
			}
		})
	}
}
