package scrape

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"

	"otelmetricsplugin/internal/text"
)

// Tags of io.prometheus.client's messages (metrics.proto): a field's number and
// its wire type. A known field with another wire type is an unknown field.
const (
	familyName   = 1<<3 | uint64(protowire.BytesType)
	familyMetric = 4<<3 | uint64(protowire.BytesType)

	metricLabel     = 1<<3 | uint64(protowire.BytesType)
	metricGauge     = 2<<3 | uint64(protowire.BytesType)
	metricCounter   = 3<<3 | uint64(protowire.BytesType)
	metricSummary   = 4<<3 | uint64(protowire.BytesType)
	metricUntyped   = 5<<3 | uint64(protowire.BytesType)
	metricHistogram = 7<<3 | uint64(protowire.BytesType)

	labelName  = 1<<3 | uint64(protowire.BytesType)
	labelValue = 2<<3 | uint64(protowire.BytesType)

	gaugeValue = 1<<3 | uint64(protowire.Fixed64Type) // the same for a counter

	counterExemplar = 2<<3 | uint64(protowire.BytesType)
	counterCreated  = 3<<3 | uint64(protowire.BytesType)

	summaryQuantile = 3<<3 | uint64(protowire.BytesType)
	summaryCreated  = 4<<3 | uint64(protowire.BytesType)

	histogramBucket        = 3<<3 | uint64(protowire.BytesType)
	histogramNegativeSpan  = 9<<3 | uint64(protowire.BytesType)
	histogramNegativeDelta = 10<<3 | uint64(protowire.BytesType) // packed
	histogramNegativeCount = 11<<3 | uint64(protowire.BytesType) // packed
	histogramPositiveSpan  = 12<<3 | uint64(protowire.BytesType)
	histogramPositiveDelta = 13<<3 | uint64(protowire.BytesType) // packed
	histogramPositiveCount = 14<<3 | uint64(protowire.BytesType) // packed
	histogramCreated       = 15<<3 | uint64(protowire.BytesType)
	histogramExemplar      = 16<<3 | uint64(protowire.BytesType)

	bucketCumulativeCount = 1<<3 | uint64(protowire.VarintType)
	bucketUpperBound      = 2<<3 | uint64(protowire.Fixed64Type)
	bucketExemplar        = 3<<3 | uint64(protowire.BytesType)

	exemplarLabel     = 1<<3 | uint64(protowire.BytesType)
	exemplarTimestamp = 3<<3 | uint64(protowire.BytesType)

	timestampSeconds = 1<<3 | uint64(protowire.VarintType)
	timestampNanos   = 2<<3 | uint64(protowire.VarintType)
)

// limits bound an exposition beyond its bytes.
type limits struct {
	samples    int
	labelBytes int
}

// checkProtobuf walks an exposition in delimited protobuf once, without
// allocating. It returns an error where proto.Unmarshal would fail on a family,
// and where the exposition is beyond a limit.
func checkProtobuf(ctx context.Context, exposition []byte, limits limits) error {
	const stride = 1 << 20 // bytes between two looks at ctx
	c := checker{maxLabelBytes: limits.labelBytes}
	next := 0
	rest := exposition
	for n := 1; len(rest) > 0; n++ {
		at := len(exposition) - len(rest)
		if at >= next {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			next = at + stride
		}
		family, size := consumeBytes(rest)
		if size < 0 {
			return fmt.Errorf("family %d, at byte %d of %d, is truncated or has an invalid length", n, at, len(exposition))
		}
		rest = rest[size:]
		switch {
		case !c.family(family):
			return fmt.Errorf("family %d, at byte %d of %d, is not a valid protobuf message", n, at, len(exposition))
		case c.samples > limits.samples:
			return &LimitError{Limit: LimitSamples, Max: int64(limits.samples)}
		case c.longName:
			return &LimitError{Limit: LimitLabelBytes, Max: int64(limits.labelBytes), Subject: "the name of a family"}
		case c.longLabel:
			return &LimitError{Limit: LimitLabelBytes, Max: int64(limits.labelBytes),
				Subject: fmt.Sprintf("a label of family %q, name and value,", text.Shorten(string(nameOf(family)), 128))}
		}
	}
	return nil
}

// nameOf returns the name of a valid family.
func nameOf(family []byte) (name []byte) {
	for len(family) > 0 {
		tag, value, n := consumeField(family)
		if tag == familyName {
			name = value
		}
		family = family[n:]
	}
	return name
}

// checker walks the messages of an exposition. Its methods, and the functions
// below, report whether a message is valid. What encoders write again and again
// (a label as its name and its value, a gauge of nothing but a value, a bucket of
// a count and a bound) is recognized whole; anything else is read field by field.
type checker struct {
	maxLabelBytes       int
	samples             int // so far, counted as lines of the text format
	longName, longLabel bool
}

func (c *checker) family(b []byte) bool {
	name := 0 // its length; of several names the last one is the family's
	for len(b) > 0 {
		tag, value, n := consumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		switch tag {
		case familyName:
			name = len(value)
		case familyMetric:
			if !c.metric(value) {
				return false
			}
		}
	}
	c.longName = c.longName || name > c.maxLabelBytes
	return true
}

func (c *checker) metric(b []byte) bool {
	samples, longest := 1, 0 // label
	for len(b) > 0 {
		if n := plainLabel(b); n > 0 {
			longest = max(longest, n-6)
			b = b[n:]
			continue
		}
		if n := plainValue(b); n > 0 {
			b = b[n:]
			continue
		}
		tag, value, n := consumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		valid := true
		switch tag {
		case metricLabel:
			valid = c.label(value)
		case metricGauge, metricUntyped:
			valid = scalars(value)
		case metricCounter:
			valid = counter(value)
		case metricSummary:
			n, valid = summary(value)
			samples += n
		case metricHistogram:
			n, valid = histogram(value)
			samples += n
		}
		if !valid {
			return false
		}
	}
	c.samples += samples
	c.longLabel = c.longLabel || longest > c.maxLabelBytes
	return true
}

func (c *checker) label(b []byte) bool {
	var name, value int // lengths
	for len(b) > 0 {
		tag, s, n := consumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		switch tag {
		case labelName:
			name = len(s)
		case labelValue:
			value = len(s)
		}
	}
	c.longLabel = c.longLabel || name+value > c.maxLabelBytes
	return true
}

// plainLabel returns the size of the label that b begins with, if it is written
// as name and value and has fewer than 128 bytes; otherwise 0. Six bytes of it
// are not the name's or the value's.
func plainLabel(b []byte) int {
	if len(b) < 6 || b[0] != byte(metricLabel) || b[2] != byte(labelName) {
		return 0
	}
	size, name := int(b[1]), int(b[3])
	if size >= 0x80 || size > len(b)-2 || name > size-4 {
		return 0
	}
	if b[4+name] != byte(labelValue) || int(b[5+name]) != size-4-name {
		return 0
	}
	return 2 + size
}

// plainValue returns the size of the gauge or counter that b begins with, if it
// is nothing but a value; otherwise 0.
func plainValue(b []byte) int {
	const size = 2 + 1 + 8
	if len(b) >= size && (b[0] == byte(metricGauge) || b[0] == byte(metricCounter)) && b[1] == size-2 && b[2] == byte(gaugeValue) {
		return size
	}
	return 0
}

func counter(b []byte) bool {
	if len(b) > 9 && b[0] == byte(gaugeValue) {
		b = b[9:]
	}
	for len(b) > 0 {
		tag, value, n := consumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		switch tag {
		case counterExemplar:
			if !exemplar(value) {
				return false
			}
		case counterCreated:
			if !timestamp(value) {
				return false
			}
		}
	}
	return true
}

func summary(b []byte) (samples int, valid bool) {
	samples = 1
	for len(b) > 0 {
		tag, value, n := consumeField(b)
		if n < 0 {
			return 0, false
		}
		b = b[n:]
		switch tag {
		case summaryQuantile:
			samples++
			if !scalars(value) {
				return 0, false
			}
		case summaryCreated:
			if !timestamp(value) {
				return 0, false
			}
		}
	}
	return samples, true
}

func histogram(b []byte) (samples int, valid bool) {
	samples = 1
	for len(b) > 0 {
		if n := plainBucket(b); n > 0 {
			samples++
			b = b[n:]
			continue
		}
		tag, value, n := consumeField(b)
		if n < 0 {
			return 0, false
		}
		b = b[n:]
		valid := true
		switch tag {
		case histogramBucket:
			samples++
			valid = bucket(value)
		case histogramNegativeSpan, histogramPositiveSpan:
			valid = scalars(value)
		case histogramCreated:
			valid = timestamp(value)
		case histogramNegativeDelta, histogramPositiveDelta:
			valid = varints(value)
		case histogramNegativeCount, histogramPositiveCount:
			valid = len(value)%8 == 0
		case histogramExemplar:
			valid = exemplar(value)
		}
		if !valid {
			return 0, false
		}
	}
	return samples, true
}

// plainBucket returns the size of the bucket that b begins with, if it is a
// cumulative count of at most eight bytes and an upper bound; otherwise 0.
func plainBucket(b []byte) int {
	const others = 1 + 1 + 8    // both tags and the bound
	const most = 2 + others + 8 // which may reach beyond b
	if cap(b) < most {
		return 0
	}
	n := len(b)
	b = b[:most]
	if b[0] != byte(histogramBucket) || b[2] != byte(bucketCumulativeCount) {
		return 0
	}
	size := int(b[1])
	count := size - others
	if count < 1 || count > 8 || 2+size > n || b[3+count] != byte(bucketUpperBound) {
		return 0
	}
	// The count ends where it should if its last byte alone has no high bit.
	mask := ^uint64(0) >> (64 - 8*count)
	if binary.LittleEndian.Uint64(b[3:])&highBits&mask != highBits&(mask>>8) {
		return 0
	}
	return 2 + size
}

func bucket(b []byte) bool {
	for len(b) > 0 {
		tag, value, n := consumeField(b)
		if n < 0 || tag == bucketExemplar && !exemplar(value) {
			return false
		}
		b = b[n:]
	}
	return true
}

func exemplar(b []byte) bool {
	for len(b) > 0 {
		tag, value, n := consumeField(b)
		if n < 0 || (tag == exemplarLabel || tag == exemplarTimestamp) && !scalars(value) {
			return false
		}
		b = b[n:]
	}
	return true
}

// timestamp recognizes seconds followed by nanoseconds.
func timestamp(b []byte) bool {
	if len(b) >= 4 && b[0] == byte(timestampSeconds) {
		if n := 1 + varintSize(b[1:]); n > 1 && n < len(b) && b[n] == byte(timestampNanos) && n+1+varintSize(b[n+1:]) == len(b) {
			return true
		}
	}
	return scalars(b)
}

// scalars is for a message whose fields have no form to check beyond their size:
// numbers that are not packed, and strings.
func scalars(b []byte) bool {
	for len(b) > 0 {
		_, _, n := consumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

func varints(b []byte) bool {
	for len(b) > 0 {
		n := varintSize(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// consumeField returns the tag and the size of the field that b begins with, and
// its value if that has a length. The size is negative if the field is malformed.
func consumeField(b []byte) (tag uint64, value []byte, size int) {
	if len(b) < 2 || b[0] >= 0x80 || b[0] < 1<<3 {
		return consumeAnyField(b)
	}
	// A tag of one byte.
	tag = uint64(b[0])
	switch protowire.Type(tag & 7) {
	case protowire.BytesType: // with a length of one or two bytes
		n, at := int(b[1]), 2
		if n >= 0x80 {
			if len(b) < 3 || b[2] >= 0x80 {
				break
			}
			n, at = n-0x80+int(b[2])<<7, 3
		}
		size = at + n
		if size > len(b) {
			return 0, nil, -1
		}
		return tag, b[at:size], size
	case protowire.Fixed64Type:
		if len(b) < 9 {
			return 0, nil, -1
		}
		return tag, nil, 9
	case protowire.VarintType:
		n := varintSize(b[1:])
		if n < 0 {
			return 0, nil, -1
		}
		return tag, nil, 1 + n
	}
	return consumeAnyField(b)
}

func consumeAnyField(b []byte) (tag uint64, value []byte, size int) {
	tag, size = protowire.ConsumeVarint(b)
	if size < 0 {
		return 0, nil, -1
	}
	number := tag >> 3
	if number < uint64(protowire.MinValidNumber) || number > uint64(protowire.MaxValidNumber) {
		return 0, nil, -1
	}
	b = b[size:]
	var n int
	if typ := protowire.Type(tag & 7); typ == protowire.BytesType {
		value, n = consumeBytes(b)
	} else { // of groups too, which are unknown fields
		n = protowire.ConsumeFieldValue(protowire.Number(number), typ, b)
	}
	if n < 0 {
		return 0, nil, -1
	}
	return tag, value, size + n
}

// consumeBytes returns the bytes whose length b begins with, and their size with
// it, which is negative if they are malformed.
func consumeBytes(b []byte) (value []byte, size int) {
	length, n := protowire.ConsumeVarint(b)
	if n < 0 || length > uint64(len(b)-n) {
		return nil, -1
	}
	size = n + int(length)
	return b[n:size], size
}

// highBits are the bits that all bytes of a varint but the last have.
const highBits = 0x8080808080808080

// varintSize returns the size of the varint that b begins with, or a negative
// number if it is malformed. It looks at eight bytes at once, although they may
// belong to what follows b.
func varintSize(b []byte) int {
	if cap(b) >= 8 {
		if last := ^binary.LittleEndian.Uint64(b[:8]) & highBits; last != 0 {
			n := bits.TrailingZeros64(last)/8 + 1
			if n > len(b) {
				return -1
			}
			return n
		}
	}
	_, n := protowire.ConsumeVarint(b)
	return n
}
