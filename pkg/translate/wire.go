package translate

import (
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields reads the fields of an encoded message, one after the other. A message
// that is malformed ends where it is.
type fields struct {
	rest   []byte
	number protowire.Number
	typ    protowire.Type
	value  uint64 // of a varint or a number of 4 or 8 bytes
	bytes  []byte // of a string or message
}

// next reads the next field and reports whether there was one.
func (f *fields) next() bool {
	tag, n := uvarint(f.rest)
	if n == 0 || tag>>3 == 0 || tag>>3 > uint64(protowire.MaxValidNumber) {
		return false
	}
	f.rest = f.rest[n:]
	f.number, f.typ = protowire.Number(tag>>3), protowire.Type(tag&7)
	switch f.typ {
	case protowire.VarintType:
		f.value, n = uvarint(f.rest)
		f.rest = f.rest[n:]
		return n > 0
	case protowire.Fixed64Type:
		if len(f.rest) < 8 {
			return false
		}
		f.value = binary.LittleEndian.Uint64(f.rest)
		f.rest = f.rest[8:]
	case protowire.BytesType:
		length, n := uvarint(f.rest)
		if n == 0 || length > uint64(len(f.rest)-n) {
			return false
		}
		f.bytes = f.rest[n : n+int(length)]
		f.rest = f.rest[n+int(length):]
	default: // not in this format
		n := protowire.ConsumeFieldValue(f.number, f.typ, f.rest)
		if n < 0 {
			return false
		}
		f.rest = f.rest[n:]
	}
	return true
}

// isBytes, isVarint and isDouble report whether the field is of that number and
// type: one of another type is an unknown field.
func (f *fields) isBytes(number protowire.Number) bool {
	return f.number == number && f.typ == protowire.BytesType
}

func (f *fields) isVarint(number protowire.Number) bool {
	return f.number == number && f.typ == protowire.VarintType
}

func (f *fields) isDouble(number protowire.Number) bool {
	return f.number == number && f.typ == protowire.Fixed64Type
}

func (f *fields) double() float64 { return math.Float64frombits(f.value) }

// uvarint reads a varint and returns the number of its bytes, 0 if it is
// malformed.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return longVarint(b)
}

func longVarint(b []byte) (uint64, int) {
	v, n := protowire.ConsumeVarint(b)
	return v, max(n, 0)
}

// message is a message in a field that is not repeated. Where it is repeated
// all the same protobuf merges the messages, which is to concatenate them.
type message struct {
	bytes  []byte
	is     bool // there is one
	merged bool // bytes are a copy
}

func (m *message) add(b []byte) {
	switch {
	case !m.is:
		*m = message{bytes: b, is: true}
	case !m.merged:
		m.bytes, m.merged = append(append([]byte(nil), m.bytes...), b...), true
	default:
		m.bytes = append(m.bytes, b...)
	}
}

// timestamp is a google.protobuf.Timestamp.
type timestamp struct {
	seconds int64
	nanos   int32
}

// read merges an encoded timestamp into ts.
func (ts *timestamp) read(b []byte) {
	for f := (fields{rest: b}); f.next(); {
		switch {
		case f.isVarint(1):
			ts.seconds = int64(f.value)
		case f.isVarint(2):
			ts.nanos = int32(f.value)
		}
	}
}

// unixNano returns ts in Unix nanoseconds, 0 if it is absent or cannot be
// expressed.
func (ts *timestamp) unixNano() int64 {
	const second = int64(time.Second)
	if ts.seconds < 0 || ts.seconds >= math.MaxInt64/second || ts.nanos < 0 || int64(ts.nanos) >= second {
		return 0
	}
	return ts.seconds*second + int64(ts.nanos)
}
