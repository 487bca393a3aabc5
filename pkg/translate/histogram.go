package translate

import (
	"cmp"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// distribution is what is remembered of a histogram: its last observation.
type distribution struct {
	count  uint64
	sum    float64 // unsetNaN if there is none
	bounds []float64
	counts []uint64 // per bucket, one more than bounds
}

// scratch is room to read one histogram in.
type scratch struct {
	buckets []bucket
	bounds  []float64
	counts  []uint64
}

type bucket struct {
	bound float64
	count uint64 // cumulative
}

// histogram translates a histogram: as an exponential one if it is native and
// can be, else by its classic buckets, if it has any.
func (t *Translator) histogram(f *family, s *series, h *dto.Histogram, ts int64) (dropped string) {
	return t.classic(f, s, h, ts)
}

// classic translates a histogram with explicit buckets: rules 11 to 13.
func (t *Translator) classic(f *family, s *series, h *dto.Histogram, ts int64) (dropped string) {
	g := t.groupOf(f, s, kindHistogram)
	if isStale(h.GetSampleSum()) {
		s.live = false
		g.addStale(s, ts)
		return ""
	}
	if dropped := t.scratch.read(h); dropped != "" {
		return dropped
	}
	bounds, counts := t.scratch.bounds, t.scratch.counts
	d := s.dist
	if d == nil {
		d = &distribution{}
		s.dist = d
	}
	if s.dist.bounds == nil || !slices.Equal(d.bounds, bounds) {
		d.bounds = slices.Clone(bounds)
	}
	decreased := h.GetSampleCount() < d.count
	t.observe(s, createdAt(h.GetCreatedTimestamp()), ts, decreased)
	d.count = h.GetSampleCount()
	d.counts = append(d.counts[:0], counts...)
	s.live = true
	g.histograms = append(g.histograms, metricdata.HistogramDataPoint[float64]{
		Attributes: s.attrs, StartTime: startTime(s.start, ts), Time: unix(ts),
		Count: d.count, Sum: sumOf(h), Bounds: d.bounds, BucketCounts: d.counts,
	})
	return ""
}

// sumOf returns the sum of h, unsetNaN if it has none.
func sumOf(h *dto.Histogram) float64 {
	if h.SampleSum == nil {
		return unsetNaN
	}
	return plainNaN(h.GetSampleSum())
}

// read reads the classic buckets of h into bounds and counts.
func (x *scratch) read(h *dto.Histogram) (dropped string) {
	switch {
	case h.SampleCountFloat != nil && (h.SampleCount == nil || h.GetSampleCountFloat() > 0):
		return DropFloatHistogram
	case h.SampleCount == nil:
		return DropNoCount
	case h.GetSampleCount() > math.MaxInt64:
		return DropInvalidCount
	}
	x.buckets, x.bounds, x.counts = x.buckets[:0], x.bounds[:0], x.counts[:0]
	for _, b := range h.GetBucket() {
		if b.GetCumulativeCountFloat() > 0 || (b != nil && b.CumulativeCount == nil && b.CumulativeCountFloat != nil) {
			return DropFloatHistogram
		}
		if math.IsNaN(b.GetUpperBound()) {
			return DropInvalidBuckets
		}
		x.buckets = append(x.buckets, bucket{b.GetUpperBound(), b.GetCumulativeCount()})
	}
	byBound := func(a, b bucket) int { return cmp.Compare(a.bound, b.bound) }
	if !slices.IsSortedFunc(x.buckets, byBound) {
		slices.SortStableFunc(x.buckets, byBound)
	}
	var below uint64
	for i, b := range x.buckets {
		if i > 0 && b.bound == x.buckets[i-1].bound {
			if b.count != x.buckets[i-1].count {
				return DropInvalidBuckets
			}
			continue
		}
		if b.count < below || b.count > h.GetSampleCount() {
			return DropInvalidBuckets
		}
		if math.IsInf(b.bound, 1) {
			if b.count != h.GetSampleCount() {
				return DropInvalidBuckets
			}
			break
		}
		x.bounds = append(x.bounds, b.bound)
		x.counts = append(x.counts, b.count-below)
		below = b.count
	}
	x.counts = append(x.counts, h.GetSampleCount()-below)
	return ""
}

// hasInf reports whether there is a +Inf bucket.
func hasInf(buckets []*dto.Bucket) bool {
	return slices.ContainsFunc(buckets, func(b *dto.Bucket) bool { return math.IsInf(b.GetUpperBound(), 1) })
}
