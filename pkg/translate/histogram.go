package translate

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"

	"otelmetricsplugin/internal/otlp"
)

// histogramValue is a Histogram message.
type histogramValue struct {
	count    number
	sum      float64
	hasSum   bool
	buckets  []bucket
	hasInf   bool // there is a +Inf bucket
	created  timestamp
	exemplar bool // a bucket has one

	// The native part.
	schema             int32
	zeroThreshold      float64
	zeroCount          number
	positive, negative nativeValue
	exemplars          [][]byte
}

// number is a count that may be one of floats, which override integers where
// they are positive.
type number struct {
	n        uint64
	has      bool
	float    float64
	hasFloat bool
}

func (n *number) isFloat() bool { return n.hasFloat && (!n.has || n.float > 0) }

// bucket is a Bucket message.
type bucket struct {
	bound      float64
	cumulative number
	exemplar   message
}

// byBound orders buckets. It is rarely needed, and half as large as what the
// slices package makes for the type.
type byBound []bucket

func (b byBound) Len() int           { return len(b) }
func (b byBound) Less(i, j int) bool { return b[i].bound < b[j].bound }
func (b byBound) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }

func (h *histogramValue) read(b []byte) {
	*h = histogramValue{
		buckets:   h.buckets[:0],
		positive:  nativeValue{spans: h.positive.spans[:0], deltas: h.positive.deltas[:0]},
		negative:  nativeValue{spans: h.negative.spans[:0], deltas: h.negative.deltas[:0]},
		exemplars: h.exemplars[:0],
	}
	for f := (fields{rest: b}); f.next(); {
		switch f.number {
		case 3:
			if f.typ == bytesType {
				h.buckets = append(h.buckets, bucket{})
				h.readBucket(&h.buckets[len(h.buckets)-1], f.bytes)
			}
		case 1:
			if f.typ == varintType {
				h.count.n, h.count.has = f.value, true
			}
		case 2:
			if f.typ == doubleType {
				h.sum, h.hasSum = f.double(), true
			}
		case 4:
			if f.typ == doubleType {
				h.count.float, h.count.hasFloat = f.double(), true
			}
		case 15:
			if f.typ == bytesType {
				h.created.read(f.bytes)
			}
		default:
			h.readNative(&f)
		}
	}
}

// readBucket reads a Bucket message.
func (h *histogramValue) readBucket(k *bucket, b []byte) {
	const (
		cumulativeTag = 1 << 3
		boundTag      = 2<<3 | 1
	)
	// As nearly always: a count, a bound, and at times an exemplar.
	if len(b) > 0 && b[0] == cumulativeTag {
		if v, n := uvarint(b[1:]); n > 0 && len(b) >= 1+n+9 && b[1+n] == boundTag {
			k.cumulative.n, k.cumulative.has = v, true
			k.bound = math.Float64frombits(binary.LittleEndian.Uint64(b[2+n:]))
			b = b[1+n+9:]
		}
	}
	for f := (fields{rest: b}); f.next(); {
		switch {
		case f.isVarint(1):
			k.cumulative.n, k.cumulative.has = f.value, true
		case f.isDouble(2):
			k.bound = f.double()
		case f.isDouble(4):
			k.cumulative.float, k.cumulative.hasFloat = f.double(), true
		case f.isBytes(3):
			k.exemplar.add(f.bytes)
			h.exemplar = true
		}
	}
	h.hasInf = h.hasInf || math.IsInf(k.bound, 1)
}

// samples is the number of lines that h has in the text format, where client
// libraries always write the +Inf bucket; one for a native histogram.
func (h *histogramValue) samples() int {
	if h.isNative() {
		return 1
	}
	return len(h.buckets) + count(!h.hasInf) + count(h.hasSum) + count(h.count.has || h.count.hasFloat)
}

// histogramState is what is remembered of a histogram.
type histogramState struct {
	explicit    explicit
	exponential *exponential // nil before the first
}

// explicit is what a histogram with explicit buckets counts.
type explicit struct {
	count  uint64
	sum    float64
	noSum  bool
	bounds []float64 // increasing; +Inf is implied
	counts []uint64  // per bucket, one more than bounds
}

// histogram translates a histogram: by its native part if it has one that can
// be translated, else by its classic buckets if it has any.
func (t *Translator) histogram(f *family, s *series, h *histogramValue, ts int64) (dropped string) {
	if !h.isNative() {
		return t.classic(f, s, h, ts)
	}
	if isStale(h.sum) {
		f.setKind(s, otlp.ExponentialHistogram)
		t.writeStale(f, s, ts)
		return ""
	}
	dropped = t.scratch.exponential.read(h, &t.page.gaps)
	switch {
	case dropped == "":
		return t.native(f, s, h, ts)
	case len(h.buckets) > 0:
		return t.classic(f, s, h, ts)
	default:
		return dropped
	}
}

// classic translates a histogram by its classic buckets: rules 11 to 13.
func (t *Translator) classic(f *family, s *series, h *histogramValue, ts int64) (dropped string) {
	if isStale(h.sum) {
		f.setKind(s, otlp.Histogram)
		t.writeStale(f, s, ts)
		return ""
	}
	cur := &t.scratch.explicit
	if dropped := cur.read(h); dropped != "" {
		return dropped
	}
	f.setKind(s, otlp.Histogram)
	last := &f.stateOf(s).explicit
	bounds, diff, ok := t.scratch.subtractExplicit(last)
	change, since := t.observe(s, h.created.unixNano(), ts, !ok)
	countDiff := cur.count - last.count
	sumDiff, hasSumDiff := subtractSum(cur.sum, last.sum, cur.noSum || last.noSum)

	last.count, last.sum, last.noSum = cur.count, cur.sum, cur.noSum
	if !slices.Equal(last.bounds, cur.bounds) {
		last.bounds = f.sharedBounds(cur.bounds)
	}
	last.counts = replace(last.counts, cur.counts)

	p := &t.points.histogram
	*p = otlp.HistogramPoint{
		Attributes: f.attributesOf(s), Count: last.count, Sum: last.sum, HasSum: !last.noSum,
		Bounds: last.bounds, Counts: last.counts,
	}
	start := s.start
	if t.histogramDelta {
		switch change {
		case baseline:
			return DropBaseline
		case grown:
			p.Count, p.Sum, p.HasSum, p.Bounds, p.Counts = countDiff, sumDiff, hasSumDiff, bounds, diff
		}
		start = since
	}
	p.Times = otlp.Times{Start: startTime(start, ts), Time: ts}
	p.Exemplars = t.histogramExemplars(h, s.kind, nil, start)
	s.live = true
	t.write(f, s, p)
	return ""
}

// read reads the classic buckets of h.
func (e *explicit) read(h *histogramValue) (dropped string) {
	switch {
	case h.count.isFloat():
		return DropFloatHistogram
	case !h.count.has:
		return DropNoCount
	case h.count.n > math.MaxInt64:
		return DropInvalidCount
	}
	sorted := true
	for i := range h.buckets {
		b := &h.buckets[i]
		switch {
		case math.IsNaN(b.bound):
			return DropInvalidBuckets
		case b.cumulative.isFloat():
			return DropFloatHistogram
		}
		sorted = sorted && (i == 0 || h.buckets[i-1].bound <= b.bound)
	}
	if !sorted { // text may list them in any order
		sort.Stable(byBound(h.buckets))
	}
	e.count, e.sum, e.noSum = h.count.n, h.sum, !h.hasSum
	e.bounds, e.counts = e.bounds[:0], e.counts[:0]
	var below uint64
	for i := range h.buckets {
		bound, cumulative := h.buckets[i].bound, h.buckets[i].cumulative.n
		if i > 0 && bound == h.buckets[i-1].bound {
			if cumulative != h.buckets[i-1].cumulative.n {
				return DropInvalidBuckets
			}
			continue // a repeated line
		}
		switch {
		case cumulative < below:
			return DropInvalidBuckets
		case math.IsInf(bound, 1):
			continue // it is the count, and where it is not, the count is what is right
		case cumulative > e.count:
			return DropInvalidBuckets
		}
		e.bounds = append(e.bounds, bound)
		e.counts = append(e.counts, cumulative-below)
		below = cumulative
	}
	e.counts = append(e.counts, e.count-below)
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
	if len(last.counts) > 0 && !slices.Equal(cur.bounds, last.bounds) {
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

// subtractSum returns by how much a sum grew, if that is known. It may be
// less than zero, where negative values were observed.
func subtractSum(sum, last float64, unknown bool) (d float64, ok bool) {
	d = sum - last
	switch {
	case unknown || math.IsNaN(d) || math.IsInf(d, 0):
		return 0, false
	case d < 0 && -d <= noise*math.Abs(last):
		return 0, true
	default:
		return d, true
	}
}

// sharedBounds returns bounds as they may be kept.
func (f *family) sharedBounds(bounds []float64) []float64 {
	if !slices.Equal(f.bounds, bounds) {
		f.bounds = slices.Clone(bounds)
	}
	return f.bounds
}

// replace returns a copy of counts, in place of old unless that is far too
// large.
func replace(old, counts []uint64) []uint64 {
	if cap(old) > 4*len(counts) || cap(old) < len(counts) {
		return slices.Clone(counts)
	}
	return append(old[:0], counts...)
}

// histogramExemplars returns the encoded exemplars of h: those of its native
// part if it has any, else those of its buckets.
func (t *Translator) histogramExemplars(h *histogramValue, k otlp.Kind, native [][]byte, start int64) []byte {
	list := t.scratch.exemplars[:0]
	switch {
	case len(native) > 0:
		for _, e := range native {
			list = t.appendExemplar(list, k, e, t.histogramDelta, start)
		}
	case h.exemplar:
		for i := range h.buckets {
			if e := &h.buckets[i].exemplar; e.is {
				list = t.appendExemplar(list, k, e.bytes, t.histogramDelta, start)
			}
		}
	}
	t.scratch.exemplars = list
	return list
}
