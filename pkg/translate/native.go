package translate

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"otelmetricsplugin/internal/otlp"
)

const (
	// maxWidth bounds the buckets on one side of a native histogram once its
	// gaps are filled. A nanosecond to a year at the finest schema needs
	// 14,031.
	maxWidth = 1 << 14
	// maxGaps bounds the buckets that fill the gaps of all native histograms
	// of an exposition. Those that are not gaps are paid for by its own size.
	maxGaps = 1 << 20
)

const (
	varintType = protowire.VarintType
	doubleType = protowire.Fixed64Type
	bytesType  = protowire.BytesType
)

// nativeValue is one side of the native part of a Histogram message.
type nativeValue struct {
	spans    []bucketSpan
	deltas   []int64
	hasFloat bool // counts of floats
}

// bucketSpan is a BucketSpan message.
type bucketSpan struct {
	offset int32
	length uint32
}

// readNative reads a field of the native part of a Histogram message.
func (h *histogramValue) readNative(f *fields) {
	switch {
	case f.isVarint(5):
		h.schema = int32(protowire.DecodeZigZag(f.value & math.MaxUint32))
	case f.isDouble(6):
		h.zeroThreshold = f.double()
	case f.isVarint(7):
		h.zeroCount.n, h.zeroCount.has = f.value, true
	case f.isDouble(8):
		h.zeroCount.float, h.zeroCount.hasFloat = f.double(), true
	case f.isBytes(16):
		h.exemplars = append(h.exemplars, f.bytes)
	case 9 <= f.number && f.number <= 11:
		h.negative.read(f, f.number-9)
	case 12 <= f.number && f.number <= 14:
		h.positive.read(f, f.number-12)
	}
}

// read reads a field of one side: field 0 is its spans, 1 its deltas, which may
// be packed, and 2 its counts of floats.
func (v *nativeValue) read(f *fields, field protowire.Number) {
	switch {
	case field == 0 && f.typ == bytesType:
		var s bucketSpan
		for sub := (fields{rest: f.bytes}); sub.next(); {
			switch {
			case sub.isVarint(1):
				s.offset = int32(protowire.DecodeZigZag(sub.value & math.MaxUint32))
			case sub.isVarint(2):
				s.length = uint32(sub.value)
			}
		}
		v.spans = append(v.spans, s)
	case field == 1 && f.typ == varintType:
		v.deltas = append(v.deltas, protowire.DecodeZigZag(f.value))
	case field == 1 && f.typ == bytesType:
		for b := f.bytes; len(b) > 0; {
			d, n := uvarint(b)
			if n == 0 {
				return
			}
			v.deltas = append(v.deltas, protowire.DecodeZigZag(d))
			b = b[n:]
		}
	case field == 2 && f.typ == doubleType, field == 2 && f.typ == bytesType && len(f.bytes) >= 8:
		v.hasFloat = true
	}
}

// isNative reports whether h has a native part, by the test that Prometheus
// itself makes (model/textparse, isNativeHistogram).
func (h *histogramValue) isNative() bool {
	return len(h.positive.spans) > 0 || len(h.negative.spans) > 0 || h.zeroThreshold > 0 || h.zeroCount.n > 0
}

// exponential is what a native histogram counts, in the terms of an
// exponential one.
type exponential struct {
	count         uint64
	sum           float64
	noSum         bool
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

// native translates the native histogram h, which is in t.scratch: rule 14.
func (t *Translator) native(f *family, s *series, h *histogramValue, ts int64) (dropped string) {
	f.setKind(s, otlp.ExponentialHistogram)
	state := f.stateOf(s)
	if state.exponential == nil {
		state.exponential = &exponential{}
	}
	cur, last := &t.scratch.exponential, state.exponential
	diff, ok := t.scratch.subtractExponential(last)
	change, since := t.observe(s, h.created.unixNano(), ts, !ok)
	sumDiff, hasSumDiff := subtractSum(cur.sum, last.sum, cur.noSum || last.noSum)
	diff.sum, diff.noSum = sumDiff, !hasSumDiff

	positive := replace(last.positive.counts, cur.positive.counts)
	negative := replace(last.negative.counts, cur.negative.counts)
	*last = *cur
	last.positive.counts, last.negative.counts = positive, negative

	e, start := last, s.start
	if t.histogramDelta {
		switch change {
		case baseline:
			return DropBaseline
		case grown:
			e = diff
		}
		start = since
	}
	s.live = true
	t.points.exponential = otlp.ExponentialPoint{
		Times: otlp.Times{Start: startTime(start, ts), Time: ts}, Attributes: f.attributesOf(s),
		Count: e.count, Sum: e.sum, HasSum: !e.noSum, Scale: e.scale,
		ZeroCount: e.zeroCount, ZeroThreshold: e.zeroThreshold,
		Positive:  otlp.Buckets{Offset: e.positive.offset, Counts: e.positive.counts},
		Negative:  otlp.Buckets{Offset: e.negative.offset, Counts: e.negative.counts},
		Exemplars: t.histogramExemplars(h, s.kind, h.exemplars, start),
	}
	t.write(f, s, &t.points.exponential)
	return ""
}

// read reads the native part of h. gaps is how many buckets may still be
// filled in.
func (e *exponential) read(h *histogramValue, gaps *int) (dropped string) {
	switch {
	case h.count.float > 0, h.zeroCount.float > 0, h.positive.hasFloat, h.negative.hasFloat:
		return DropFloatHistogram
	case h.schema < -4 || h.schema > 8:
		return DropNativeSchema
	case !(h.zeroThreshold >= 0 && h.zeroThreshold <= math.MaxFloat64):
		return DropInvalidBuckets
	case h.zeroCount.n > math.MaxInt64:
		return DropInvalidCount
	}
	e.scale, e.sum, e.noSum = h.schema, h.sum, !h.hasSum
	e.zeroThreshold, e.zeroCount = h.zeroThreshold, h.zeroCount.n
	positive, dropped := e.positive.read(h.schema, &h.positive, gaps)
	if dropped != "" {
		return dropped
	}
	negative, dropped := e.negative.read(h.schema, &h.negative, gaps)
	if dropped != "" {
		return dropped
	}
	// Not the sample count, which also counts the overflow buckets and NaN.
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
func (d *side) read(schema int32, v *nativeValue, gaps *int) (sum uint64, dropped string) {
	d.offset, d.counts = 0, d.counts[:0]
	var length uint64
	for _, s := range v.spans {
		length += uint64(s.length)
	}
	if length != uint64(len(v.deltas)) {
		return 0, DropInvalidBuckets
	}
	if len(v.spans) == 0 {
		return 0, ""
	}
	first := int64(v.spans[0].offset)
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
	index, deltas := first, v.deltas
	for i, s := range v.spans {
		if i > 0 {
			if s.offset < 0 {
				return 0, DropInvalidBuckets
			}
			index += int64(s.offset)
		}
		for range s.length {
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
