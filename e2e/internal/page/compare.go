package page

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// startTolerance is what a start time may be off: the page gives it in seconds
// as a float64.
const startTolerance = time.Millisecond

// Compare says what is wrong with the points of one collection, given the page
// as it was before and as it was after: a line for each difference, in order.
//
// Every series of the page before must be there, once, and every point must be
// on the page after. A counter, a histogram and a summary lie between the two
// pages in each of their numbers. A gauge may have had any value in between;
// where it is the same on both pages it is expected to have kept it, but only
// in unsettled, since it may have moved there and back.
func Compare(before, after map[string]Series, got []Point) (wrong, unsettled []string) {
	seen := map[string]int{}
	for _, p := range got {
		key := p.Key()
		seen[key]++
		b, a := before[key], after[key]
		switch _, known := after[key]; {
		case !known:
			wrong = append(wrong, key+": is not on the page")
			continue
		case seen[key] > 1:
			wrong = append(wrong, key+": is there more than once")
			continue
		}
		if b.Name == "" { // first seen in between: it began at zero
			b = a
			b.Value, b.Count, b.Sum, b.Buckets = 0, 0, 0, make([]uint64, len(a.Buckets))
		}
		for _, d := range compare(b, a, p.Series) {
			wrong = append(wrong, key+": "+d)
		}
		if p.Kind == Gauge && same(b.Value, a.Value) && !same(b.Value, p.Value) {
			unsettled = append(unsettled, fmt.Sprintf("%s: value %v, want %v", key, p.Value, b.Value))
		}
	}
	for key := range before {
		if seen[key] == 0 {
			wrong = append(wrong, key+": is missing")
		}
	}
	slices.Sort(wrong)
	slices.Sort(unsettled)
	return wrong, unsettled
}

func compare(before, after, got Series) (wrong []string) {
	differ := func(what string, got, want any) {
		wrong = append(wrong, fmt.Sprintf("%s %v, want %v", what, got, want))
	}
	if got.Kind != after.Kind {
		differ("kind", got.Kind, after.Kind)
		return wrong // nothing else can be compared
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

// same is equality for which NaN is a value like any other.
func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
