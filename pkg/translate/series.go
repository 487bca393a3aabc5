package translate

import (
	"bytes"
	"hash/maphash"
	"math"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"

	"otelmetricsplugin/internal/otlp"
)

// maxLabels bounds the labels of a series.
const maxLabels = 256

// series is what is remembered of a series from one exposition to the next. It holds
// no pointers: there are a million of them. Times are Unix nanoseconds; 0 is
// unknown.
type series struct {
	hash     uint64 // of its labels as they are encoded in the exposition
	page     uint64 // the last one that the series is on
	offset   uint32 // of its attributes, in those of the family
	length   uint32
	position uint32 // in its last exposition
	scope    uint32 // place in Translator.scopes
	state    uint32 // place in family.histograms, from 1; 0 is none

	kind     otlp.Kind
	live     bool // its last point has a value
	observed bool // what follows is set
	created  int64
	start    int64   // in effect
	time     int64   // of the last observation
	value    float64 // the last one; a summary's count
}

// attributesOf returns the encoded attributes of s.
func (f *family) attributesOf(s *series) []byte {
	end := s.offset + s.length
	return f.attributes[s.offset:end:end]
}

// find returns the series of f with the given labels, made if it is new, and
// marks it as seen. The series is valid until the next call.
func (t *Translator) find(f *family, labels []byte) (s *series, dropped string) {
	h := maphash.Bytes(t.seed, labels)
	// Pages keep their order: the series is nearly always the next one of the
	// last exposition, or the one after it where one vanished.
	for i := f.next; i < len(f.series) && i < f.next+2; i++ {
		if s := &f.series[i]; s.hash == h && s.page != t.page.number {
			f.see(t, i)
			f.next = i + 1
			return s, ""
		}
	}
	return t.search(f, h, labels)
}

// search is find for a series that is new or at another place.
func (t *Translator) search(f *family, h uint64, labels []byte) (s *series, dropped string) {
	scope, ok := t.readLabels(labels)
	if !ok {
		return nil, DropInvalidLabel
	}
	attributes := t.scratch.attributes
	if t.indexed != f {
		t.indexed = f
		t.index = reuseMap(t.index, len(f.series))
		for i := range f.series {
			s := &f.series[i]
			t.index[t.identity(s.scope, f.attributesOf(s))] = uint32(i)
		}
	}
	id := t.identity(scope, attributes)
	if i, ok := t.index[id]; ok {
		s := &f.series[i]
		if s.page == t.page.number {
			return nil, DropDuplicate
		}
		s.hash = h // the labels came in another order, or an empty one came or went
		f.see(t, int(i))
		f.next = int(i) + 1
		return s, ""
	}
	if len(f.attributes)+len(attributes) > math.MaxUint32 {
		return nil, DropInvalidLabel
	}
	i := len(f.series)
	t.index[id] = uint32(i)
	f.series = append(f.series, series{
		hash: h, scope: scope, offset: uint32(len(f.attributes)), length: uint32(len(attributes)),
	})
	f.attributes = append(f.attributes, attributes...)
	f.see(t, i)
	return &f.series[i], ""
}

// see notes that series i is in the exposition under way.
func (f *family) see(t *Translator, i int) {
	s := &f.series[i]
	if int(f.seen) != i {
		f.moved = true
	}
	s.page, s.position = t.page.number, f.seen
	f.seen++
	if s.scope != 0 {
		t.scopes[s.scope].page = t.page.number
	}
}

// identity identifies a set of attributes, encoded for points of any kind, and
// their scope within a family. It is keyed, so an exposition cannot be made to collide,
// and by chance two of n series do with a probability of n²/2⁶⁵.
func (t *Translator) identity(scope uint32, attributes []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	_ = h.WriteByte(byte(scope))
	_ = h.WriteByte(byte(scope >> 8))
	_ = h.WriteByte(byte(scope >> 16))
	_ = h.WriteByte(byte(scope >> 24))
	otlp.EachAttribute(attributes, func(a []byte) { _, _ = h.Write(a) })
	return h.Sum64()
}

// label is a label of a series, within the exposition.
type label struct{ name, value []byte }

// readLabels reads the labels of a series: their attributes, for points of kind
// 0, go to t.scratch. It returns the place of the scope that they name, and is
// not ok if they are invalid.
func (t *Translator) readLabels(labels []byte) (scope uint32, ok bool) {
	list := t.scratch.labels[:0]
	var name, version, schemaURL string
	var scopeAttributes []attribute.KeyValue
	scoped, valid := false, true
	eachLabel(labels, func(n, v []byte) bool {
		if len(v) == 0 {
			return true
		}
		if valid = len(n) > 0 && utf8.Valid(n) && utf8.Valid(v); !valid {
			return false
		}
		key, isScope := bytes.CutPrefix(n, []byte("otel_scope_"))
		if !isScope {
			list = append(list, label{n, v})
			valid = len(list) <= maxLabels
			return valid
		}
		scoped = true
		var field *string
		switch string(key) {
		case "":
			valid = false
			return false
		case "name":
			field = &name
		case "version":
			field = &version
		case "schema_url":
			field = &schemaURL
		default:
			scopeAttributes = append(scopeAttributes, attribute.String(string(key), string(v)))
			valid = len(scopeAttributes) <= maxLabels
			return valid
		}
		valid = *field == "" // else a name is repeated
		*field = string(v)
		return valid
	})
	t.scratch.labels = list
	if !valid {
		return 0, false
	}
	for i := range list { // they are few, and sorted already where a client library wrote them
		for j := i; j > 0 && bytes.Compare(list[j].name, list[j-1].name) < 0; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	encoded := t.scratch.attributes[:0]
	for i, l := range list {
		if i > 0 && bytes.Equal(l.name, list[i-1].name) {
			return 0, false
		}
		encoded = otlp.AppendAttribute(encoded, 0, l.name, l.value)
	}
	t.scratch.attributes = encoded
	if !scoped {
		return 0, true
	}
	return t.scopeOf(name, version, schemaURL, scopeAttributes)
}

// setKind makes s one of points of kind k. Where it was one of another kind,
// another stream begins. The old one gets no last point: to a backend that tells
// series by name and attributes it would be a second point of the new one, at
// the same time.
func (f *family) setKind(s *series, k otlp.Kind) {
	if s.kind == k {
		return
	}
	if s.kind != 0 {
		s.live, s.observed, s.value = false, false, 0
		if s.state != 0 {
			f.histograms[s.state-1] = histogramState{}
		}
	}
	otlp.MoveAttributes(f.attributesOf(s), k)
	s.kind = k
}

// stateOf returns what is remembered of a histogram.
func (f *family) stateOf(s *series) *histogramState {
	if s.state == 0 {
		if n := len(f.free); n > 0 {
			s.state, f.free = f.free[n-1], f.free[:n-1]
		} else {
			f.histograms = append(f.histograms, histogramState{})
			s.state = uint32(len(f.histograms))
		}
	}
	return &f.histograms[s.state-1]
}

// markStale writes a point of s without a recorded value if its last one had a
// value: rule 23.
func (t *Translator) markStale(f *family, s *series, at int64) {
	if s.live {
		t.writeStale(f, s, at)
	}
}

// writeStale writes a point of s without a recorded value.
func (t *Translator) writeStale(f *family, s *series, at int64) {
	s.live = false
	times := otlp.Times{Time: at, NoRecordedValue: true}
	attributes := f.attributesOf(s)
	switch s.kind {
	case otlp.Histogram:
		t.points.histogram = otlp.HistogramPoint{Times: times, Attributes: attributes}
		t.write(f, s, &t.points.histogram)
	case otlp.ExponentialHistogram:
		t.points.exponential = otlp.ExponentialPoint{Times: times, Attributes: attributes}
		t.write(f, s, &t.points.exponential)
	case otlp.Summary:
		t.points.summary = otlp.SummaryPoint{Times: times, Attributes: attributes}
		t.write(f, s, &t.points.summary)
	default:
		t.points.number = otlp.NumberPoint{Times: times, Attributes: attributes}
		t.write(f, s, &t.points.number)
	}
}

func reuseMap(m map[uint64]uint32, n int) map[uint64]uint32 {
	clear(m)
	if m == nil {
		m = make(map[uint64]uint32, n)
	}
	return m
}
