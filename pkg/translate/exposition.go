package translate

import (
	"bytes"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of io.prometheus.client.MetricFamily.
const (
	familyName   protowire.Number = 1
	familyHelp   protowire.Number = 2
	familyType   protowire.Number = 3
	familyMetric protowire.Number = 4
	familyUnit   protowire.Number = 5
)

// frame is a family of the exposition under way, without a copy of anything.
type frame struct {
	body, name, help, unit span
	metrics                uint32
	typ                    metricType
}

// span is a part of the exposition.
type span struct{ start, end uint32 }

// maxExposition is what spans can express: more is not read.
const maxExposition = math.MaxUint32

func (t *Translator) bytes(s span) []byte { return t.exposition[s.start:s.end] }

// readFrames finds the families of the exposition that have metrics, in the
// order of their names: protobuf may hold a name twice.
func (t *Translator) readFrames() {
	const small = 1 << 10
	if cap(t.frames) > small && cap(t.frames) > 4*len(t.frames) {
		t.frames = nil
	}
	t.frames = t.frames[:0]
	sorted := true
	var last []byte
	for at := 0; at < len(t.exposition); {
		length, n := uvarint(t.exposition[at:])
		if n == 0 || length > uint64(len(t.exposition)-at-n) {
			break
		}
		body := span{uint32(at + n), uint32(at + n + int(length))}
		at = int(body.end)
		f := t.readFrame(body)
		if f.metrics == 0 {
			continue
		}
		sorted = sorted && bytes.Compare(last, t.bytes(f.name)) <= 0
		last = t.bytes(f.name)
		t.frames = append(t.frames, f)
	}
	if !sorted {
		slices.SortStableFunc(t.frames, func(a, b frame) int { return bytes.Compare(t.bytes(a.name), t.bytes(b.name)) })
	}
}

// readFrame reads a family but for its metrics. The type of one that has none
// is unknown, unless its metrics say more: Prometheus' own copy of the format is
// proto3, in which a counter's type, being zero, is absent.
func (t *Translator) readFrame(body span) frame {
	frame := frame{body: body}
	typed := false
	var first []byte
	for f := (fields{rest: t.bytes(body)}); f.next(); {
		switch {
		case f.isBytes(familyMetric):
			if frame.metrics++; frame.metrics == 1 {
				first = f.bytes
			}
		case f.isBytes(familyName):
			frame.name = body.last(&f)
		case f.isBytes(familyHelp):
			frame.help = body.last(&f)
		case f.isBytes(familyUnit):
			frame.unit = body.last(&f)
		case f.isVarint(familyType):
			frame.typ, typed = unknownType, true
			if typ := int32(f.value); typ >= 0 && typ <= int32(gaugeHistogram) {
				frame.typ = metricType(typ)
			}
		}
	}
	if !typed {
		frame.typ = typeOf(first)
	}
	return frame
}

// last returns where the value of the last field is that f read of s.
func (s span) last(f *fields) span {
	end := s.end - uint32(len(f.rest))
	return span{end - uint32(len(f.bytes)), end}
}

// metricType is io.prometheus.client.MetricType.
type metricType uint8

const (
	counter metricType = iota
	gauge
	summary
	untyped
	histogram
	gaugeHistogram
	unknownType // one of later versions of the format
)

// valueField is the field of a Metric that holds the value of that type.
func (typ metricType) valueField() protowire.Number {
	switch typ {
	case counter:
		return 3
	case gauge:
		return 2
	case summary:
		return 4
	case untyped:
		return 5
	case unknownType:
		return 0 // no field: no value
	default:
		return 7
	}
}

// typeOf returns the type that a metric's value says.
func typeOf(metric []byte) metricType {
	var has [8]bool
	for f := (fields{rest: metric}); f.next(); {
		if f.typ == protowire.BytesType && f.number < 8 {
			has[f.number] = true
		}
	}
	for _, typ := range []metricType{counter, gauge, histogram, summary} {
		if has[typ.valueField()] {
			return typ
		}
	}
	return untyped
}

// Fields of io.prometheus.client.Metric, beside those of its values.
const (
	metricLabel     protowire.Number = 1
	metricTimestamp protowire.Number = 6
)

// metric is one Metric message.
type metric struct {
	labels    []byte // the encoded fields of its labels
	value     message
	timestamp int64 // milliseconds
	timed     bool  // has a timestamp
}

// read reads a metric of that type. Labels come first where anyone writes
// them; elsewhere they are gathered in scratch.
func (m *metric) read(b []byte, typ metricType, scratch *[]byte) {
	const labelTag = byte(metricLabel)<<3 | byte(protowire.BytesType)
	i := 0
	for i < len(b) && b[i] == labelTag {
		length, n := uvarint(b[i+1:])
		if n == 0 || length > uint64(len(b)-i-1-n) {
			break
		}
		i += 1 + n + int(length)
	}
	*m = metric{labels: b[:i]}
	gathered := false
	field := typ.valueField()
	if i < len(b) && b[i] == byte(field)<<3|byte(protowire.BytesType) {
		length, n := uvarint(b[i+1:])
		if n > 0 && length == uint64(len(b)-i-1-n) { // a value and no more, as nearly always
			m.value = message{bytes: b[i+1+n:], is: true}
			return
		}
	}
	for f := (fields{rest: b[i:]}); ; {
		before := f.rest
		if !f.next() {
			return
		}
		switch {
		case f.isBytes(field):
			m.value.add(f.bytes)
		case f.isVarint(metricTimestamp):
			m.timestamp, m.timed = int64(f.value), true
		case f.isBytes(metricLabel):
			if !gathered {
				gathered = true
				*scratch = append((*scratch)[:0], m.labels...)
			}
			*scratch = append(*scratch, before[:len(before)-len(f.rest)]...)
			m.labels = *scratch
		}
	}
}

// eachLabel calls f with the name and the value of each of the labels of a
// metric.
func eachLabel(labels []byte, f func(name, value []byte) bool) {
	for l := (fields{rest: labels}); l.next(); {
		if !l.isBytes(metricLabel) {
			continue
		}
		var name, value []byte
		for pair := (fields{rest: l.bytes}); pair.next(); {
			switch {
			case pair.isBytes(1):
				name = pair.bytes
			case pair.isBytes(2):
				value = pair.bytes
			}
		}
		if !f(name, value) {
			return
		}
	}
}
