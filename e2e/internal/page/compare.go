package page

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// startTolerance is what a start time may be off: the page gives it in seconds
// as a float64.
const startTolerance = time.Millisecond

// A Diff is one difference between the page and what arrived.
type Diff struct{ Key, What string }

func (d Diff) String() string { return d.Key + ": " + d.What }

// Compare says what is wrong with the points of one collection, given the page
// as it was before and as it was after; differences are sorted.
//
// Every series of the page before must be there, once, and every point must be
// on the page after. A counter, a histogram and a summary lie between the two
// pages in each of their numbers. A gauge may have had any value in between;
// where it is the same on both pages it is expected to have kept it, but only
// in unsettled, since it may have moved there and back.
func Compare(before, after map[string]Series, got []Point) (wrong, unsettled []Diff) {
	seen := map[string]int{}
	for _, p := range got {
		key := p.Key()
		seen[key]++
		b, a := before[key], after[key]
		switch _, known := after[key]; {
		case !known:
			wrong = append(wrong, Diff{key, "is not on the page"})
			continue
		case seen[key] > 1:
			wrong = append(wrong, Diff{key, "is there more than once"})
			continue
		}
		if b.Name == "" { // first seen in between: it began at zero
			b = a
			b.Value, b.Count, b.Sum, b.Buckets = 0, 0, 0, make([]uint64, len(a.Buckets))
		}
		for _, d := range compare(b, a, p.Series) {
			wrong = append(wrong, Diff{key, d})
		}
		if p.Kind == Gauge && moved(p.Name, b.Value, p.Value, a.Value) {
			unsettled = append(unsettled, Diff{key, fmt.Sprintf("value %v, want %v", p.Value, b.Value)})
		}
	}
	for key := range before {
		if seen[key] == 0 {
			wrong = append(wrong, Diff{key, "is missing"})
		}
	}
	return sorted(wrong), sorted(unsettled)
}

func sorted(diffs []Diff) []Diff {
	slices.SortFunc(diffs, func(a, b Diff) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.What, b.What)) })
	return diffs
}

func compare(before, after, got Series) (wrong []string) {
	differ := func(what string, got, want any) {
		wrong = append(wrong, fmt.Sprintf("%s %v, want %v", what, got, want))
	}
	if got.Kind != after.Kind {
		differ("kind", got.Kind, after.Kind)
		return wrong // nothing else can be compared
	}
	if got.Type != after.Type {
		differ("prometheus.type", got.Type, after.Type)
	}
	if got.Help != after.Help {
		differ("description", got.Help, after.Help)
	}
	if got.Unit != after.Unit {
		differ("unit", got.Unit, after.Unit)
	}
	if d := got.Start.Sub(after.Start).Abs(); got.Start.IsZero() != after.Start.IsZero() || d > startTolerance {
		differ("start time", got.Start, after.Start)
	}
	if !after.Time.IsZero() && !got.Time.Equal(before.Time) && !got.Time.Equal(after.Time) {
		differ("time", got.Time, after.Time)
	}
	between := func(what string, got, before, after float64) {
		if !(before <= got && got <= after) {
			wrong = append(wrong, fmt.Sprintf("%s %v, want %v to %v", what, got, before, after))
		}
	}
	switch got.Kind {
	case Counter:
		between("value", got.Value, before.Value, after.Value)
	case Histogram:
		if !slices.Equal(got.Bounds, after.Bounds) || len(got.Buckets) != len(after.Buckets) {
			differ("bounds", got.Bounds, after.Bounds)
			return wrong
		}
		for i := range got.Buckets {
			between(fmt.Sprintf("bucket %d", i), float64(got.Buckets[i]), float64(before.Buckets[i]), float64(after.Buckets[i]))
		}
		between("count", float64(got.Count), float64(before.Count), float64(after.Count))
		between("sum", got.Sum, before.Sum, after.Sum)
	case Summary:
		if !slices.EqualFunc(got.Quantiles, after.Quantiles, func(g, a Quantile) bool { return g.Quantile == a.Quantile }) {
			differ("quantiles", got.Quantiles, after.Quantiles)
		}
		between("count", float64(got.Count), float64(before.Count), float64(after.Count))
		between("sum", got.Sum, before.Sum, after.Sum)
	}
	return wrong
}

// looking is by how much a gauge may differ because somebody looks: each scrape
// is itself a connection with its goroutines.
var looking = map[string]float64{"process_open_fds": 3, "go_goroutines": 10}

// moved reports whether a gauge was at rest on the page and something else in
// between.
func moved(name string, before, got, after float64) bool {
	return same(before, after) && !same(before, got) && !(math.Abs(got-before) <= looking[name])
}

// same is equality for which NaN is a value like any other.
func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
