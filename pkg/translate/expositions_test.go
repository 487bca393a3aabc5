package translate_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// moving is an exposition whose values move without being encoded anew.
type moving struct {
	bytes   []byte
	samples int // as Prometheus counts them
	doubles []int
	counts  []movingCount
}

// movingCount is where a count is, of five bytes, and by how much it grows.
type movingCount struct {
	at int
	by uint64
}

// What an encoder that knows nothing of moving values writes for them, to be
// found again: values that nothing else has.
const (
	firstDouble = 1e18
	firstCount  = 1 << 29 // five bytes, and so until 1 << 35
)

// Kinds of families, by the number of samples of each of their metrics.
const (
	samplesOfAHistogram       = 13 // 10 buckets, +Inf, sum and count
	samplesOfASummary         = 5  // 3 quantiles, sum and count
	samplesOfANativeHistogram = 1
)

// expositionOf returns an exposition of about n samples as engines and
// exporters have them: 45% are of histograms, 35% gauges, 20% counters, with 3
// to 4 labels.
func expositionOf(t testing.TB, n int) *moving {
	var families []*dto.MetricFamily
	const perFamily = 250
	each := func(samples, ofAMetric int, kind string, metrics func(name string, n int) *dto.MetricFamily) {
		for left := samples / ofAMetric; left > 0; left -= perFamily {
			families = append(families, metrics(fmt.Sprintf("%s_%05d", kind, left), min(left, perFamily)))
		}
	}
	each(n*45/100, samplesOfAHistogram, "bench_seconds", histogramFamily)
	each(n*35/100, 1, "bench_bytes", gaugeFamily)
	each(n*20/100, 1, "bench_total", counterFamily)
	return newMoving(t, families)
}

func newMoving(t testing.TB, families []*dto.MetricFamily) *moving {
	m := &moving{bytes: encode(t, families...)}
	for _, mf := range families {
		m.samples += refSamples(refTypeOf(mf), mf.GetMetric())
	}
	for i := 0; i+8 <= len(m.bytes); i++ {
		if v := math.Float64frombits(binary.LittleEndian.Uint64(m.bytes[i:])); v >= firstDouble && v < 2*firstDouble {
			m.doubles = append(m.doubles, i)
			i += 7
		} else if v, n := binary.Uvarint(m.bytes[i:]); n == 5 && v >= firstCount && v < firstCount+1000 {
			m.counts = append(m.counts, movingCount{i, 1 + v - firstCount})
			i += 4
		}
	}
	return m
}

// move lets every value grow.
func (m *moving) move() {
	for _, at := range m.doubles {
		v := math.Float64frombits(binary.LittleEndian.Uint64(m.bytes[at:]))
		binary.LittleEndian.PutUint64(m.bytes[at:], math.Float64bits(v+1e9))
	}
	for _, c := range m.counts {
		v, _ := binary.Uvarint(m.bytes[c.at:])
		binary.PutUvarint(m.bytes[c.at:], v+c.by)
	}
}

func metricLabels(i int) []*dto.LabelPair {
	pairs := []string{"code", fmt.Sprint(200 + i%5), "method", fmt.Sprintf("Method%05d", i), "service", "moby.swarmkit.v1.Control"}
	if i%2 == 0 {
		pairs = append(pairs, "type", "unary")
	}
	return labels(pairs...)
}

func familyOf(name string, typ dto.MetricType, n int, metric func(i int) *dto.Metric) *dto.MetricFamily {
	mf := family(name, typ)
	mf.Help = proto.String("What it is.")
	for i := range n {
		m := metric(i)
		m.Label = metricLabels(i)
		mf.Metric = append(mf.Metric, m)
	}
	return mf
}

func gaugeFamily(name string, n int) *dto.MetricFamily {
	return familyOf(name, dto.MetricType_GAUGE, n, func(int) *dto.Metric {
		return &dto.Metric{Gauge: &dto.Gauge{Value: proto.Float64(firstDouble)}}
	})
}

func counterFamily(name string, n int) *dto.MetricFamily {
	return familyOf(name, dto.MetricType_COUNTER, n, func(int) *dto.Metric {
		return &dto.Metric{Counter: &dto.Counter{Value: proto.Float64(firstDouble), CreatedTimestamp: created(1)}}
	})
}

func histogramFamily(name string, n int) *dto.MetricFamily {
	return familyOf(name, dto.MetricType_HISTOGRAM, n, func(int) *dto.Metric {
		h := &dto.Histogram{SampleCount: proto.Uint64(firstCount + 10), SampleSum: proto.Float64(firstDouble), CreatedTimestamp: created(1)}
		for i, bound := range []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5} {
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(bound), CumulativeCount: proto.Uint64(firstCount + uint64(i))})
		}
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &inf, CumulativeCount: h.SampleCount})
		return &dto.Metric{Histogram: h}
	})
}

func nativeFamily(name string, n int) *dto.MetricFamily {
	return familyOf(name, dto.MetricType_HISTOGRAM, n, func(int) *dto.Metric {
		h := native(3, firstDouble, firstCount, spans(-10, 20, 5, 20), make([]int64, 40)...)
		h.PositiveDelta[0] = 5
		h.CreatedTimestamp = created(1)
		return &dto.Metric{Histogram: h}
	})
}

func summaryFamily(name string, n int) *dto.MetricFamily {
	return familyOf(name, dto.MetricType_SUMMARY, n, func(int) *dto.Metric {
		s := &dto.Summary{SampleCount: proto.Uint64(firstCount), SampleSum: proto.Float64(firstDouble), CreatedTimestamp: created(1)}
		for _, q := range []float64{0.5, 0.9, 0.99} {
			s.Quantile = append(s.Quantile, &dto.Quantile{Quantile: proto.Float64(q), Value: proto.Float64(firstDouble)})
		}
		return &dto.Metric{Summary: s}
	})
}
