package translate

import (
	"math"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

const (
	// maxWidth bounds the buckets on one side of a native histogram once its
	// gaps are filled. A nanosecond to a year at the finest schema needs
	// 14,031.
	maxWidth = 1 << 14
	// maxGaps bounds the buckets that fill the gaps of all native histograms
	// of a page. Those that are not gaps are paid for by the page's own size.
	maxGaps = 1 << 20
)

// exponential is what a native histogram holds, in the terms of an exponential
// one, and what is remembered of it.
type exponential struct {
	count         uint64
	sum           float64 // unsetNaN if there is none
	scale         int32
	zeroThreshold float64
	zeroCount     uint64
	positive      side
	negative      side
}

// side holds the buckets of one sign. Bucket i is the one of index offset+i,
// which in an exponential histogram is that of its lower bound.
type side struct {
	offset int32
	counts []uint64
}

// isNative reports whether h has a native part, by the test that Prometheus
// itself makes (model/textparse, isNativeHistogram).
func isNative(h *dto.Histogram) bool {
	return len(h.GetPositiveSpan()) > 0 || len(h.GetNegativeSpan()) > 0 || h.GetZeroThreshold() > 0 || h.GetZeroCount() > 0
}

// native translates the native histogram h in t.scratch: rule 14.
func (t *Translator) native(f *family, s *series, h *dto.Histogram, ts int64) (dropped string) {
	g := t.groupOf(f, s, kindExponential)
	cur, last := &t.scratch.exponential, s.exponential
	if last == nil {
		last = &exponential{}
		s.exponential = last
	}
	diff, ok := t.scratch.subtractExponential(last)
	change, since := t.observe(s, nanos(h.GetCreatedTimestamp()), ts, !ok)
	diff.sum = subtractSum(cur.sum, last.sum)

	positive := replace(last.positive.counts, cur.positive.counts)
	negative := replace(last.negative.counts, cur.negative.counts)
	*last = *cur
	last.positive.counts, last.negative.counts = positive, negative

	e, start := *last, s.start
	if t.histogramsDelta {
		switch change {
		case baseline:
			return DropBaseline
		case grown:
			e = *diff
			e.positive.counts = t.arena.clone(e.positive.counts)
			e.negative.counts = t.arena.clone(e.negative.counts)
		}
		start = since
	}
	s.live = true
	g.exponentials = append(g.exponentials, metricdata.ExponentialHistogramDataPoint[float64]{
		Attributes: s.attrs, StartTime: startTime(start, ts), Time: unix(ts),
		Count: e.count, Sum: e.sum, Scale: e.scale,
		ZeroCount: e.zeroCount, ZeroThreshold: e.zeroThreshold,
		PositiveBucket: metricdata.ExponentialBucket{Offset: e.positive.offset, Counts: e.positive.counts},
		NegativeBucket: metricdata.ExponentialBucket{Offset: e.negative.offset, Counts: e.negative.counts},
		Exemplars:      t.exemplars(h.GetBucket(), h.GetExemplars(), start),
	})
	return ""
}

// readNative reads the native part of h into x.exponential. gaps is how many
// buckets may still be filled in.
func (x *scratch) readNative(h *dto.Histogram, gaps *int) (dropped string) {
	schema := h.GetSchema()
	switch {
	case h.GetSampleCountFloat() > 0, h.GetZeroCountFloat() > 0, len(h.GetPositiveCount()) > 0, len(h.GetNegativeCount()) > 0:
		return DropFloatHistogram
	case schema < -4 || schema > 8:
		return DropNativeSchema
	case !(h.GetZeroThreshold() >= 0 && h.GetZeroThreshold() <= math.MaxFloat64):
		return DropInvalidBuckets
	case h.GetZeroCount() > math.MaxInt64:
		return DropInvalidCount
	}
	e := &x.exponential
	e.scale, e.sum = schema, sumOf(h)
	e.zeroThreshold, e.zeroCount = h.GetZeroThreshold(), h.GetZeroCount()
	positive, dropped := e.positive.read(schema, h.GetPositiveSpan(), h.GetPositiveDelta(), gaps)
	if dropped != "" {
		return dropped
	}
	negative, dropped := e.negative.read(schema, h.GetNegativeSpan(), h.GetNegativeDelta(), gaps)
	if dropped != "" {
		return dropped
	}
	// Not h.SampleCount, which also counts the overflow buckets and NaN.
	// Three numbers below 2^63 may exceed 2^64.
	e.count = e.zeroCount + positive
	if e.count > math.MaxInt64 || e.count+negative > math.MaxInt64 {
		return DropInvalidCount
	}
	e.count += negative
	return ""
}

// read fills d with the buckets that spans and deltas give, gaps included, and
// returns the sum of their counts.
func (d *side) read(schema int32, spans []*dto.BucketSpan, deltas []int64, gaps *int) (sum uint64, dropped string) {
	d.offset, d.counts = 0, d.counts[:0]
	var length uint64
	for _, s := range spans {
		length += uint64(s.GetLength())
	}
	if length != uint64(len(deltas)) {
		return 0, DropInvalidBuckets
	}
	if len(spans) == 0 {
		return 0, ""
	}
	first := int64(spans[0].GetOffset())
	if first == math.MinInt32 {
		return 0, DropInvalidBuckets
	}
	d.offset = int32(first - 1)
	// The buckets of the smallest and the largest float64. The one after it
	// holds infinity: the overflow bucket.
	lowest, highest := int64(-1074), int64(1024)
	if schema >= 0 {
		lowest, highest = lowest<<schema, highest<<schema
	} else {
		lowest, highest = -(-lowest >> -schema), highest>>-schema
	}
	var count int64
	index := first
	for i, s := range spans {
		if i > 0 {
			if s.GetOffset() < 0 {
				return 0, DropInvalidBuckets
			}
			index += int64(s.GetOffset())
		}
		for range s.GetLength() {
			delta := deltas[0]
			deltas = deltas[1:]
			if delta > math.MaxInt64-count || count+delta < 0 {
				return 0, DropInvalidBuckets
			}
			count += delta
			switch {
			case count > 0 && (index < lowest || index > highest+1):
				return 0, DropInvalidBuckets
			case index >= lowest && index <= highest:
				if index-first >= maxWidth {
					return 0, DropNativeWidth
				}
				gap := int(index-first) - len(d.counts)
				if gap > *gaps {
					return 0, DropNativeWidth
				}
				*gaps -= gap
				for range gap {
					d.counts = append(d.counts, 0)
				}
				d.counts = append(d.counts, uint64(count))
				sum += uint64(count)
				if sum > math.MaxInt64 {
					return 0, DropInvalidCount
				}
			}
			index++
		}
	}
	return sum, ""
}

// subtractExponential returns by how much x.exponential grew since last, but
// for the sum. It is not ok if anything decreased. The source may have merged
// buckets since, into wider ones or into the zero bucket, and last is merged
// the same way; it cannot have split any without having started anew.
func (x *scratch) subtractExponential(last *exponential) (diff *exponential, ok bool) {
	cur, diff := &x.exponential, &x.exponentialDiff
	positive := append(diff.positive.counts[:0], cur.positive.counts...)
	negative := append(diff.negative.counts[:0], cur.negative.counts...)
	*diff = *cur
	diff.positive.counts, diff.negative.counts = positive, negative
	if last.count == 0 {
		return diff, true
	}
	if cur.scale > last.scale || cur.zeroThreshold < last.zeroThreshold && last.zeroCount > 0 {
		return diff, false
	}
	zero := last.zeroCount
	ok = diff.positive.subtract(&last.positive, cur, last, &zero) &&
		diff.negative.subtract(&last.negative, cur, last, &zero) &&
		diff.zeroCount >= zero
	diff.zeroCount -= zero
	diff.count -= last.count
	return diff, ok
}

// subtract takes from d, a side of cur, the buckets of b, a side of last. The
// counts of those that cur has in its zero bucket are added to zero. It reports
// whether nothing fell below zero.
func (d *side) subtract(b *side, cur, last *exponential, zero *uint64) bool {
	shift := last.scale - cur.scale
	for i, n := range b.counts {
		if n == 0 {
			continue
		}
		index := b.offset + int32(i)
		if cur.zeroThreshold > last.zeroThreshold {
			// An upper bound is 2^((index+1)*2^-scale). A threshold is the
			// bound of a bucket, so that rounding cannot make it another's.
			upper := math.Exp2(math.Ldexp(float64(index)+1, -int(last.scale)))
			if upper <= cur.zeroThreshold*(1+1e-9) {
				*zero += n
				continue
			}
		}
		at := int64(index>>shift) - int64(d.offset)
		if at < 0 || at >= int64(len(d.counts)) || d.counts[at] < n {
			return false
		}
		d.counts[at] -= n
	}
	return true
}
