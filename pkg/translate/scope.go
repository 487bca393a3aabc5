package translate

import (
	"cmp"
	"slices"

	"go.opentelemetry.io/otel/attribute"

	"otelmetricsplugin/internal/otlp"
)

// scope is an instrumentation scope, and its points that could not be written
// at once.
type scope struct {
	otlp.Scope
	number uint64 // in the order of appearance; 0 is not in use
	page   uint64 // the last one with a series of the scope
	groups []group
}

// group holds points of one family and kind, in the form of
// [otlp.AppendDelimited].
type group struct {
	family *family
	kind   otlp.Kind
	points []byte
}

// group returns the group for points of f of kind k. The points of a family
// come together.
func (sc *scope) group(f *family, k otlp.Kind) *group {
	for i := len(sc.groups) - 1; i >= 0 && sc.groups[i].family == f; i-- {
		if sc.groups[i].kind == k {
			return &sc.groups[i]
		}
	}
	if len(sc.groups) < cap(sc.groups) { // with the memory that its points took
		sc.groups = sc.groups[:len(sc.groups)+1]
	} else {
		sc.groups = append(sc.groups, group{})
	}
	g := &sc.groups[len(sc.groups)-1]
	g.family, g.kind, g.points = f, k, g.points[:0]
	return g
}

// write writes the groups, by kind within each family, and empties them.
func (sc *scope) write(t *Translator) {
	for groups := sc.groups; len(groups) > 0; {
		f := groups[0].family
		n := 1
		for n < len(groups) && groups[n].family == f {
			n++
		}
		for _, k := range []otlp.Kind{otlp.Gauge, otlp.Sum, otlp.Histogram, otlp.ExponentialHistogram, otlp.Summary} {
			for i := range groups[:n] {
				if g := &groups[i]; g.kind == k {
					t.w.Metric(f.metric(t, k))
					t.w.Delimited(g.points)
				}
			}
		}
		groups = groups[n:]
	}
	for i := range sc.groups {
		const small = 4 << 10
		g := &sc.groups[i]
		if g.family = nil; cap(g.points) > small && cap(g.points) > 4*len(g.points) {
			g.points = nil
		}
	}
	sc.groups = sc.groups[:0]
}

// scopeOf returns the place in t.scopes of the scope with those properties. It
// is not ok if an attribute is repeated.
func (t *Translator) scopeOf(name, version, schemaURL string, attributes []attribute.KeyValue) (place uint32, ok bool) {
	set := attribute.NewSet(attributes...)
	if set.Len() != len(attributes) {
		return 0, false
	}
	encoded := otlp.NewScope(name, version, schemaURL, set.ToSlice())
	if place, ok := t.scopePlaces[encoded.Key()]; ok {
		return place, true
	}
	t.scopesSeen++
	sc := scope{Scope: encoded, number: t.scopesSeen}
	if n := len(t.scopesFree); n > 0 {
		place, t.scopesFree = t.scopesFree[n-1], t.scopesFree[:n-1]
		t.scopes[place] = sc
	} else {
		place = uint32(len(t.scopes))
		t.scopes = append(t.scopes, sc)
	}
	t.scopePlaces[encoded.Key()] = place
	return place, true
}

// writeScopes writes what waits in the scopes, in the order in which they first
// appeared, and forgets those that are not in the exposition under way. The default
// scope, the first one, is never forgotten.
func (t *Translator) writeScopes() {
	order := t.scopeOrder[:0]
	for place := range t.scopes {
		if place > 0 && t.scopes[place].number != 0 {
			order = append(order, uint32(place))
		}
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(t.scopes[a].number, t.scopes[b].number) })
	for _, place := range order {
		sc := &t.scopes[place]
		if len(sc.groups) > 0 {
			t.w.Scope(sc.Scope)
			sc.write(t)
		}
		if sc.page != t.page.number {
			delete(t.scopePlaces, sc.Key())
			*sc = scope{}
			t.scopesFree = append(t.scopesFree, place)
		}
	}
	if len(t.scopePlaces) == 1 && len(t.scopes) > 1 { // maps and arrays of many scopes would stay as large
		t.scopes, t.scopesFree, order = slices.Clone(t.scopes[:1]), nil, nil
		t.scopePlaces = map[string]uint32{t.scopes[0].Key(): 0}
	}
	t.scopeOrder = order
}
