package translate

import (
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
)

// scratch is room to read one metric in.
type scratch struct {
	attrs           []attribute.KeyValue // of the last new series
	buckets         []bucket
	explicit        explicit
	diff            []uint64
	exponential     exponential
	exponentialDiff exponential
}

// attribute returns an attribute of a new series, the i-th one. It shares its
// strings with the last new series where they are the same, as they mostly are
// in a family, and keeps nothing of the page's memory.
func (x *scratch) attribute(i int, name, value string) attribute.KeyValue {
	if last := x.attrs[:cap(x.attrs)]; i < len(last) && string(last[i].Key) == name {
		if last[i].Value.AsString() == value {
			return last[i]
		}
		return last[i].Key.String(strings.Clone(value))
	}
	return attribute.String(strings.Clone(name), strings.Clone(value))
}

// replace returns a copy of counts, in place of old unless that is far too
// large.
func replace(old, counts []uint64) []uint64 {
	if cap(old) > 4*len(counts) {
		return slices.Clone(counts)
	}
	return append(old[:0], counts...)
}

// bucket is one of a classic histogram.
type bucket struct {
	bound      float64
	cumulative uint64
}

// arena holds the bucket counts of a page's deltas.
type arena struct {
	free []uint64
	used int
}

// minArena is the room that an arena starts with.
const minArena = 1024

// reset ends the use of all that was handed out, and keeps the room for the
// next page if it is not far too large.
func (a *arena) reset() {
	if cap(a.free) > minArena && a.used < cap(a.free)/4 {
		a.free = nil
	}
	a.free, a.used = a.free[:0], 0
}

// clone returns a copy of counts that lives until reset.
func (a *arena) clone(counts []uint64) []uint64 {
	if cap(a.free)-len(a.free) < len(counts) {
		a.free = make([]uint64, 0, max(minArena, 2*cap(a.free), len(counts)))
	}
	n := len(a.free)
	a.free = append(a.free, counts...)
	a.used += len(counts)
	return a.free[n:len(a.free):len(a.free)]
}
