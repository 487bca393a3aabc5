package translate

import (
	"encoding/hex"
	"unicode/utf8"

	"otelmetricsplugin/internal/otlp"
)

// appendExemplar appends an Exemplar message, translated by rule 17, to the
// encoded exemplars of a point of kind k. For a delta, one that was measured
// before it began belongs to an earlier point.
func (t *Translator) appendExemplar(list []byte, k otlp.Kind, b []byte, delta bool, start int64) []byte {
	var e otlp.Exemplar
	var at timestamp
	var traceID [16]byte
	var spanID [8]byte
	attributes := t.scratch.exemplarAttributes[:0]
	for f := (fields{rest: b}); f.next(); {
		switch {
		case f.isDouble(2):
			e.Value = f.double()
		case f.isBytes(3):
			at.read(f.bytes)
		}
	}
	eachLabel(b, func(name, value []byte) bool {
		switch {
		case len(name) == 0 || len(value) == 0:
			return true
		case string(name) == "trace_id" && e.TraceID == nil && decodeID(traceID[:], value):
			e.TraceID = traceID[:]
			return true
		case string(name) == "span_id" && e.SpanID == nil && decodeID(spanID[:], value):
			e.SpanID = spanID[:]
			return true
		}
		attributes = otlp.AppendExemplarAttribute(attributes, toValidUTF8(name), toValidUTF8(value))
		return true
	})
	e.Attributes, t.scratch.exemplarAttributes = attributes, attributes
	if e.Time = at.unixNano(); e.Time != 0 && delta && e.Time < start {
		return list
	}
	return e.Append(list, k)
}

// decodeID decodes a trace or span id of len(id) bytes from hex. It reports
// false if it is invalid: of another length, not hex, or all zero.
func decodeID(id, text []byte) bool {
	if len(text) != hex.EncodedLen(len(id)) {
		return false
	}
	if _, err := hex.Decode(id, text); err != nil {
		return false
	}
	for _, b := range id {
		if b != 0 {
			return true
		}
	}
	return false
}

func toValidUTF8(b []byte) []byte {
	if utf8.Valid(b) {
		return b
	}
	return []byte(validUTF8(b))
}
