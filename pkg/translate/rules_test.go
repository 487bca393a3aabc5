package translate_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"otelmetricsplugin/pkg/translate"
)

// Each test below proves one rule of docs/translation.md; the number in its
// name is the rule's.

func TestRule01_NameIsUnchanged(t *testing.T) {
	run(t, []scenario{{
		name: "suffixes, underscores, colons, case and UTF-8",
		steps: []step{{
			at: 10,
			text: `
				# TYPE Foo gauge
				Foo 1
				# TYPE _x gauge
				_x 2
				# TYPE a:b gauge
				a:b 3
				# TYPE foo gauge
				foo 4
				# TYPE requests_total counter
				requests_total 5
				# TYPE size_bytes gauge
				size_bytes 6
				# TYPE "zürich.temperature" gauge
				{"zürich.temperature"} 7
			`,
			want: `
				Foo prometheus.type=gauge: gauge
				  {} -..10 1
				_x prometheus.type=gauge: gauge
				  {} -..10 2
				a:b prometheus.type=gauge: gauge
				  {} -..10 3
				foo prometheus.type=gauge: gauge
				  {} -..10 4
				requests_total prometheus.type=counter: cumulative sum
				  {} -..10 5
				size_bytes prometheus.type=gauge: gauge
				  {} -..10 6
				zürich.temperature prometheus.type=gauge: gauge
				  {} -..10 7
			`,
		}},
	}, {
		name: "one that is none is dropped",
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{
				family("", dto.MetricType_GAUGE, gauge(1)),
				family("a", dto.MetricType_GAUGE, gauge(2)),
				family("b\xff", dto.MetricType_GAUGE, gauge(3), gauge(4, "l", "v")),
				nil,
			},
			want: `
				a prometheus.type=gauge: gauge
				  {} -..10 2
			`,
			dropped: map[string]int{translate.DropInvalidName: 3},
		}},
	}})
}

func TestRule02_UnitOfTheFamilyIsConvertedToUCUM(t *testing.T) {
	units := map[string]string{
		"days": "d", "hours": "h", "minutes": "min", "seconds": "s", "milliseconds": "ms", "microseconds": "us",
		"nanoseconds": "ns", "bytes": "By", "kibibytes": "KiBy", "mebibytes": "MiBy", "gibibytes": "GiBy",
		"tebibytes": "TiBy", "kilobytes": "kBy", "megabytes": "MBy", "gigabytes": "GBy", "terabytes": "TBy",
		"meters": "m", "volts": "V", "amperes": "A", "joules": "J", "watts": "W", "grams": "g", "celsius": "Cel",
		"hertz": "Hz", "percent": "%", "ratio": "1",
		"":             "",
		"furlongs":     "furlongs",
		"not\xffutf-8": "not\uFFFDutf-8",
	}
	for prometheus, want := range units {
		mf := family("x_seconds", dto.MetricType_GAUGE, gauge(1))
		mf.Unit = proto.String(prometheus)
		r := translateOnce(t, translate.Config{}, 10, mf)
		if got := r.scopes()[0].Metrics[0].Unit; got != want {
			t.Errorf("unit %q became %q, want %q", prometheus, got, want)
		}
	}
}

func TestRule03_HelpIsTheDescription(t *testing.T) {
	broken := family("b", dto.MetricType_GAUGE, gauge(2))
	broken.Help = proto.String("not \xff UTF-8")
	run(t, []scenario{{
		name: "text",
		steps: []step{{
			at: 10,
			text: `
				# HELP a What it is.\nOn two lines.
				# TYPE a gauge
				a 1
			`,
			want: `
				a prometheus.type=gauge description="What it is.\nOn two lines.": gauge
				  {} -..10 1
			`,
		}},
	}, {
		name: "one that is not UTF-8 does not fail the request",
		steps: []step{{
			at:    10,
			proto: []*dto.MetricFamily{broken},
			want: `
				b prometheus.type=gauge description="not � UTF-8": gauge
				  {} -..10 2
			`,
		}},
	}})
}

func TestRule04_TypeIsMetadata(t *testing.T) {
	run(t, []scenario{{
		name: "every type",
		steps: []step{{
			at: 10,
			text: `
				# TYPE a counter
				a 1
				# TYPE b gauge
				b 1
				# TYPE c histogram
				c_bucket{le="+Inf"} 1
				c_sum 1
				c_count 1
				# TYPE d summary
				d_sum 1
				d_count 1
				# TYPE e untyped
				e 1
				f 1
			`,
			want: `
				a prometheus.type=counter: cumulative sum
				  {} -..10 1
				b prometheus.type=gauge: gauge
				  {} -..10 1
				c prometheus.type=histogram: cumulative histogram
				  {} -..10 count=1 sum=1 bounds=[] counts=[1]
				d prometheus.type=summary: summary
				  {} -..10 count=1 sum=1
				e prometheus.type=unknown: gauge
				  {} -..10 1
				f prometheus.type=unknown: gauge
				  {} -..10 1
			`,
		}},
	}, {
		name: "native",
		steps: []step{{
			at:    10,
			proto: []*dto.MetricFamily{family("n", dto.MetricType_HISTOGRAM, histogram(native(0, 1, 0, spans(1, 1), 1)))},
			want: `
				n prometheus.type=histogram: cumulative exponential histogram
				  {} -..10 count=1 sum=1 scale=0 zero=0 threshold=1e-128 positive=0[1] negative=0[]
			`,
		}},
	}})
}

func TestRule04_EachOfTheTypesOfANameIsTold(t *testing.T) {
	page := func() []*dto.MetricFamily {
		return []*dto.MetricFamily{
			family("a", dto.MetricType_UNTYPED, &dto.Metric{Label: labels("l", "1"), Untyped: &dto.Untyped{Value: proto.Float64(1)}}),
			family("a", dto.MetricType_COUNTER, counter(2, "l", "2")),
			family("a", dto.MetricType_GAUGE, gauge(3, "l", "3")),
			family("a", dto.MetricType_SUMMARY, &dto.Metric{Label: labels("l", "4"), Summary: &dto.Summary{SampleCount: proto.Uint64(4)}}),
			family("a", dto.MetricType_HISTOGRAM, histogram(&dto.Histogram{SampleCount: proto.Uint64(5)}, "l", "5")),
		}
	}
	run(t, []scenario{{
		name: "gauges and untyped ones are one metric, of the first one's type",
		steps: []step{
			{at: 10, proto: page(), want: `
				a prometheus.type=unknown: gauge
				  {l="1"} -..10 1
				  {l="3"} -..10 3
				a prometheus.type=counter: cumulative sum
				  {l="2"} -..10 2
				a prometheus.type=histogram: cumulative histogram
				  {l="5"} -..10 count=5 bounds=[] counts=[5]
				a prometheus.type=summary: summary
				  {l="4"} -..10 count=4 sum=0
			`},
			{at: 20, proto: page()[1:2], want: `
				a prometheus.type=counter: cumulative sum
				  {l="2"} -..20 2
				a prometheus.type=unknown: gauge
				  {l="1"} -..20 no recorded value
				  {l="3"} -..20 no recorded value
				a prometheus.type=histogram: cumulative histogram
				  {l="5"} -..20 no recorded value count=0 bounds=[] counts=[]
				a prometheus.type=summary: summary
				  {l="4"} -..20 no recorded value count=0 sum=0
			`},
			{at: 30, proto: page()[2:3], want: `
				a prometheus.type=gauge: gauge
				  {l="3"} -..30 3
				a prometheus.type=counter: cumulative sum
				  {l="2"} -..30 no recorded value
			`},
		},
	}})
}

func TestRule05_StartTime(t *testing.T) {
	withCreated := func(v, start float64) []*dto.MetricFamily {
		m := counter(v)
		m.Counter.CreatedTimestamp = created(start)
		return []*dto.MetricFamily{family("a", dto.MetricType_COUNTER, m)}
	}
	const typed = "# TYPE a counter\n"
	keep := func(name string) bool { return name != "process_start_time_seconds" }
	run(t, []scenario{{
		name: "unset when nothing is known",
		steps: []step{{at: 10, text: typed + "a 1\n", want: `
			a prometheus.type=counter: cumulative sum
			  {} -..10 1
		`}},
	}, {
		name: "the created timestamp",
		steps: []step{{
			at:    10,
			proto: append(text(t, processStart(1)), withCreated(1, 5)...),
			want: `
				a prometheus.type=counter: cumulative sum
				  {} 5..10 1
				process_start_time_seconds prometheus.type=unknown: gauge
				  {} -..10 1.767225601e+09
			`,
		}},
	}, {
		name: "else the start of the process, wanted or not, for all but gauges",
		keep: keep,
		steps: []step{{
			at: 10,
			text: processStart(1.234) + `# TYPE a counter
a 1
# TYPE b histogram
b_bucket{le="+Inf"} 1
b_sum 1
b_count 1
# TYPE c summary
c_sum 1
c_count 1
# TYPE d gauge
d 1
`,
			want: `
				a prometheus.type=counter: cumulative sum
				  {} 1.234..10 1
				b prometheus.type=histogram: cumulative histogram
				  {} 1.234..10 count=1 sum=1 bounds=[] counts=[1]
				c prometheus.type=summary: summary
				  {} 1.234..10 count=1 sum=1
				d prometheus.type=gauge: gauge
				  {} -..10 1
			`,
		}},
	}, {
		name: "a start of the process that cannot be is none",
		keep: keep,
		steps: []step{
			{at: 10, text: typed + "a 1\n" + processStart(11), want: cumulative("-..10 1")},
			{at: 20, text: typed + "a 2\nprocess_start_time_seconds NaN\n", want: cumulative("-..20 2")},
			{at: 30, text: typed + "a 3\nprocess_start_time_seconds -5\n", want: cumulative("-..30 3")},
			{at: 40, text: typed + "a 4\nprocess_start_time_seconds +Inf\n", want: cumulative("-..40 4")},
			{at: 50, text: typed + "a 5\nprocess_start_time_seconds{pid=\"1\"} 1.7672256e+09\nprocess_start_time_seconds{pid=\"2\"} 1.7672256e+09\n", want: cumulative("-..50 5")},
		},
	}, {
		name: "a decrease starts anew at the previous scrape, for good",
		steps: []step{
			{at: 10, text: typed + "a 5\n", want: cumulative("-..10 5")},
			{at: 20, text: typed + "a 5\n", want: cumulative("-..20 5")},
			{at: 30, text: typed + "a 4\n", want: cumulative("20..30 4")},
			{at: 40, text: typed + "a 6\n", want: cumulative("20..40 6")},
			{at: 50, text: typed + "a 0\n", want: cumulative("40..50 0")},
		},
	}, {
		name: "a decrease in the last bits is none",
		steps: []step{
			{at: 10, text: typed + "a 0.8\n", want: cumulative("-..10 0.8")},
			{at: 20, text: typed + "a 0.7999999999999998\n", want: cumulative("-..20 0.8")},
			{at: 30, text: typed + "a 0.799999999\n", want: cumulative("20..30 0.799999999")},
		},
	}, {
		name: "a decrease after missed scrapes starts anew at the last page",
		steps: []step{
			{at: 10, text: typed + "a 5\n", want: cumulative("-..10 5")},
			{at: 20, want: cumulative("-..20 no recorded value")},
			{at: 30, want: ""},
			{at: 40, text: typed + "a 4\n", want: cumulative("10..40 4")},
		},
	}, {
		name: "missed scrapes alone do not",
		keep: keep,
		steps: []step{
			{at: 10, text: typed + "a 5\n" + processStart(2), want: cumulative("2..10 5")},
			{at: 20, want: cumulative("-..20 no recorded value")},
			{at: 30, text: typed + "a 5\n" + processStart(2), want: cumulative("2..30 5")},
		},
	}, {
		name: "a new process starts anew, whatever the values",
		keep: keep,
		steps: []step{
			{at: 10, text: typed + "a 5\n" + processStart(2), want: cumulative("2..10 5")},
			{at: 20, text: typed + "a 7\n" + processStart(15), want: cumulative("15..20 7")},
			{at: 30, text: typed + "a 8\n" + processStart(15), want: cumulative("15..30 8")},
			{at: 40, text: typed + "a 1\n" + processStart(33), want: cumulative("33..40 1")},
		},
	}, {
		name: "a new process is known by its age when its start is truncated to before the last page",
		keep: keep,
		steps: []step{
			{at: 10, text: typed + "a 5\n" + processStart(2), want: cumulative("2..10 5")},
			{at: 20, text: typed + "a 7\n" + processStart(9.2), want: cumulative("10..20 7")},
			{at: 30, text: typed + "a 8\n" + processStart(9.2), want: cumulative("10..30 8")},
		},
	}, {
		name: "a start of the process that drifts changes nothing",
		keep: keep,
		steps: []step{
			{at: 10, text: typed + "a 5\n" + processStart(2), want: cumulative("2..10 5")},
			{at: 20, text: typed + "a 7\n" + processStart(3), want: cumulative("2..20 7")},
			{at: 30, text: typed + "a 8\n" + processStart(1), want: cumulative("2..30 8")},
			{at: 40, text: typed + "a 9\n" + processStart(25), want: cumulative("2..40 9")},
		},
	}, {
		name: "so does one whose process was young when it was first seen",
		keep: keep,
		steps: []step{
			{at: 10, text: typed + "a 5\n" + processStart(9.9), want: cumulative("9.9..10 5")},
			{at: 20, text: typed + "a 7\n" + processStart(9.9), want: cumulative("9.9..20 7")},
		},
	}, {
		name: "a created timestamp that moved is a reset",
		steps: []step{
			{at: 10, proto: withCreated(5, 1), want: cumulative("1..10 5")},
			{at: 20, proto: withCreated(7, 12), want: cumulative("12..20 7")},
		},
	}, {
		name: "a created timestamp that moved is one by whatever clock",
		steps: []step{
			{at: 100, proto: withCreated(5, 1), want: cumulative("1..100 5")},
			{at: 120, proto: withCreated(7, 82), want: cumulative("82..120 7")},
			{at: 130, proto: withCreated(8, 82), want: cumulative("82..130 8")},
		},
	}, {
		name: "a created timestamp that jitters moves no start, one that is corrected does",
		steps: []step{
			{at: 10, proto: withCreated(5, 2), want: cumulative("2..10 5")},
			{at: 20, proto: withCreated(6, 2.7), want: cumulative("2..20 6")},
			{at: 30, proto: withCreated(7, 1.3), want: cumulative("2..30 7")},
			{at: 40, proto: withCreated(8, 0.5), want: cumulative("0.5..40 8")},
			{at: 50, proto: withCreated(9, 0), want: cumulative("0.5..50 9")},
			{at: 60, proto: withCreated(9, 1.1), want: cumulative("1.1..60 9")}, // a reset
		},
	}, {
		name: "of another type, whatever that of the type before was",
		steps: []step{
			{at: 10, proto: withCreated(5, 1), want: cumulative("1..10 5")},
			{
				at: 20,
				proto: []*dto.MetricFamily{family("a", dto.MetricType_SUMMARY, &dto.Metric{Summary: &dto.Summary{
					SampleCount: proto.Uint64(4), CreatedTimestamp: created(1.5),
				}})},
				want: `
					a prometheus.type=summary: summary
					  {} 1.5..20 count=4 sum=0
				`,
			},
		},
	}, {
		name: "a created timestamp that did not is none, not even of a new process",
		keep: keep,
		steps: []step{
			{at: 10, proto: append(text(t, processStart(1)), withCreated(5, 1)...), want: cumulative("1..10 5")},
			{at: 20, proto: append(text(t, processStart(15)), withCreated(7, 1)...), want: cumulative("1..20 7")},
		},
	}, {
		name: "a created timestamp stands even where the value decreases",
		steps: []step{
			{at: 10, proto: withCreated(5, 1), want: cumulative("1..10 5")},
			{at: 20, proto: withCreated(4, 1), want: cumulative("1..20 4")},
		},
	}, {
		name: "a start after the point is left out",
		steps: []step{
			{at: 10, proto: withCreated(5, 11), want: cumulative("-..10 5")},
			{at: 20, proto: withCreated(6, 11), want: cumulative("11..20 6")},
		},
	}, {
		name: "a created timestamp that is none is not one",
		steps: []step{
			{at: 10, proto: []*dto.MetricFamily{family("a", dto.MetricType_COUNTER, &dto.Metric{Counter: &dto.Counter{
				Value: proto.Float64(1), CreatedTimestamp: &timestamppb.Timestamp{}}})}, want: cumulative("-..10 1")},
			{at: 20, proto: []*dto.MetricFamily{family("a", dto.MetricType_COUNTER, &dto.Metric{Counter: &dto.Counter{
				Value: proto.Float64(1), CreatedTimestamp: &timestamppb.Timestamp{Seconds: math.MaxInt64}}})}, want: cumulative("-..20 1")},
			{at: 30, proto: []*dto.MetricFamily{family("a", dto.MetricType_COUNTER, &dto.Metric{Counter: &dto.Counter{
				Value: proto.Float64(1), CreatedTimestamp: &timestamppb.Timestamp{Seconds: 5, Nanos: -1}}})}, want: cumulative("-..30 1")},
		},
	}, {
		name: "the created timestamp is lost and found",
		steps: []step{
			{at: 10, proto: withCreated(5, 1), want: cumulative("1..10 5")},
			{at: 20, text: typed + "a 6\n", want: cumulative("1..20 6")},
			{at: 30, proto: withCreated(7, 1), want: cumulative("1..30 7")},
		},
	}, {
		name: "a series that came back is a new one",
		steps: []step{
			{at: 10, text: typed + "a 5\n", want: cumulative("-..10 5")},
			{at: 20, text: typed + "a 4\n", want: cumulative("10..20 4")},
			{at: 30, text: "b 1\n", want: unindent(`
				b prometheus.type=unknown: gauge
				  {} -..30 1
			`) + cumulative("-..30 no recorded value")},
			{at: 40, text: typed + "a 6\n", want: cumulative("-..40 6") + unindent(`
				b prometheus.type=unknown: gauge
				  {} -..40 no recorded value
			`)},
		},
	}, {
		name: "a histogram starts anew when its count or any bucket decreases",
		steps: []step{
			{at: 10, proto: histograms(10, 1, 2, 2, 6), want: buckets2("-..10", 10, "[2 4 4]")},
			{at: 20, proto: histograms(12, 1, 2, 2, 8), want: buckets2("-..20", 12, "[2 6 4]")},
			{at: 30, proto: histograms(12, 1, 2, 2, 7), want: buckets2("20..30", 12, "[2 5 5]")},
			{at: 40, proto: histograms(11, 1, 2, 2, 7), want: buckets2("30..40", 11, "[2 5 4]")},
			{at: 50, proto: histograms(11, 1, 2, 2, 7), want: buckets2("30..50", 11, "[2 5 4]")},
		},
	}, {
		name: "a summary starts anew when its count decreases",
		steps: []step{
			{at: 10, text: "# TYPE a summary\na_sum 1\na_count 3\n", want: `
				a prometheus.type=summary: summary
				  {} -..10 count=3 sum=1
			`},
			{at: 20, text: "# TYPE a summary\na_sum 5\na_count 2\n", want: `
				a prometheus.type=summary: summary
				  {} 10..20 count=2 sum=5
			`},
		},
	}})
}

// cumulative renders a counter without labels.
func cumulative(point string) string {
	return "a prometheus.type=counter: cumulative sum\n  {} " + point + "\n"
}

// histograms returns a family of one histogram whose sum is its count.
func histograms(count uint64, boundsAndCounts ...float64) []*dto.MetricFamily {
	return []*dto.MetricFamily{family("a", dto.MetricType_HISTOGRAM, histogram(&dto.Histogram{
		SampleCount: proto.Uint64(count), SampleSum: proto.Float64(float64(count)), Bucket: buckets(boundsAndCounts...),
	}))}
}

// buckets2 renders such a family with the bounds 1 and 2.
func buckets2(times string, count int, counts string) string {
	return fmt.Sprintf("a prometheus.type=histogram: cumulative histogram\n  {} %s count=%d sum=%d bounds=[1 2] counts=%s\n", times, count, count, counts)
}

func TestRule06_TimestampIsKept(t *testing.T) {
	ms := func(v int64) *dto.Metric { m := gauge(1); m.TimestampMs = &v; return m }
	page := func(m *dto.Metric) []*dto.MetricFamily {
		return []*dto.MetricFamily{family("a", dto.MetricType_GAUGE, m), family("b", dto.MetricType_GAUGE, gauge(2))}
	}
	want := func(time string) string {
		return "a prometheus.type=gauge: gauge\n  {} -.." + time + " 1\nb prometheus.type=gauge: gauge\n  {} -..20 2\n"
	}
	const wantNone = "b prometheus.type=gauge: gauge\n  {} -..20 2\n"
	invalid := map[string]int{translate.DropInvalidTimestamp: 1}
	run(t, []scenario{
		{name: "of the past", steps: []step{{at: 20, proto: page(ms(at(12.5).UnixMilli())), want: want("12.5")}}},
		{name: "of the future", steps: []step{{at: 20, proto: page(ms(at(1e6).UnixMilli())), want: want("1e+06")}}},
		{name: "of the far future", steps: []step{{at: 20, proto: page(ms(9223372036854)), want: want("2262")}}},
		{name: "zero", steps: []step{{at: 20, proto: page(ms(0)), want: want("-")}}},
		{name: "one millisecond", steps: []step{{at: 20, proto: page(ms(1)), want: want("1970")}}},
		{name: "negative", steps: []step{{at: 20, proto: page(ms(-1)), want: wantNone, dropped: invalid}}},
		{name: "most negative", steps: []step{{at: 20, proto: page(ms(math.MinInt64)), want: wantNone, dropped: invalid}}},
		{name: "beyond what can be said", steps: []step{{at: 20, proto: page(ms(9223372036855)), want: wantNone, dropped: invalid}}},
		{name: "most positive", steps: []step{{at: 20, proto: page(ms(math.MaxInt64)), want: wantNone, dropped: invalid}}},
		{name: "of a text page, one for all that has none", steps: []step{{at: 20.25, text: `
			# TYPE a counter
			a{l="1"} 1 1767225612500
			a{l="2"} 2
			# TYPE b summary
			b_sum 1 1767225613500
			b_count 1 1767225613500
		`, want: `
			a prometheus.type=counter: cumulative sum
			  {l="1"} -..12.5 1
			  {l="2"} -..20.25 2
			b prometheus.type=summary: summary
			  {} -..13.5 count=1 sum=1
		`}}},
		{name: "starts of a series with its own time are of that time", steps: []step{
			{at: 20, text: "# TYPE a counter\na 5 1767225612500\n", want: cumulative("-..12.5 5")},
			{at: 30, text: "# TYPE a counter\na 1 1767225622500\n", want: cumulative("12.5..22.5 1")},
		}},
		{name: "a point of the past is not after its start", steps: []step{
			{at: 20, text: "# TYPE a counter\na 5 1767225612500\n" + processStart(13), want: cumulative("-..12.5 5") +
				"process_start_time_seconds prometheus.type=unknown: gauge\n  {} -..20 1.767225613e+09\n"},
		}},
	})
}

func TestRule07_CounterIsMonotonicSum(t *testing.T) {
	run(t, []scenario{{
		name: "with its exemplar",
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{family("a", dto.MetricType_COUNTER,
				counter(1e300, "l", "1"), counter(0, "l", "2"), counter(nan, "l", "3"), counter(inf, "l", "4"),
				&dto.Metric{Label: labels("l", "5"), Counter: &dto.Counter{
					Value:    proto.Float64(2.5),
					Exemplar: &dto.Exemplar{Value: proto.Float64(0.5), Timestamp: created(9), Label: labels("k", "v")},
				}},
			)},
			want: `
				a prometheus.type=counter: cumulative sum
				  {l="1"} -..10 1e+300
				  {l="2"} -..10 0
				  {l="3"} -..10 NaN
				  {l="4"} -..10 +Inf
				  {l="5"} -..10 2.5
				    exemplar 0.5 at 9 trace= span= {k="v"}
			`,
		}},
	}, {
		name: "one below zero is none",
		steps: []step{{
			at: 10,
			text: `
				# TYPE a counter
				a{l="1"} -1
				a{l="2"} -Inf
				a{l="3"} 3
			`,
			want: `
				a prometheus.type=counter: cumulative sum
				  {l="3"} -..10 3
			`,
			dropped: map[string]int{translate.DropNegativeCounter: 2},
		}},
	}, {
		name: "NaN between two values hides no reset",
		steps: []step{
			{at: 10, text: "# TYPE a counter\na 5\n", want: cumulative("-..10 5")},
			{at: 20, text: "# TYPE a counter\na NaN\n", want: cumulative("-..20 NaN")},
			{at: 30, text: "# TYPE a counter\na 3\n", want: cumulative("10..30 3")},
		},
	}})
}

func TestRule08_GaugeIsGauge(t *testing.T) {
	run(t, []scenario{{
		name: "whatever its name and value",
		steps: []step{{
			at: 10,
			text: `
				# TYPE engine_daemon_events_subscribers_total gauge
				engine_daemon_events_subscribers_total{l="1"} -1
				engine_daemon_events_subscribers_total{l="2"} NaN
				engine_daemon_events_subscribers_total{l="3"} -Inf
			`,
			want: `
				engine_daemon_events_subscribers_total prometheus.type=gauge: gauge
				  {l="1"} -..10 -1
				  {l="2"} -..10 NaN
				  {l="3"} -..10 -Inf
			`,
		}},
	}})
}

func TestRule09_InfoIsWhatItsTypeSays(t *testing.T) {
	// The types info and stateset are OpenMetrics', which is not asked for.
	if _, err := decodeText([]byte("# TYPE a info\na_info 1\n")); err == nil {
		t.Error("the text format has got a type info: rule 9 has something to do")
	}
	run(t, []scenario{{
		name: "a gauge, for an engine",
		steps: []step{{
			at: 10,
			text: `
				# TYPE engine_daemon_engine_info gauge
				engine_daemon_engine_info{commit="abc"} 1
				# TYPE containerd_build_info_total counter
				containerd_build_info_total{version="2"} 1
			`,
			want: `
				containerd_build_info_total prometheus.type=counter: cumulative sum
				  {version="2"} -..10 1
				engine_daemon_engine_info prometheus.type=gauge: gauge
				  {commit="abc"} -..10 1
			`,
		}},
	}})
}

func TestRule10_UntypedIsGauge(t *testing.T) {
	untyped := func(m *dto.Metric) []*dto.MetricFamily {
		return []*dto.MetricFamily{{Name: proto.String("a"), Metric: []*dto.Metric{m}}}
	}
	run(t, []scenario{{
		name: "in text",
		steps: []step{{at: 10, text: "a_total 1\n# TYPE b untyped\nb 2\n", want: `
			a_total prometheus.type=unknown: gauge
			  {} -..10 1
			b prometheus.type=unknown: gauge
			  {} -..10 2
		`}},
	}, {
		name: "without a type the message decides",
		steps: []step{
			{at: 10, proto: untyped(&dto.Metric{Untyped: &dto.Untyped{Value: proto.Float64(1)}}), want: `
				a prometheus.type=unknown: gauge
				  {} -..10 1
			`},
			{at: 20, proto: untyped(gauge(2)), want: `
				a prometheus.type=gauge: gauge
				  {} -..20 2
			`},
		},
	}, {
		name: "proto3 leaves out the type counter, which is 0, and the value 0",
		steps: []step{
			{at: 10, proto: untyped(&dto.Metric{Counter: &dto.Counter{}}), want: cumulative("-..10 0")},
		},
	}, {
		name: "a type that is not known has no value",
		steps: []step{{
			at:      10,
			proto:   []*dto.MetricFamily{family("a", dto.MetricType(65), gauge(1)), family("b", dto.MetricType(-1), gauge(1))},
			dropped: map[string]int{translate.DropNoValue: 2},
		}},
	}, {
		name: "a value of another type is none",
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{
				family("a", dto.MetricType_COUNTER, gauge(1), nil, &dto.Metric{}),
				family("b", dto.MetricType_GAUGE, counter(1)),
				family("c", dto.MetricType_HISTOGRAM, counter(1)),
				family("d", dto.MetricType_SUMMARY, counter(1)),
				family("e", dto.MetricType_UNTYPED, counter(1)),
				{Name: proto.String("f"), Metric: []*dto.Metric{nil}},
				family("g", dto.MetricType_UNTYPED, &dto.Metric{Untyped: &dto.Untyped{Value: proto.Float64(1)}}),
			},
			want: `
				g prometheus.type=unknown: gauge
				  {} -..10 1
			`,
			// The second and the third one of a are also duplicates.
			dropped: map[string]int{translate.DropNoValue: 6, translate.DropDuplicate: 2},
		}},
	}})
}

func TestRule11_HistogramBuckets(t *testing.T) {
	h := func(count uint64, b ...*dto.Bucket) []*dto.MetricFamily {
		return []*dto.MetricFamily{
			family("a", dto.MetricType_HISTOGRAM, histogram(&dto.Histogram{
				SampleCount: proto.Uint64(count), SampleSum: proto.Float64(1.5), Bucket: b,
			})),
			family("z", dto.MetricType_GAUGE, gauge(1)),
		}
	}
	const z = "z prometheus.type=gauge: gauge\n  {} -..10 1\n"
	good := func(rest string) string {
		return "a prometheus.type=histogram: cumulative histogram\n  {} -..10 " + rest + "\n" + z
	}
	invalid := map[string]int{translate.DropInvalidBuckets: 1}
	float := map[string]int{translate.DropFloatHistogram: 1}
	run(t, []scenario{
		{name: "of a text page", steps: []step{{at: 10, text: `
			# TYPE a histogram
			a_bucket{le="0.1",l="v"} 1
			a_bucket{le="1",l="v"} 4
			a_bucket{le="+Inf",l="v"} 6
			a_sum{l="v"} 7.5
			a_count{l="v"} 6
			# TYPE z gauge
			z 1
		`, want: `
			a prometheus.type=histogram: cumulative histogram
			  {l="v"} -..10 count=6 sum=7.5 bounds=[0.1 1] counts=[1 3 2]
			z prometheus.type=gauge: gauge
			  {} -..10 1
		`}}},
		{name: "with +Inf", steps: []step{{at: 10, proto: h(5, buckets(1, 2, 2, 2, inf, 5)...),
			want: good("count=5 sum=1.5 bounds=[1 2] counts=[2 0 3]")}}},
		{name: "without +Inf", steps: []step{{at: 10, proto: h(5, buckets(1, 2, 2, 2)...),
			want: good("count=5 sum=1.5 bounds=[1 2] counts=[2 0 3]")}}},
		{name: "in any order", steps: []step{{at: 10, proto: h(5, buckets(inf, 5, 2, 4, -1, 1, 1, 2)...),
			want: good("count=5 sum=1.5 bounds=[-1 1 2] counts=[1 1 2 1]")}}},
		{name: "repeated", steps: []step{{at: 10, proto: h(5, buckets(1, 2, inf, 5, 1, 2, inf, 5)...),
			want: good("count=5 sum=1.5 bounds=[1] counts=[2 3]")}}},
		{name: "none", steps: []step{{at: 10, proto: h(5), want: good("count=5 sum=1.5 bounds=[] counts=[5]")}}},
		{name: "none observed", steps: []step{{at: 10, proto: h(0, buckets(1, 0)...), want: good("count=0 sum=1.5 bounds=[1] counts=[0 0]")}}},
		{name: "at -Inf", steps: []step{{at: 10, proto: h(5, buckets(-inf, 1, 1, 2)...),
			want: good("count=5 sum=1.5 bounds=[-Inf 1] counts=[1 1 3]")}}},
		{name: "decreasing", steps: []step{{at: 10, proto: h(5, buckets(1, 3, 2, 2)...), want: z, dropped: invalid}}},
		{name: "above the count", steps: []step{{at: 10, proto: h(5, buckets(1, 6)...), want: z, dropped: invalid}}},
		{name: "+Inf is not the count", steps: []step{{at: 10, proto: h(5, buckets(1, 2, inf, 4)...),
			want: good("count=5 sum=1.5 bounds=[1] counts=[2 3]")}}},
		{name: "+Inf is below another", steps: []step{{at: 10, proto: h(5, buckets(1, 4, inf, 3)...), want: z, dropped: invalid}}},
		{name: "contradictory", steps: []step{{at: 10, proto: h(5, buckets(1, 2, 1, 3)...), want: z, dropped: invalid}}},
		{name: "with a bound that is no number", steps: []step{{at: 10, proto: h(5, buckets(nan, 2)...), want: z, dropped: invalid}}},
		{name: "empty", steps: []step{{at: 10, proto: h(5, nil, nil), want: good("count=5 sum=1.5 bounds=[0] counts=[0 5]")}}},
		{name: "counted in floats", steps: []step{{at: 10, proto: h(5, &dto.Bucket{UpperBound: proto.Float64(1), CumulativeCountFloat: proto.Float64(1.5)}),
			want: z, dropped: float}}},
		{name: "counted in floats, in text", steps: []step{{at: 10, text: `
			# TYPE a histogram
			a_bucket{le="+Inf"} 1.5
			a_count 1.5
			a_sum 2
			# TYPE z gauge
			z 1
		`, want: z, dropped: float}}},
		{name: "a count that is no number, in text", steps: []step{{at: 10, text: `
			# TYPE a histogram
			a_bucket{le="+Inf"} NaN
			a_count NaN
			a_sum 2
			# TYPE z gauge
			z 1
		`, want: z, dropped: float}}},
		{name: "a count that cannot be", steps: []step{{at: 10, proto: h(1 << 63), want: z, dropped: map[string]int{translate.DropInvalidCount: 1}}}},
	})
}

func TestRule12_WithoutCountThePointIsDropped(t *testing.T) {
	run(t, []scenario{{
		name: "histogram and summary",
		steps: []step{{
			at: 10,
			text: `
				# TYPE a histogram
				a_bucket{le="1"} 1
				a_bucket{le="+Inf"} 1
				a_sum 1
				# TYPE b summary
				b{quantile="0.5"} 1
				b_sum 1
				# TYPE c histogram
				c 1
				# TYPE z gauge
				z 1
			`,
			want: `
				z prometheus.type=gauge: gauge
				  {} -..10 1
			`,
			dropped: map[string]int{translate.DropNoCount: 3},
		}},
	}})
}

func TestRule13_WithoutSumTheSumIsUnset(t *testing.T) {
	unset := native(0, 0, 0, spans(1, 1), 1)
	unset.SampleSum = nil
	run(t, []scenario{{
		name: "histogram unset, summary zero",
		steps: []step{{
			at: 10,
			text: `
				# TYPE a histogram
				a_bucket{le="+Inf"} 1
				a_count 1
				# TYPE b summary
				b{quantile="0.5"} 1
				b_count 1
			`,
			want: `
				a prometheus.type=histogram: cumulative histogram
				  {} -..10 count=1 bounds=[] counts=[1]
				b prometheus.type=summary: summary
				  {} -..10 count=1 sum=0 q0.5=1
			`,
		}},
	}, {
		name: "native histogram unset",
		steps: []step{{
			at:    10,
			proto: []*dto.MetricFamily{family("n", dto.MetricType_HISTOGRAM, histogram(unset))},
			want: `
				n prometheus.type=histogram: cumulative exponential histogram
				  {} -..10 count=1 scale=0 zero=0 threshold=1e-128 positive=0[1] negative=0[]
			`,
		}},
	}, {
		name: "a NaN of the page is no mark",
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{family("a", dto.MetricType_HISTOGRAM, histogram(&dto.Histogram{
				SampleCount: proto.Uint64(1), SampleSum: proto.Float64(math.Float64frombits(0x7ff0000000000003)),
			}))},
			want: `
				a prometheus.type=histogram: cumulative histogram
				  {} -..10 count=1 sum=NaN bounds=[] counts=[1]
			`,
		}},
	}, {
		name:  "a delta of sums that are not known is not known",
		delta: true,
		steps: []step{
			{at: 10, text: "# TYPE a histogram\na_count 1\n", want: "", dropped: map[string]int{translate.DropBaseline: 1}},
			{at: 20, text: "# TYPE a histogram\na_count 3\na_sum 3\n", want: `
				a prometheus.type=histogram: delta histogram
				  {} 10..20 count=2 bounds=[] counts=[2]
			`},
			{at: 30, text: "# TYPE a histogram\na_count 3\na_sum +Inf\n", want: `
				a prometheus.type=histogram: delta histogram
				  {} 20..30 count=0 bounds=[] counts=[0]
			`},
		},
	}})
}

func TestRule14_NativeHistogramIsExponential(t *testing.T) {
	page := func(h *dto.Histogram) []*dto.MetricFamily {
		return []*dto.MetricFamily{
			family("a", dto.MetricType_HISTOGRAM, histogram(h)),
			family("z", dto.MetricType_GAUGE, gauge(1)),
		}
	}
	const z = "z prometheus.type=gauge: gauge\n  {} -..10 1\n"
	good := func(rest string) string {
		return "a prometheus.type=histogram: cumulative exponential histogram\n  {} -..10 " + rest + "\n" + z
	}
	with := func(change func(*dto.Histogram)) *dto.Histogram {
		h := native(0, 1.5, 0, spans(1, 1), 3)
		change(h)
		return h
	}
	one := func(name string, h *dto.Histogram, want string, dropped string) scenario {
		sc := scenario{name: name, steps: []step{{at: 10, proto: page(h), want: want}}}
		if dropped != "" {
			sc.steps[0].dropped = map[string]int{dropped: 1}
		}
		return sc
	}
	wide := func(n int) []int64 {
		deltas := make([]int64, n)
		deltas[0] = 1
		return deltas
	}
	scenarios := []scenario{
		one("spans, gaps, deltas, negative buckets and zero",
			&dto.Histogram{
				SampleCount: proto.Uint64(99), SampleSum: proto.Float64(-4), Schema: proto.Int32(3),
				ZeroThreshold: proto.Float64(0.5), ZeroCount: proto.Uint64(2),
				PositiveSpan: spans(-2, 2, 0, 1, 3, 2), PositiveDelta: []int64{1, 2, -3, 4, -1},
				NegativeSpan: spans(5, 1), NegativeDelta: []int64{7},
			},
			good("count=20 sum=-4 scale=3 zero=2 threshold=0.5 positive=-3[1 3 0 0 0 0 4 3] negative=4[7]"), ""),
		one("schema -4", with(func(h *dto.Histogram) { h.Schema = proto.Int32(-4) }),
			good("count=3 sum=1.5 scale=-4 zero=0 threshold=1e-128 positive=0[3] negative=0[]"), ""),
		one("schema 8", with(func(h *dto.Histogram) { h.Schema = proto.Int32(8) }),
			good("count=3 sum=1.5 scale=8 zero=0 threshold=1e-128 positive=0[3] negative=0[]"), ""),
		one("schema -5", with(func(h *dto.Histogram) { h.Schema = proto.Int32(-5) }), z, translate.DropNativeSchema),
		one("schema 9", with(func(h *dto.Histogram) { h.Schema = proto.Int32(9) }), z, translate.DropNativeSchema),
		one("custom buckets", with(func(h *dto.Histogram) { h.Schema = proto.Int32(-53) }), z, translate.DropNativeSchema),
		one("without observations", native(3, 0, 0, spans(0, 0)),
			good("count=0 sum=0 scale=3 zero=0 threshold=1e-128 positive=-1[] negative=0[]"), ""),
		one("NaN was observed", with(func(h *dto.Histogram) { h.SampleCount, h.SampleSum = proto.Uint64(4), proto.Float64(nan) }),
			good("count=3 sum=NaN scale=0 zero=0 threshold=1e-128 positive=0[3] negative=0[]"), ""),
		one("the count is that of the buckets", with(func(h *dto.Histogram) { h.SampleCount = nil }),
			good("count=3 sum=1.5 scale=0 zero=0 threshold=1e-128 positive=0[3] negative=0[]"), ""),
		one("infinity was observed", with(func(h *dto.Histogram) {
			h.PositiveSpan, h.PositiveDelta = spans(1024, 2), []int64{3, -1}
			h.NegativeSpan, h.NegativeDelta = spans(1025, 1), []int64{1}
		}), good("count=3 sum=1.5 scale=0 zero=0 threshold=1e-128 positive=1023[3] negative=1024[]"), ""),
		one("smallest and largest bucket at schema 8", with(func(h *dto.Histogram) {
			h.Schema = proto.Int32(8)
			h.PositiveSpan, h.NegativeSpan, h.NegativeDelta = spans(-1074*256, 1), spans(1024*256, 1), []int64{1}
		}), good("count=4 sum=1.5 scale=8 zero=0 threshold=1e-128 positive=-274945[3] negative=262143[1]"), ""),
		one("smallest bucket at schema -4", with(func(h *dto.Histogram) {
			h.Schema, h.PositiveSpan = proto.Int32(-4), spans(-67, 1)
		}), good("count=3 sum=1.5 scale=-4 zero=0 threshold=1e-128 positive=-68[3] negative=0[]"), ""),
		one("below the smallest bucket", with(func(h *dto.Histogram) {
			h.Schema, h.PositiveSpan = proto.Int32(-4), spans(-68, 1)
		}), z, translate.DropInvalidBuckets),
		one("above the overflow bucket", with(func(h *dto.Histogram) { h.PositiveSpan = spans(1026, 1) }), z, translate.DropInvalidBuckets),
		one("offset 2^30", with(func(h *dto.Histogram) { h.PositiveSpan = spans(1<<30, 1) }), z, translate.DropInvalidBuckets),
		one("offset -2^31", with(func(h *dto.Histogram) { h.PositiveSpan = spans(math.MinInt32, 1) }), z, translate.DropInvalidBuckets),
		one("offset -2^31 without buckets", native(0, 0, 0, spans(math.MinInt32, 0)), z, translate.DropInvalidBuckets),
		one("gap of 2^30", with(func(h *dto.Histogram) {
			h.PositiveSpan, h.PositiveDelta = spans(1, 1, 1<<30, 1), []int64{3, 0}
		}), z, translate.DropInvalidBuckets),
		one("gap of 2^30 without observations behind it", with(func(h *dto.Histogram) {
			h.PositiveSpan, h.PositiveDelta = spans(1, 1, 1<<30, 1, 1<<30, 1), []int64{3, -3, 0}
		}), good("count=3 sum=1.5 scale=0 zero=0 threshold=1e-128 positive=0[3] negative=0[]"), ""),
		one("length 2^31-1 and one delta", with(func(h *dto.Histogram) { h.PositiveSpan = spans(1, math.MaxInt32) }), z, translate.DropInvalidBuckets),
		one("negative gap", with(func(h *dto.Histogram) {
			h.PositiveSpan, h.PositiveDelta = spans(1, 1, -1, 1), []int64{3, 0}
		}), z, translate.DropInvalidBuckets),
		one("negative bucket", with(func(h *dto.Histogram) { h.PositiveDelta = []int64{-1} }), z, translate.DropInvalidBuckets),
		one("more deltas than the spans hold", with(func(h *dto.Histogram) { h.PositiveDelta = []int64{1, 1} }), z, translate.DropInvalidBuckets),
		one("fewer", with(func(h *dto.Histogram) { h.PositiveDelta = nil }), z, translate.DropInvalidBuckets),
		one("nil spans", with(func(h *dto.Histogram) { h.PositiveSpan, h.PositiveDelta = []*dto.BucketSpan{nil}, nil }),
			good("count=0 sum=1.5 scale=0 zero=0 threshold=1e-128 positive=-1[] negative=0[]"), ""),
		one("threshold that is no number", with(func(h *dto.Histogram) { h.ZeroThreshold = proto.Float64(nan) }), z, translate.DropInvalidBuckets),
		one("infinite threshold", with(func(h *dto.Histogram) { h.ZeroThreshold = proto.Float64(inf) }), z, translate.DropInvalidBuckets),
		one("a bucket that overflows", with(func(h *dto.Histogram) {
			h.PositiveSpan, h.PositiveDelta = spans(1, 2), []int64{1, math.MaxInt64}
		}), z, translate.DropInvalidBuckets),
		one("buckets that overflow", with(func(h *dto.Histogram) {
			h.PositiveSpan, h.PositiveDelta = spans(1, 2), []int64{math.MaxInt64, 0}
		}), z, translate.DropInvalidCount),
		one("a count that overflows", with(func(h *dto.Histogram) {
			h.ZeroCount, h.PositiveDelta = proto.Uint64(math.MaxInt64), []int64{math.MaxInt64}
		}), z, translate.DropInvalidCount),
		one("floats", with(func(h *dto.Histogram) {
			h.SampleCountFloat, h.PositiveDelta, h.PositiveCount = proto.Float64(3), nil, []float64{3}
		}), z, translate.DropFloatHistogram),
		one("too wide", with(func(h *dto.Histogram) {
			h.Schema, h.PositiveSpan, h.PositiveDelta = proto.Int32(8), spans(0, 1, 1<<14, 1), []int64{1, 0}
		}), z, translate.DropNativeWidth),
		one("beside classic buckets the native one wins", with(func(h *dto.Histogram) { h.Bucket = buckets(1, 1, 2, 3) }),
			good("count=3 sum=1.5 scale=0 zero=0 threshold=1e-128 positive=0[3] negative=0[]"), ""),
		one("classic buckets stand in for a native one that cannot be", with(func(h *dto.Histogram) {
			h.Schema, h.Bucket = proto.Int32(-53), buckets(1, 1, 2, 3)
		}), "a prometheus.type=histogram: cumulative histogram\n  {} -..10 count=3 sum=1.5 bounds=[1 2] counts=[1 2 0]\n"+z, ""),
		{name: "decided for each metric", steps: []step{{at: 10, proto: []*dto.MetricFamily{family("a", dto.MetricType_HISTOGRAM,
			histogram(native(0, 1, 0, spans(1, 1), 1), "l", "1"),
			histogram(&dto.Histogram{SampleCount: proto.Uint64(2), SampleSum: proto.Float64(2), Bucket: buckets(1, 1)}, "l", "2"),
			histogram(native(0, 3, 0, spans(1, 1), 3), "l", "3"),
		)}, want: `
			a prometheus.type=histogram: cumulative exponential histogram
			  {l="1"} -..10 count=1 sum=1 scale=0 zero=0 threshold=1e-128 positive=0[1] negative=0[]
			  {l="3"} -..10 count=3 sum=3 scale=0 zero=0 threshold=1e-128 positive=0[3] negative=0[]
			a prometheus.type=histogram: cumulative histogram
			  {l="2"} -..10 count=2 sum=2 bounds=[1] counts=[1 1]
		`}}},
	}
	run(t, scenarios)

	t.Run("the widest", func(t *testing.T) {
		h := native(8, 1, 0, spans(0, 1<<14), wide(1<<14)...)
		r := translateOnce(t, translate.Config{}, 10, page(h)...)
		p := r.scopes()[0].Metrics[0].GetExponentialHistogram().DataPoints[0]
		if got := len(p.Positive.BucketCounts); got != 1<<14 || p.Count != 1<<14 {
			t.Errorf("%d buckets with %d observations, want %d of each", got, p.Count, 1<<14)
		}
	})
	t.Run("all gaps of a page are bounded", func(t *testing.T) {
		// 16,000 metrics of 30 bytes could ask for 2 GiB of empty buckets.
		mf := family("a", dto.MetricType_HISTOGRAM)
		for i := range 16000 {
			mf.Metric = append(mf.Metric, histogram(native(8, 1, 0, spans(0, 1, 1<<14-2, 1), 1, 0), "l", fmt.Sprint(i)))
		}
		r := translateOnce(t, translate.Config{}, 10, mf)
		got, n := 0, 0
		for _, p := range r.scopes()[0].Metrics[0].GetExponentialHistogram().DataPoints {
			got += len(p.Positive.BucketCounts)
			n++
		}
		if want := 1<<20 + 2*n; got > want {
			t.Errorf("%d buckets, want at most %d", got, want)
		}
		if n == 0 || r.Dropped[translate.DropNativeWidth] != 16000-n {
			t.Errorf("%d points and dropped %v, want some and the others", n, r.Dropped)
		}
	})
}

func TestRule15_Summary(t *testing.T) {
	page := func(qs ...float64) []*dto.MetricFamily {
		s := &dto.Summary{SampleCount: proto.Uint64(3), SampleSum: proto.Float64(4.5)}
		for i := 0; i < len(qs); i += 2 {
			s.Quantile = append(s.Quantile, &dto.Quantile{Quantile: proto.Float64(qs[i]), Value: proto.Float64(qs[i+1])})
		}
		return []*dto.MetricFamily{family("a", dto.MetricType_SUMMARY, &dto.Metric{Summary: s})}
	}
	good := func(quantiles string) string {
		return "a prometheus.type=summary: summary\n  {} -..10 count=3 sum=4.5" + quantiles + "\n"
	}
	invalid := map[string]int{translate.DropInvalidQuantile: 1}
	run(t, []scenario{
		{name: "NaN is kept", steps: []step{{at: 10, text: `
			# TYPE a summary
			a{quantile="0.5"} NaN
			a{quantile="0.99"} 2
			a_sum 4.5
			a_count 3
		`, want: good(" q0.5=NaN q0.99=2")}}},
		{name: "without quantiles", steps: []step{{at: 10, proto: page(), want: good("")}}},
		{name: "in any order", steps: []step{{at: 10, proto: page(1, 3, 0, 1, 0.5, 2), want: good(" q0=1 q0.5=2 q1=3")}}},
		{name: "repeated", steps: []step{{at: 10, proto: page(0.5, 2, 0.9, nan, 0.5, 2, 0.9, nan), want: good(" q0.5=2 q0.9=NaN")}}},
		{name: "contradictory", steps: []step{{at: 10, proto: page(0.5, 2, 0.5, 3), want: "", dropped: invalid}}},
		{name: "above 1", steps: []step{{at: 10, proto: page(99, 2), want: "", dropped: invalid}}},
		{name: "below 0", steps: []step{{at: 10, proto: page(-0.1, 2), want: "", dropped: invalid}}},
		{name: "no number", steps: []step{{at: 10, proto: page(nan, 2), want: "", dropped: invalid}}},
		{name: "a count that cannot be", steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{family("a", dto.MetricType_SUMMARY, &dto.Metric{Summary: &dto.Summary{
				SampleCount: proto.Uint64(math.MaxUint64), SampleSum: proto.Float64(1),
			}})},
			want: "", dropped: map[string]int{translate.DropInvalidCount: 1},
		}}},
		{name: "is cumulative whatever the preference", delta: true, steps: []step{
			{at: 10, proto: page(), want: good("")},
		}},
	})
}

func TestRule16_GaugeHistogramIsDropped(t *testing.T) {
	run(t, []scenario{{
		name: "target_info is not even counted",
		steps: []step{{
			at:    10,
			proto: []*dto.MetricFamily{family("target_info", dto.MetricType_GAUGE_HISTOGRAM, gauge(1, "a", "b"))},
		}},
	}, {
		name: "classic and native",
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{
				family("a", dto.MetricType_GAUGE_HISTOGRAM,
					histogram(&dto.Histogram{SampleCount: proto.Uint64(1), SampleSum: proto.Float64(1)}, "l", "1"),
					histogram(native(0, 1, 0, spans(1, 1), 1), "l", "2")),
				family("z", dto.MetricType_GAUGE, gauge(1)),
			},
			want: `
				z prometheus.type=gauge: gauge
				  {} -..10 1
			`,
			dropped: map[string]int{translate.DropGaugeHistogram: 2},
		}},
	}})
}

func TestRule17_Exemplars(t *testing.T) {
	const trace, span = "0102030405060708090a0b0c0d0e0f10", "0102030405060708"
	exemplar := func(v float64, pairs ...string) *dto.Exemplar {
		return &dto.Exemplar{Value: proto.Float64(v), Timestamp: created(9.5), Label: labels(pairs...)}
	}
	c := func(e *dto.Exemplar) []*dto.MetricFamily {
		m := counter(1)
		m.Counter.Exemplar = e
		return []*dto.MetricFamily{family("a", dto.MetricType_COUNTER, m)}
	}
	withTime := func(ts *timestamppb.Timestamp) *dto.Exemplar {
		e := exemplar(2)
		e.Timestamp = ts
		return e
	}
	bucketed := &dto.Histogram{SampleCount: proto.Uint64(3), SampleSum: proto.Float64(3), Bucket: buckets(1, 1, 2, 2, inf, 3)}
	bucketed.Bucket[0].Exemplar = exemplar(0.5, "l", "1")
	bucketed.Bucket[2].Exemplar = exemplar(9, "l", "3")
	both := native(0, 3, 0, spans(1, 1), 3)
	both.Bucket = bucketed.Bucket
	own := native(0, 3, 0, spans(1, 1), 3)
	own.Bucket = bucketed.Bucket
	own.Exemplars = []*dto.Exemplar{exemplar(1, "l", "n1"), nil, exemplar(2, "l", "n2")}

	one := func(name string, e *dto.Exemplar, want string) scenario {
		return scenario{name: name, steps: []step{{at: 10, proto: c(e), want: cumulative("-..10 1") + want}}}
	}
	run(t, []scenario{
		one("ids become bytes", exemplar(2, "trace_id", trace, "span_id", span, "k", "v"),
			"    exemplar 2 at 9.5 trace=0102030405060708090a0b0c0d0e0f10 span=0102030405060708 {k=\"v\"}\n"),
		one("upper case", exemplar(2, "trace_id", "0102030405060708090A0B0C0D0E0F10"),
			"    exemplar 2 at 9.5 trace=0102030405060708090a0b0c0d0e0f10 span= {}\n"),
		one("too short", exemplar(2, "trace_id", trace[2:], "span_id", span),
			"    exemplar 2 at 9.5 trace= span=0102030405060708 {trace_id=\"02030405060708090a0b0c0d0e0f10\"}\n"),
		one("too long", exemplar(2, "trace_id", trace, "span_id", span+"00"),
			"    exemplar 2 at 9.5 trace=0102030405060708090a0b0c0d0e0f10 span= {span_id=\"010203040506070800\"}\n"),
		one("no hex", exemplar(2, "span_id", "010203040506070g"),
			"    exemplar 2 at 9.5 trace= span= {span_id=\"010203040506070g\"}\n"),
		one("all zero is no id", exemplar(2, "trace_id", "00000000000000000000000000000000", "span_id", "0000000000000000"),
			"    exemplar 2 at 9.5 trace= span= {trace_id=\"00000000000000000000000000000000\" span_id=\"0000000000000000\"}\n"),
		one("empty labels", exemplar(2, "trace_id", "", "k", "", "", "v"),
			"    exemplar 2 at 9.5 trace= span= {}\n"),
		one("not UTF-8", exemplar(2, "trace_id", "\xff", "k\xff", "v\xff"),
			"    exemplar 2 at 9.5 trace= span= {trace_id=\"\uFFFD\" k\uFFFD=\"v\uFFFD\"}\n"),
		one("without a timestamp", withTime(nil), "    exemplar 2 at - trace= span= {}\n"),
		one("with one that is none", withTime(&timestamppb.Timestamp{Seconds: -1}), "    exemplar 2 at - trace= span= {}\n"),
		{name: "of buckets", steps: []step{{at: 10,
			proto: []*dto.MetricFamily{family("a", dto.MetricType_HISTOGRAM, histogram(bucketed))},
			want: `
				a prometheus.type=histogram: cumulative histogram
				  {} -..10 count=3 sum=3 bounds=[1 2] counts=[1 1 1]
				    exemplar 0.5 at 9.5 trace= span= {l="1"}
				    exemplar 9 at 9.5 trace= span= {l="3"}
			`,
		}}},
		{name: "of a native histogram its own, else those of its buckets", steps: []step{{at: 10,
			proto: []*dto.MetricFamily{
				family("a", dto.MetricType_HISTOGRAM, histogram(own)),
				family("b", dto.MetricType_HISTOGRAM, histogram(both)),
			},
			want: `
				a prometheus.type=histogram: cumulative exponential histogram
				  {} -..10 count=3 sum=3 scale=0 zero=0 threshold=1e-128 positive=0[3] negative=0[]
				    exemplar 1 at 9.5 trace= span= {l="n1"}
				    exemplar 0 at - trace= span= {}
				    exemplar 2 at 9.5 trace= span= {l="n2"}
				b prometheus.type=histogram: cumulative exponential histogram
				  {} -..10 count=3 sum=3 scale=0 zero=0 threshold=1e-128 positive=0[3] negative=0[]
				    exemplar 0.5 at 9.5 trace= span= {l="1"}
				    exemplar 9 at 9.5 trace= span= {l="3"}
			`,
		}}},
		{name: "a delta has those of its interval", delta: true, steps: []step{
			{at: 9, proto: c(nil), dropped: map[string]int{translate.DropBaseline: 1}},
			{at: 10, proto: c(exemplar(2)), want: deltaSum("9..10 0") + "    exemplar 2 at 9.5 trace= span= {}\n"},
			{at: 11, proto: c(exemplar(2)), want: deltaSum("10..11 0")},
			{at: 12, proto: c(withTime(nil)), want: deltaSum("11..12 0") + "    exemplar 2 at - trace= span= {}\n"},
		}},
	})
}

// deltaSum renders a counter without labels.
func deltaSum(point string) string {
	return "a prometheus.type=counter: delta sum\n  {} " + point + "\n"
}

func TestRule18_ScopeLabelsAreTheScope(t *testing.T) {
	run(t, []scenario{{
		name: "name, version, schema URL and attributes",
		steps: []step{{
			at: 10,
			text: `
				# TYPE a counter
				a{otel_scope_name="x",otel_scope_version="v2",otel_scope_schema_url="http://s",otel_scope_mascot="gopher",l="1"} 1
				a{otel_scope_name="x",otel_scope_version="v2",otel_scope_schema_url="http://s",otel_scope_mascot="gopher",l="2"} 2
				a{otel_scope_name="x",otel_scope_version="v2",l="1"} 3
				a{l="1"} 4
				# TYPE b gauge
				b{otel_scope_name="",otel_scope_mascot="crab"} 5
				b{otel_scope_version="v2",otel_scope_name="x"} 6
				# TYPE c gauge
				c{otel_scope_=""} 7
				c{otel_scope_="x"} 8
			`,
			want: `
				a prometheus.type=counter: cumulative sum
				  {l="1"} -..10 4
				c prometheus.type=gauge: gauge
				  {} -..10 7
				scope "x" "v2" "http://s" {mascot="gopher"}
				a prometheus.type=counter: cumulative sum
				  {l="1"} -..10 1
				  {l="2"} -..10 2
				scope "x" "v2" "" {}
				a prometheus.type=counter: cumulative sum
				  {l="1"} -..10 3
				b prometheus.type=gauge: gauge
				  {} -..10 6
				scope "" "" "" {mascot="crab"}
				b prometheus.type=gauge: gauge
				  {} -..10 5
			`,
			dropped: map[string]int{translate.DropInvalidLabel: 1},
		}},
	}, {
		name: "one of them twice",
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{family("a", dto.MetricType_GAUGE,
				gauge(1, "otel_scope_name", "x", "otel_scope_name", "y"),
				gauge(2, "otel_scope_k", "x", "otel_scope_k", "y"),
				gauge(3, "otel_scope_name", "x", "otel_scope_version", "y"),
			)},
			want: `
				scope "x" "y" "" {}
				a prometheus.type=gauge: gauge
				  {} -..10 3
			`,
			dropped: map[string]int{translate.DropInvalidLabel: 2},
		}},
	}, {
		name: "a scope that vanished ends its series",
		steps: []step{
			{at: 10, text: "a{otel_scope_name=\"x\"} 1\n", want: `
				scope "x" "" "" {}
				a prometheus.type=unknown: gauge
				  {} -..10 1
			`},
			{at: 20, text: "a 1\n", want: `
				a prometheus.type=unknown: gauge
				  {} -..20 1
				scope "x" "" "" {}
				a prometheus.type=unknown: gauge
				  {} -..20 no recorded value
			`},
			{at: 30, text: "a 1\n", want: `
				a prometheus.type=unknown: gauge
				  {} -..30 1
			`},
		},
	}})
}

func TestRule19_DefaultScopeIsTheTranslator(t *testing.T) {
	r := translateOnce(t, translate.Config{Version: "v1.2.3"}, 10, text(t, "a 1\n")...)
	want := &metricpb.ScopeMetrics{Scope: &commonpb.InstrumentationScope{Name: "otelmetricsplugin/pkg/translate", Version: "v1.2.3"}}
	scopes := r.scopes()
	if len(scopes) != 1 || !proto.Equal(scopes[0].Scope, want.Scope) || scopes[0].SchemaUrl != "" {
		t.Errorf("scopes %v, want %v alone", scopes, want)
	}
}

func TestRule19_LabelsMayNameTheDefaultScope(t *testing.T) {
	run(t, []scenario{{
		name: "it is one scope",
		steps: []step{{
			at: 10,
			text: `
				a{l="1"} 1
				a{l="2",otel_scope_name="otelmetricsplugin/pkg/translate",otel_scope_version="v1"} 2
				a{l="3",otel_scope_name="otelmetricsplugin/pkg/translate"} 3
			`,
			want: `
				a prometheus.type=unknown: gauge
				  {l="1"} -..10 1
				  {l="2"} -..10 2
				scope "otelmetricsplugin/pkg/translate" "" "" {}
				a prometheus.type=unknown: gauge
				  {l="3"} -..10 3
			`,
		}},
	}})
}

func TestRule20_EngineInfoIsResource(t *testing.T) {
	const info = `
		# TYPE engine_daemon_engine_info gauge
		engine_daemon_engine_info{architecture="x86_64",commit="abc",daemon_id="ID:1",graphdriver="overlay2",kernel="6.1",os="Debian 12",os_type="linux",os_version="12",version="29.7.2"} 1
	`
	const series = `
		engine_daemon_engine_info prometheus.type=gauge: gauge
		  {architecture="x86_64" commit="abc" daemon_id="ID:1" graphdriver="overlay2" kernel="6.1" os="Debian 12" os_type="linux" os_version="12" version="29.7.2"} -..%d 1
	`
	const resource = `resource {host.arch="amd64" os.description="Debian 12" os.type="linux" os.version="12" service.instance.id="ID:1" service.version="29.7.2"}
`
	run(t, []scenario{{
		name:  "and the series stays as it is",
		steps: []step{{at: 10, text: info, want: resource + unindent(fmt.Sprintf(series, 10))}},
	}, {
		name: "whether it is wanted or not",
		keep: func(name string) bool { return name == "a" },
		steps: []step{{at: 10, text: unindent(info) + "a 1\n", want: resource + unindent(`
			a prometheus.type=unknown: gauge
			  {} -..10 1
		`)}},
	}, {
		name: "empty, unknown and broken labels, another architecture",
		keep: func(name string) bool { return name == "a" },
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{
				family("a", dto.MetricType_GAUGE, gauge(1)),
				family("engine_daemon_engine_info", dto.MetricType_GAUGE,
					gauge(1, "architecture", "aarch64", "daemon_id", "", "version", "\xff", "x", "y")),
			},
			want: "resource {host.arch=\"arm64\" service.version=\"\uFFFD\"}\na prometheus.type=gauge: gauge\n  {} -..10 1\n",
		}},
	}, {
		name:  "a page without it says nothing",
		steps: []step{{at: 10, text: "a 1\n", want: "a prometheus.type=unknown: gauge\n  {} -..10 1\n"}},
	}, {
		name: "a label of that name is the page's own, and stays",
		steps: []step{{at: 10, text: `
			a{"service.name"="x"} 1
			a{"service.name"="y"} 2
		`, want: `
			a prometheus.type=unknown: gauge
			  {service.name="x"} -..10 1
			  {service.name="y"} -..10 2
		`}},
	}})
}

func TestRule21_TargetInfoIsResource(t *testing.T) {
	run(t, []scenario{{
		name: "all of its labels, unaltered; no metric of its own",
		steps: []step{{
			at: 10,
			text: `
				# TYPE engine_daemon_engine_info gauge
				engine_daemon_engine_info{version="1",os_type="linux"} 1
				# TYPE target_info gauge
				target_info{service_name="x","service.version"="2",empty=""} 1
			`,
			want: `
				resource {os.type="linux" service.version="2" service_name="x"}
				engine_daemon_engine_info prometheus.type=gauge: gauge
				  {os_type="linux" version="1"} -..10 1
			`,
		}},
	}, {
		name: "what an SDK says of itself by default is left out, what it was told is not",
		steps: []step{
			{
				at:   10,
				text: `target_info{service_name="unknown_service:dockerd",telemetry_sdk_language="go",telemetry_sdk_name="opentelemetry",telemetry_sdk_version="1.21.0"} 1` + "\na 1\n",
				want: "a prometheus.type=unknown: gauge\n  {} -..10 1\n",
			},
			{
				at:   20,
				text: `target_info{deployment_environment="prod",service_name="unknown_service",telemetry_sdk_language="go"} 1` + "\na 1\n",
				want: "resource {deployment_environment=\"prod\"}\na prometheus.type=unknown: gauge\n  {} -..20 1\n",
			},
			{
				at:   30,
				text: `target_info{service_name="unknown_services",telemetry_sdk="x"} 1` + "\na 1\n",
				want: "resource {service_name=\"unknown_services\" telemetry_sdk=\"x\"}\na prometheus.type=unknown: gauge\n  {} -..30 1\n",
			},
		},
	}, {
		name: "what an earlier exposition said holds where one says nothing",
		steps: []step{
			{at: 10, text: "target_info{k=\"v\"} 1\na 1\n", want: "resource {k=\"v\"}\na prometheus.type=unknown: gauge\n  {} -..10 1\n"},
			{at: 20, text: "a 1\n", want: "resource {k=\"v\"}\na prometheus.type=unknown: gauge\n  {} -..20 1\n"},
			{at: 30, want: "resource {k=\"v\"}\na prometheus.type=unknown: gauge\n  {} -..30 no recorded value\n"},
			{at: 40, text: "target_info{l=\"w\"} 1\na 1\n", want: "resource {l=\"w\"}\na prometheus.type=unknown: gauge\n  {} -..40 1\n"},
		},
	}})
}

func TestTheResourceIsDefaultsThenTheExpositionThenTheConfiguration(t *testing.T) {
	cfg := translate.Config{
		Version:  "v1",
		Defaults: []attribute.KeyValue{attribute.String("z", "default"), attribute.String("a", "default"), attribute.String("b", "default")},
		Resource: []attribute.KeyValue{attribute.String("c", "configured"), attribute.String("b", "configured"), attribute.Bool("d", true)},
	}
	const want = `resource {a="exposition" b="configured" c="configured" d="" z="default"}`
	for name, newImplementation := range implementations {
		tr := newImplementation(cfg)
		r := tr.translate(t, encode(t, text(t, "target_info{a=\"exposition\",b=\"exposition\",c=\"exposition\"} 1\nx 1\n")...), at(10))
		for _, r := range []translated{r, tr.missed(t, at(20))} {
			if got, _, _ := strings.Cut(render(r.request), "\n"); got != want {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
			attrs := r.request.GetResourceMetrics()[0].GetResource().GetAttributes()
			if got := attrs[3].GetValue(); !got.GetBoolValue() {
				t.Errorf("%s: d is %v, want true", name, got)
			}
		}
	}
}

func TestRule22_SamplesAreCountedAsPrometheusDoes(t *testing.T) {
	for _, tc := range []struct {
		name          string
		families      []*dto.MetricFamily
		samples, kept int
	}{
		{"gauges, counters, untyped", text(t, "# TYPE a gauge\na 1\n# TYPE b counter\nb{l=\"1\"} 1\nb{l=\"2\"} 1\nx 1\n"), 4, 3},
		{"histogram", text(t, "# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n"), 4, 4},
		{"histogram without sum and count", text(t, "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\n"), 1, 1},
		{"summary", text(t, "# TYPE a summary\na{quantile=\"1\"} 1\na_sum 1\na_count 1\n"), 3, 3},
		{"summary without quantiles", text(t, "# TYPE a summary\na_sum 1\na_count 1\n"), 2, 2},
		{"histogram whose +Inf bucket is implied", histograms(2, 1, 1), 4, 4},
		{"native histogram", []*dto.MetricFamily{family("n", dto.MetricType_HISTOGRAM, histogram(native(0, 1, 0, spans(1, 1), 1)))}, 1, 1},
		{"dropped ones", []*dto.MetricFamily{family("a", dto.MetricType_COUNTER, counter(-1), counter(1), counter(1))}, 3, 3},
		{"target_info", text(t, "target_info{a=\"b\"} 1\n"), 1, 1},
		{"unwanted", text(t, "x{l=\"1\"} 1\nx{l=\"2\"} 1\n"), 2, 0},
		{"none", nil, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, newImplementation := range implementations {
				tr := newImplementation(translate.Config{Keep: func(name string) bool { return name != "x" }})
				r := tr.translate(t, encode(t, tc.families...), at(10))
				if r.Samples != tc.samples || r.Kept != tc.kept {
					t.Errorf("%s: %d samples, %d kept; want %d, %d", name, r.Samples, r.Kept, tc.samples, tc.kept)
				}
			}
		})
	}
	for name, want := range map[string]int{
		"2010-active.txt": 1679, "2010-active.pb": 1679, // lines that are no comments
		"297-active.txt": 1818, "297-active.pb": 1818,
		"2010-baseline.pb": 409,
	} {
		families := recorded(t, name)
		if got := translateOnce(t, translate.Config{}, 1e7, families...); got.Samples != want {
			t.Errorf("%s: %d samples, want %d", name, got.Samples, want)
		}
	}
}

func TestRule23_VanishedSeriesHasNoRecordedValue(t *testing.T) {
	const page = `
		# TYPE a counter
		a{l="1"} 1
		a{l="2"} 2
		# TYPE b gauge
		b 3
		# TYPE c histogram
		c_bucket{le="1"} 1
		c_bucket{le="+Inf"} 2
		c_sum 3
		c_count 2
		# TYPE d summary
		d{quantile="0.5"} 1
		d_sum 3
		d_count 2
		z 1
	`
	const full = `
		a prometheus.type=counter: cumulative sum
		  {l="1"} -..%[1]d 1
		  {l="2"} -..%[1]d 2
		b prometheus.type=gauge: gauge
		  {} -..%[1]d 3
		c prometheus.type=histogram: cumulative histogram
		  {} -..%[1]d count=2 sum=3 bounds=[1] counts=[1 1]
		d prometheus.type=summary: summary
		  {} -..%[1]d count=2 sum=3 q0.5=1
		z prometheus.type=unknown: gauge
		  {} -..%[1]d 1
	`
	n := native(0, 1, 0, spans(1, 1), 1)
	run(t, []scenario{{
		name: "once, of every kind",
		steps: []step{
			{at: 10, text: page, want: fmt.Sprintf(full, 10)},
			{at: 20, text: "# TYPE a counter\na{l=\"2\"} 2\nz 1\n", want: `
				a prometheus.type=counter: cumulative sum
				  {l="2"} -..20 2
				  {l="1"} -..20 no recorded value
				z prometheus.type=unknown: gauge
				  {} -..20 1
				b prometheus.type=gauge: gauge
				  {} -..20 no recorded value
				c prometheus.type=histogram: cumulative histogram
				  {} -..20 no recorded value count=0 bounds=[] counts=[]
				d prometheus.type=summary: summary
				  {} -..20 no recorded value count=0 sum=0
			`},
			{at: 30, text: "z 1\n", want: `
				z prometheus.type=unknown: gauge
				  {} -..30 1
				a prometheus.type=counter: cumulative sum
				  {l="2"} -..30 no recorded value
			`},
			{at: 40, text: "z 1\n", want: `
				z prometheus.type=unknown: gauge
				  {} -..40 1
			`},
		},
	}, {
		name: "all of them once when scrapes are missed",
		steps: []step{
			{at: 5, want: ""},
			{at: 10, text: page, want: fmt.Sprintf(full, 10)},
			{at: 20, want: `
				a prometheus.type=counter: cumulative sum
				  {l="1"} -..20 no recorded value
				  {l="2"} -..20 no recorded value
				b prometheus.type=gauge: gauge
				  {} -..20 no recorded value
				c prometheus.type=histogram: cumulative histogram
				  {} -..20 no recorded value count=0 bounds=[] counts=[]
				d prometheus.type=summary: summary
				  {} -..20 no recorded value count=0 sum=0
				z prometheus.type=unknown: gauge
				  {} -..20 no recorded value
			`},
			{at: 30, want: ""},
			{at: 40, text: page, want: fmt.Sprintf(full, 40)},
			{at: 50, text: "z 1\n", want: `
				z prometheus.type=unknown: gauge
				  {} -..50 1
				a prometheus.type=counter: cumulative sum
				  {l="1"} -..50 no recorded value
				  {l="2"} -..50 no recorded value
				b prometheus.type=gauge: gauge
				  {} -..50 no recorded value
				c prometheus.type=histogram: cumulative histogram
				  {} -..50 no recorded value count=0 bounds=[] counts=[]
				d prometheus.type=summary: summary
				  {} -..50 no recorded value count=0 sum=0
			`},
			{at: 60, want: "z prometheus.type=unknown: gauge\n  {} -..60 no recorded value\n"},
			{at: 70, proto: []*dto.MetricFamily{}, want: ""},
		},
	}, {
		name: "native",
		steps: []step{
			{at: 10, proto: []*dto.MetricFamily{family("n", dto.MetricType_HISTOGRAM, histogram(n))}, want: `
				n prometheus.type=histogram: cumulative exponential histogram
				  {} -..10 count=1 sum=1 scale=0 zero=0 threshold=1e-128 positive=0[1] negative=0[]
			`},
			{at: 20, proto: []*dto.MetricFamily{}, want: `
				n prometheus.type=histogram: cumulative exponential histogram
				  {} -..20 no recorded value count=0 scale=0 zero=0 threshold=0 positive=0[] negative=0[]
			`},
		},
	}, {
		name: "a series that changed its type has not vanished",
		steps: []step{
			{at: 10, text: "# TYPE a gauge\na 5\n", want: "a prometheus.type=gauge: gauge\n  {} -..10 5\n"},
			{at: 20, text: "# TYPE a counter\na 5\n", want: cumulative("-..20 5")},
			{at: 30, text: "# TYPE a counter\na 6\n", want: cumulative("-..30 6")},
			{at: 40, proto: []*dto.MetricFamily{}, want: cumulative("-..40 no recorded value")},
		},
	}, {
		name: "one that vanished while its family changed its type ends as what it was",
		steps: []step{
			{at: 10, text: "# TYPE a gauge\na{l=\"1\"} 1\na{l=\"2\"} 2\n", want: `
				a prometheus.type=gauge: gauge
				  {l="1"} -..10 1
				  {l="2"} -..10 2
			`},
			{at: 20, text: "# TYPE a counter\na{l=\"1\"} 1\n", want: `
				a prometheus.type=counter: cumulative sum
				  {l="1"} -..20 1
				a prometheus.type=gauge: gauge
				  {l="2"} -..20 no recorded value
			`},
		},
	}, {
		name: "one that was never exported ends in silence",
		steps: []step{
			{at: 10, text: "# TYPE a counter\na -5\n", dropped: map[string]int{translate.DropNegativeCounter: 1}},
			{at: 20, proto: []*dto.MetricFamily{}, want: ""},
		},
	}, {
		name: "one that is there but dropped has not vanished",
		steps: []step{
			{at: 10, text: "# TYPE a counter\na 5\n", want: cumulative("-..10 5")},
			{at: 20, text: "# TYPE a counter\na -5\n", dropped: map[string]int{translate.DropNegativeCounter: 1}},
			{at: 30, text: "# TYPE a counter\na 6\n", want: cumulative("-..30 6")},
		},
	}, {
		name: "one whose order changed has not vanished",
		steps: []step{
			{at: 10, text: "a{l=\"1\",m=\"x\"} 1\na{l=\"2\"} 2\na{l=\"3\"} 3\n", want: `
				a prometheus.type=unknown: gauge
				  {l="1" m="x"} -..10 1
				  {l="2"} -..10 2
				  {l="3"} -..10 3
			`},
			{at: 20, text: "a{l=\"3\"} 3\na{l=\"4\"} 4\na{m=\"x\",l=\"1\"} 1\n", want: `
				a prometheus.type=unknown: gauge
				  {l="3"} -..20 3
				  {l="4"} -..20 4
				  {l="1" m="x"} -..20 1
				  {l="2"} -..20 no recorded value
			`},
		},
	}})
}

func TestRule24_StaleNaNIsTheFlag(t *testing.T) {
	staleNative := native(0, staleNaN, 0, spans(1, 1), 1)
	page := []*dto.MetricFamily{
		family("a", dto.MetricType_COUNTER, counter(staleNaN)),
		family("b", dto.MetricType_GAUGE, gauge(staleNaN), gauge(nan, "l", "1")),
		family("c", dto.MetricType_HISTOGRAM, histogram(&dto.Histogram{SampleCount: proto.Uint64(1), SampleSum: proto.Float64(staleNaN)})),
		family("d", dto.MetricType_HISTOGRAM, histogram(staleNative)),
		family("e", dto.MetricType_SUMMARY, &dto.Metric{Summary: &dto.Summary{SampleCount: proto.Uint64(1), SampleSum: proto.Float64(staleNaN)}}),
	}
	const want = `
		a prometheus.type=counter: cumulative sum
		  {} -..%[1]d no recorded value
		b prometheus.type=gauge: gauge
		  {} -..%[1]d no recorded value
		  {l="1"} -..%[1]d NaN
		c prometheus.type=histogram: cumulative histogram
		  {} -..%[1]d no recorded value count=0 bounds=[] counts=[]
		d prometheus.type=histogram: cumulative exponential histogram
		  {} -..%[1]d no recorded value count=0 scale=0 zero=0 threshold=0 positive=0[] negative=0[]
		e prometheus.type=summary: summary
		  {} -..%[1]d no recorded value count=0 sum=0
	`
	run(t, []scenario{{
		name: "every time, and no second one when the series vanishes",
		steps: []step{
			{at: 10, proto: page, want: fmt.Sprintf(want, 10)},
			{at: 20, proto: page, want: fmt.Sprintf(want, 20)},
			{at: 30, proto: []*dto.MetricFamily{}, want: `
				b prometheus.type=gauge: gauge
				  {l="1"} -..30 no recorded value
			`},
		},
	}})
}

func TestRule25_EmptyValuesAndDuplicates(t *testing.T) {
	run(t, []scenario{{
		name: "an empty value is no label",
		steps: []step{{
			at: 10,
			text: `
				a{l="",m="x"} 1
				a{l="1",m=""} 2
			`,
			want: `
				a prometheus.type=unknown: gauge
				  {m="x"} -..10 1
				  {l="1"} -..10 2
			`,
		}},
	}, {
		name: "the first of duplicates is kept",
		steps: []step{
			{at: 10, text: "a{l=\"1\"} 1\na{l=\"1\"} 2\na{l=\"1\",m=\"\"} 3\nb 4\n", want: `
				a prometheus.type=unknown: gauge
				  {l="1"} -..10 1
				b prometheus.type=unknown: gauge
				  {} -..10 4
			`, dropped: map[string]int{translate.DropDuplicate: 2}},
			{at: 20, text: "a{l=\"1\"} 1\na{l=\"1\"} 2\nb 4\n", want: `
				a prometheus.type=unknown: gauge
				  {l="1"} -..20 1
				b prometheus.type=unknown: gauge
				  {} -..20 4
			`, dropped: map[string]int{translate.DropDuplicate: 1}},
		},
	}, {
		name: "in another order than before",
		steps: []step{
			{at: 10, text: "a{l=\"1\"} 1\na{l=\"2\"} 2\na{l=\"3\"} 3\n", want: `
				a prometheus.type=unknown: gauge
				  {l="1"} -..10 1
				  {l="2"} -..10 2
				  {l="3"} -..10 3
			`},
			{at: 20, text: "a{l=\"3\"} 1\na{l=\"1\"} 2\na{l=\"2\"} 3\na{l=\"3\"} 4\n", want: `
				a prometheus.type=unknown: gauge
				  {l="3"} -..20 1
				  {l="1"} -..20 2
				  {l="2"} -..20 3
			`, dropped: map[string]int{translate.DropDuplicate: 1}},
		},
	}, {
		name: "also across a family that is there twice",
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{
				family("a", dto.MetricType_COUNTER, counter(1, "l", "1"), counter(2, "l", "2")),
				family("a", dto.MetricType_COUNTER, counter(3, "l", "2"), counter(4, "l", "3")),
			},
			want: `
				a prometheus.type=counter: cumulative sum
				  {l="1"} -..10 1
				  {l="2"} -..10 2
				  {l="3"} -..10 4
			`,
			dropped: map[string]int{translate.DropDuplicate: 1},
		}},
	}, {
		name: "also of one scope that is named and not",
		steps: []step{{
			at: 10,
			text: `
				a{l="1"} 1
				a{l="1",otel_scope_name="otelmetricsplugin/pkg/translate",otel_scope_version="v1"} 2
			`,
			want: `
				a prometheus.type=unknown: gauge
				  {l="1"} -..10 1
			`,
			dropped: map[string]int{translate.DropDuplicate: 1},
		}},
	}, {
		name: "labels that cannot be attributes",
		steps: []step{{
			at: 10,
			proto: []*dto.MetricFamily{family("a", dto.MetricType_GAUGE,
				gauge(1, "l", "1", "l", "2"), // twice
				gauge(1, "l", "1", "l", "1"),
				gauge(2, "", "x"),
				gauge(3, "\xff", "x"),
				gauge(4, "l", "\xff"),
				gauge(5, many(257)...),
				gauge(6, many(256)...),
				&dto.Metric{Label: []*dto.LabelPair{nil}, Gauge: &dto.Gauge{Value: proto.Float64(7)}},
			)},
			want: `
				a prometheus.type=gauge: gauge
				  ` + renderMany(256) + ` -..10 6
				  {} -..10 7
			`,
			dropped: map[string]int{translate.DropInvalidLabel: 6},
		}},
	}})
}

// many returns n labels.
func many(n int) (pairs []string) {
	for i := range n {
		pairs = append(pairs, fmt.Sprintf("l%03d", i), "v")
	}
	return pairs
}

func renderMany(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf("l%03d=%q", i, "v"))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func TestRule26_EveryPointIsCounted(t *testing.T) {
	page := text(t, `
# TYPE a counter
a{l="1"} -1
a{l="2"} 2
a{l="2"} 3
# TYPE b histogram
b_bucket{le="1"} 2
b_bucket{le="2"} 1
b_bucket{le="+Inf"} 2
b_sum 1
b_count 2
# TYPE c summary
c{quantile="2"} 1
c_sum 1
c_count 2
x 1
`)
	r := translateOnce(t, translate.Config{Keep: func(name string) bool { return name != "x" }}, 10, page...)
	want := map[string]int{
		translate.DropNegativeCounter: 1, translate.DropDuplicate: 1,
		translate.DropInvalidBuckets: 1, translate.DropInvalidQuantile: 1,
	}
	if !mapsEqual(r.Dropped, want) {
		t.Errorf("dropped %v, want %v", r.Dropped, want)
	}
	if r.Samples != 12 || r.Kept != 11 {
		t.Errorf("%d samples, %d kept, want 12 and 11", r.Samples, r.Kept)
	}
}
