package translate

import (
	"cmp"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// explicit is what a histogram with explicit buckets holds, and what is
// remembered of it.
type explicit struct {
	count  uint64
	sum    float64   // unsetNaN if there is none
	bounds []float64 // increasing; +Inf is implied
	counts []uint64  // per bucket, one more than bounds
}

// histogram translates a histogram: by its native part if it has one that can
// be translated, else by its classic buckets if it has any.
func (t *Translator) histogram(f *family, s *series, h *dto.Histogram, ts int64) (dropped string) {
	if !isNative(h) {
		return t.classic(f, s, h, ts)
	}
	if isStale(h.GetSampleSum()) {
		t.groupOf(f, s, kindExponential).addStale(s, ts)
		return ""
	}
	dropped = t.scratch.readNative(h, &t.page.gaps)
	switch {
	case dropped == "":
		return t.native(f, s, h, ts)
	case len(h.GetBucket()) > 0:
		return t.classic(f, s, h, ts)
	default:
		return dropped
	}
}

// classic translates a histogram by its classic buckets: rules 11 to 13.
func (t *Translator) classic(f *family, s *series, h *dto.Histogram, ts int64) (dropped string) {
	if isStale(h.GetSampleSum()) {
		t.groupOf(f, s, kindHistogram).addStale(s, ts)
		return ""
	}
	if dropped := t.scratch.readClassic(h); dropped != "" {
		return dropped
	}
	g := t.groupOf(f, s, kindHistogram)
	cur, last := &t.scratch.explicit, s.explicit
	if last == nil {
		last = &explicit{}
		s.explicit = last
	}
	bounds, diff, ok := t.scratch.subtractExplicit(last)
	change, since := t.observe(s, nanos(h.GetCreatedTimestamp()), ts, !ok)
	countDiff, sumDiff := cur.count-last.count, subtractSum(cur.sum, last.sum)

	last.count, last.sum = cur.count, cur.sum
	if !slices.Equal(last.bounds, cur.bounds) {
		last.bounds = f.sharedBounds(cur.bounds)
	}
	last.counts = replace(last.counts, cur.counts)

	p := metricdata.HistogramDataPoint[float64]{
		Attributes: s.attrs, Time: unix(ts),
		Count: last.count, Sum: last.sum, Bounds: last.bounds, BucketCounts: last.counts,
	}
	start := s.start
	if t.histogramsDelta {
		switch change {
		case baseline:
			return DropBaseline
		case grown:
			p.Count, p.Sum = countDiff, sumDiff
			if len(bounds) != len(p.Bounds) {
				p.Bounds = bounds
			}
			p.BucketCounts = t.arena.clone(diff)
		}
		start = since
	}
	p.StartTime = startTime(start, ts)
	p.Exemplars = t.exemplars(h.GetBucket(), nil, start)
	s.live = true
	g.histograms = append(g.histograms, p)
	return ""
}

// readClassic reads the classic buckets of h into x.explicit.
func (x *scratch) readClassic(h *dto.Histogram) (dropped string) {
	count := h.GetSampleCount()
	switch {
	case isFloat(h.SampleCount, h.SampleCountFloat):
		return DropFloatHistogram
	case h.SampleCount == nil:
		return DropNoCount
	case count > math.MaxInt64:
		return DropInvalidCount
	}
	x.buckets = x.buckets[:0]
	for _, b := range h.GetBucket() {
		switch {
		case b == nil || math.IsNaN(b.GetUpperBound()):
			return DropInvalidBuckets
		case isFloat(b.CumulativeCount, b.CumulativeCountFloat):
			return DropFloatHistogram
		}
		x.buckets = append(x.buckets, bucket{b.GetUpperBound(), b.GetCumulativeCount()})
	}
	// A text page may list them in any order.
	byBound := func(a, b bucket) int { return cmp.Compare(a.bound, b.bound) }
	if !slices.IsSortedFunc(x.buckets, byBound) {
		slices.SortStableFunc(x.buckets, byBound)
	}
	e := &x.explicit
	e.count, e.sum = count, sumOf(h)
	e.bounds, e.counts = e.bounds[:0], e.counts[:0]
	var below uint64
	for i, b := range x.buckets {
		switch {
		case i > 0 && b == x.buckets[i-1]:
			continue // a repeated line
		case i > 0 && b.bound == x.buckets[i-1].bound, b.cumulative < below:
			return DropInvalidBuckets
		case math.IsInf(b.bound, 1):
			continue // it is the count, and where it is not, the count is what is right
		case b.cumulative > count:
			return DropInvalidBuckets
		}
		e.bounds = append(e.bounds, b.bound)
		e.counts = append(e.counts, b.cumulative-below)
		below = b.cumulative
	}
	e.counts = append(e.counts, count-below)
	return ""
}

// subtractExplicit returns by how much each bucket of x.explicit grew since
// last, and the bounds of those buckets: the common ones, should the layout
// have changed. It is not ok if anything decreased; since an empty last, all of
// it is growth.
func (x *scratch) subtractExplicit(last *explicit) (bounds []float64, diff []uint64, ok bool) {
	cur := &x.explicit
	bounds = cur.bounds
	before := last.counts
	x.diff = append(x.diff[:0], cur.counts...)
	if !slices.Equal(cur.bounds, last.bounds) && len(last.counts) > 0 {
		bounds = common(cur.bounds, last.bounds)
		x.diff = project(x.diff[:0], cur, bounds)
		before = project(nil, last, bounds)
	}
	return bounds, x.diff, subtract(x.diff, before)
}

// subtract takes b from a and reports whether nothing fell below zero; if not,
// a is of no use. An empty b takes nothing.
func subtract(a, b []uint64) bool {
	for i, n := range b {
		if a[i] < n {
			return false
		}
		a[i] -= n
	}
	return true
}

// common returns the elements that are in both a and b, which are increasing.
func common(a, b []float64) []float64 {
	var both []float64
	for _, v := range a {
		for len(b) > 0 && b[0] < v {
			b = b[1:]
		}
		if len(b) > 0 && b[0] == v {
			both = append(both, v)
		}
	}
	return both
}

// project appends to dst the counts of e in the buckets between bounds, all of
// which e has.
func project(dst []uint64, e *explicit, bounds []float64) []uint64 {
	var n uint64
	for i, c := range e.counts {
		n += c
		if i < len(e.bounds) && len(bounds) > 0 && e.bounds[i] == bounds[0] {
			dst = append(dst, n)
			n, bounds = 0, bounds[1:]
		}
	}
	return append(dst, n)
}

// sumOf returns the sum of h, unsetNaN if it has none.
func sumOf(h *dto.Histogram) float64 {
	if h.SampleSum == nil {
		return unsetNaN
	}
	return plainNaN(h.GetSampleSum())
}

// subtractSum returns by how much a sum grew: unsetNaN if that cannot be told.
// It may be less than zero, where negative values were observed.
func subtractSum(sum, last float64) float64 {
	d := sum - last
	switch {
	case math.IsNaN(d) || math.IsInf(d, 0):
		return unsetNaN
	case d < 0 && -d <= noise*math.Abs(last):
		return 0
	default:
		return d
	}
}

// isFloat reports whether a count is one of floats, which override integers
// where they are positive.
func isFloat(n *uint64, f *float64) bool {
	return f != nil && (n == nil || *f > 0)
}

// hasInf reports whether there is a +Inf bucket.
func hasInf(buckets []*dto.Bucket) bool {
	return slices.ContainsFunc(buckets, func(b *dto.Bucket) bool { return math.IsInf(b.GetUpperBound(), 1) })
}

// exemplars translates the exemplars of a histogram: those of its native part
// if it has any, else those of its buckets.
func (t *Translator) exemplars(buckets []*dto.Bucket, native []*dto.Exemplar, start int64) []metricdata.Exemplar[float64] {
	var list []metricdata.Exemplar[float64]
	for _, e := range native {
		list = appendExemplar(list, e, t.histogramsDelta, start)
	}
	if len(native) == 0 {
		for _, b := range buckets {
			list = appendExemplar(list, b.GetExemplar(), t.histogramsDelta, start)
		}
	}
	return list
}
