package scrape_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"otelmetricsplugin/pkg/scrape"
)

// recorded returns a page of a real engine.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "testdata", "pages", name))
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestAnExpositionIsGivenUpWhenTheScrapeIs(t *testing.T) {
	timeout := errors.New("no complete exposition")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(timeout)
	for name, format := range map[string]expfmt.FormatType{"297-active.pb": expfmt.TypeProtoDelim, "297-active.txt": expfmt.TypeTextPlain} {
		exposition, err := scrape.Exposition(ctx, recorded(t, name), format, scrape.Config{})
		if exposition != nil || !errors.Is(err, timeout) {
			t.Errorf("%s: %d bytes, error %v", name, len(exposition), err)
		}
	}
}

// protobufForms returns pages with everything that io.prometheus.client has, in
// the forms that encoders write and in others.
func protobufForms() []string {
	label := func(name, value string) *dto.LabelPair {
		return &dto.LabelPair{Name: proto.String(name), Value: proto.String(value)}
	}
	created := &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 123_456_789}
	exemplar := &dto.Exemplar{Label: []*dto.LabelPair{label("trace_id", "00ff")}, Value: proto.Float64(1), Timestamp: created}
	metrics := []*dto.Metric{
		{Label: []*dto.LabelPair{label("", ""), label("a", "b"), label("long", strings.Repeat("x", 200))}, Gauge: &dto.Gauge{Value: proto.Float64(1)}},
		{Counter: &dto.Counter{Value: proto.Float64(2)}, TimestampMs: proto.Int64(-1)},
		{Counter: &dto.Counter{Value: proto.Float64(2), Exemplar: exemplar, CreatedTimestamp: created}},
		{Untyped: &dto.Untyped{Value: proto.Float64(3)}},
		{Summary: &dto.Summary{SampleCount: proto.Uint64(4), SampleSum: proto.Float64(4), CreatedTimestamp: created,
			Quantile: []*dto.Quantile{{Quantile: proto.Float64(0.5), Value: proto.Float64(1)}, {}}}},
		{Histogram: &dto.Histogram{SampleCount: proto.Uint64(5), SampleSum: proto.Float64(5), CreatedTimestamp: created,
			Bucket: []*dto.Bucket{
				{CumulativeCount: proto.Uint64(0), UpperBound: proto.Float64(1)},
				{CumulativeCount: proto.Uint64(300), UpperBound: proto.Float64(2)},
				{CumulativeCount: proto.Uint64(1<<56 - 1), UpperBound: proto.Float64(3)},
				{CumulativeCount: proto.Uint64(1 << 56), UpperBound: proto.Float64(4)},
				{CumulativeCount: proto.Uint64(1<<64 - 1), UpperBound: proto.Float64(5), Exemplar: exemplar},
				{CumulativeCountFloat: proto.Float64(1)},
				{CumulativeCount: proto.Uint64(1), UpperBound: proto.Float64(6)},
			}}},
		{Histogram: &dto.Histogram{SampleCountFloat: proto.Float64(5), Schema: proto.Int32(-3), ZeroThreshold: proto.Float64(1e-9), ZeroCount: proto.Uint64(1),
			NegativeSpan: []*dto.BucketSpan{{Offset: proto.Int32(-5), Length: proto.Uint32(2)}}, NegativeDelta: []int64{-1, 1 << 40},
			PositiveSpan: []*dto.BucketSpan{{Offset: proto.Int32(5), Length: proto.Uint32(2)}, {}}, PositiveDelta: []int64{1, -300},
			PositiveCount: []float64{1, 2}, NegativeCount: []float64{3}, Exemplars: []*dto.Exemplar{exemplar, {}}}},
		{},
	}
	family, err := proto.Marshal(&dto.MetricFamily{Name: proto.String("everything"), Help: proto.String("Help."), Unit: proto.String("seconds"), Type: dto.MetricType_HISTOGRAM.Enum(), Metric: metrics})
	if err != nil {
		panic(err)
	}

	metric := func(s string) string { return frame(sub(1, "a") + sub(4, s)) }
	histogram := func(s string) string { return metric(sub(7, s)) }
	bytesTag := func(n protowire.Number) string { return string(protowire.AppendTag(nil, n, protowire.BytesType)) }
	forms := []string{
		"",
		frame(string(family)),
		histogram(sub(10, "\x01\xff\x01")), histogram(sub(13, "\x01\x02")), // packed deltas
		histogram(sub(10, "\x01\xff")), histogram(sub(13, strings.Repeat("\xff", 10)+"\x01")), // truncated, overlong
		histogram(sub(11, "12345678")), histogram(sub(14, "1234567812345678")), // packed counts
		histogram(sub(11, "1234567")), histogram(sub(14, "123456789")), // truncated
		histogram(sub(9, "\x08\x01\x10\x02")), histogram(sub(12, "\x08\x01\x10")), // spans
		histogram(sub(3, "\x08\xff\x11abcdefgh") + strings.Repeat("\x28\x00", 10)), // a count without an end
		histogram(sub(3, "\x08\x80\x01\x11abcdefgh") + strings.Repeat("\x28\x00", 10)),
		histogram(sub(3, "\x08\x01\x01\x11abcdefgh") + strings.Repeat("\x28\x00", 10)),
		histogram(sub(3, "\x11abcdefgh\x08\x01") + strings.Repeat("\x28\x00", 10)),
		histogram(sub(16, sub(1, sub(1, "a")+sub(2, "b"))+sub(3, "\x08\x01\x10\x01"))),
		metric(sub(1, sub(2, "value first")+sub(1, "name"))),
		metric(sub(1, sub(1, "a")+sub(1, "name twice"))),
		metric(sub(1, sub(1, "a")+bytesTag(2)+"\x05abc")),            // a value longer than its label
		metric(bytesTag(1) + "\x04" + bytesTag(1) + "\x01a"),         // a label longer than its metric
		metric("\x8a\x00" + sub(1, "")[1:] + sub(2, "\x09abcdefgh")), // a tag with a superfluous byte
		metric(sub(2, "\x09abcdefgh") + sub(3, "\x09abcdefgh") + sub(2, "\x09abcdefg")),
		metric(sub(2, "\x0dabcd") + "\x10\x01" + "\x15abcd" + "\x11abcdefgh"), // known fields of other types
		metric("\x0b\x0c"), metric("\x0b\x14"), metric("\x0b"), metric("\x0c"), // groups
		metric("\x0b\x13\x14\x08\x01\x0c"), metric("\x0b\x13\x0c\x14"),
		metric("\x0e"), metric("\x0f\x00"), metric("\x00\x00"), metric("\x02\x00"), // wire types 6 and 7, field 0
		metric("\x80\x80\x80\x80\x10\x00"), metric("\xf8\xff\xff\xff\x0f\x00"), // field 2^29 and the one before it
		metric("\x08" + strings.Repeat("\xff", 9) + "\x01"), metric("\x08" + strings.Repeat("\xff", 9) + "\x02"),
		frame("\x08\x01" + "\x18\xff\xff\xff\xff\x0f" + "\x20\x01"),
		frame(sub(1, "\xff\xfe") + sub(2, "\xff")), // not UTF-8
		frame("")[:0] + "\x02\x0a", "\x80", "\x80\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
	}
	return forms
}

// TestProtobufIsAcceptedIfItUnmarshals compares the check with proto.Unmarshal.
func TestProtobufIsAcceptedIfItUnmarshals(t *testing.T) {
	accepted := 0
	pages := protobufForms()
	everything := pages[1]
	_, n := protowire.ConsumeVarint([]byte(everything))
	for end := range everything[n:] {
		pages = append(pages, frame(everything[n:n+end]))
	}
	for _, name := range []string{"297-active.pb", "2010-active.pb", "2010-baseline.pb"} {
		pages = append(pages, string(recorded(t, name)))
	}
	for i, page := range pages {
		_, err := scrape.Exposition(t.Context(), []byte(page), expfmt.TypeProtoDelim, scrape.Config{})
		_, want := unmarshal([]byte(page))
		if (err == nil) != (want == nil) {
			t.Errorf("page %d, %.100q: the error is %v, proto.Unmarshal's is %v", i, page, err, want)
		}
		if err == nil {
			accepted++
		}
	}
	if accepted < 20 || accepted > len(pages)-100 {
		t.Errorf("%d of %d pages were accepted", accepted, len(pages))
	}
}

// TestASampleIsALineOfText counts the samples of recorded pages. In protobuf an
// engine leaves out the buckets of +Inf.
func TestASampleIsALineOfText(t *testing.T) {
	for _, name := range []string{"297-active", "2010-active"} {
		lines, infinite := 0, 0
		for line := range bytes.Lines(recorded(t, name+".txt")) {
			if line[0] != '#' {
				lines++
			}
			if bytes.Contains(line, []byte(`le="+Inf"`)) {
				infinite++
			}
		}
		for ext, want := range map[string]int{".pb": lines - infinite, ".txt": lines} {
			for samples := want - 2; samples <= want+1; samples++ {
				_, err := scrape.Exposition(t.Context(), recorded(t, name+ext), format(ext == ".pb"), scrape.Config{MaxSamples: samples})
				if (err == nil) != (samples >= want) {
					t.Errorf("%s with %d samples and at most %d: %v", name+ext, want, samples, err)
				}
			}
		}
	}
}

func TestAProtobufExpositionIsCheckedWithoutAllocating(t *testing.T) {
	page := recorded(t, "297-active.pb")
	if n := testing.AllocsPerRun(10, func() {
		if _, err := scrape.Exposition(t.Context(), page, expfmt.TypeProtoDelim, scrape.Config{}); err != nil {
			t.Fatal(err)
		}
	}); n > 1 { // the Scraper
		t.Errorf("%v allocations", n)
	}
}

// synthetic returns a page of about so many samples: 45% are buckets of
// histograms, 35% gauges and 20% counters, of three or four labels each.
func synthetic(t testing.TB, samples int) []byte {
	created := &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 123_456_789}
	labels := func(i int) (labels []*dto.LabelPair) {
		for j, name := range []string{"code", "handler", "instance", "method"}[:3+i%2] {
			labels = append(labels, &dto.LabelPair{Name: proto.String(name), Value: proto.String(fmt.Sprintf("value-%d-%d", j, i))})
		}
		return labels
	}
	var families []*dto.MetricFamily
	for f := 0; samples > 0; f++ {
		const most = 1000 // samples of a family
		n := min(samples, most)
		samples -= n
		family := &dto.MetricFamily{Name: proto.String(fmt.Sprintf("synthetic_%d", f)), Help: proto.String("A family of a synthetic page.")}
		gauges := &dto.MetricFamily{Name: proto.String(fmt.Sprintf("synthetic_%d_bytes", f)), Type: dto.MetricType_GAUGE.Enum()}
		histograms := &dto.MetricFamily{Name: proto.String(fmt.Sprintf("synthetic_%d_seconds", f)), Type: dto.MetricType_HISTOGRAM.Enum()}
		family.Type = dto.MetricType_COUNTER.Enum()
		for i := range n * 20 / 100 {
			family.Metric = append(family.Metric, &dto.Metric{Label: labels(i), Counter: &dto.Counter{Value: proto.Float64(float64(i)), CreatedTimestamp: created}})
		}
		for i := range n * 35 / 100 {
			gauges.Metric = append(gauges.Metric, &dto.Metric{Label: labels(i), Gauge: &dto.Gauge{Value: proto.Float64(float64(i) / 3)}})
		}
		for i := range n * 45 / 100 / 12 { // of twelve buckets
			h := &dto.Histogram{SampleCount: proto.Uint64(uint64(i * 1000)), SampleSum: proto.Float64(float64(i)), CreatedTimestamp: created}
			for b := range 12 {
				h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: proto.Uint64(uint64(b * i * 80)), UpperBound: proto.Float64(float64(b))})
			}
			histograms.Metric = append(histograms.Metric, &dto.Metric{Label: labels(i), Histogram: h})
		}
		families = append(families, family, gauges, histograms)
	}
	page, _ := encode(t, families)
	return page
}

// countSamples counts samples as lines of text, without buckets of +Inf that are
// left out.
func countSamples(families []*dto.MetricFamily) (samples int) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			samples += 1 + len(m.GetHistogram().GetBucket()) + len(m.GetSummary().GetQuantile())
			if m.Histogram != nil {
				samples++
			}
			if m.Summary != nil {
				samples++
			}
		}
	}
	return samples
}

// BenchmarkCheck is what a protobuf exposition costs once it has been read.
func BenchmarkCheck(b *testing.B) {
	check := func(page []byte) func(*testing.B) {
		return func(b *testing.B) {
			samples := countSamples(decode(b, page))
			b.SetBytes(int64(len(page)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := scrape.Exposition(b.Context(), page, expfmt.TypeProtoDelim, scrape.Config{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
		}
	}
	for _, n := range []int{500, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), check(synthetic(b, n)))
	}
	b.Run("297-active", check(recorded(b, "297-active.pb")))
}
