package page

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCompareFindsEachDefect breaks a faithful set of points in one way each.
func TestCompareFindsEachDefect(t *testing.T) {
	start := time.Unix(1000, 0)
	before := index(
		Series{Name: "c", Labels: `{a="b"}`, Kind: Counter, Help: "h", Start: start, Value: 3},
		Series{Name: "g", Labels: `{}`, Kind: Gauge, Type: "gauge", Value: 5},
		Series{Name: "h", Labels: `{}`, Kind: Histogram, Start: start, Count: 3, Sum: 2, Bounds: []float64{1, 2}, Buckets: []uint64{1, 1, 1}},
		Series{Name: "s", Labels: `{}`, Kind: Summary, Start: start, Count: 3, Sum: 2, Quantiles: []Quantile{{0.5, 1}}},
	)
	after := maps.Clone(before)
	for key, s := range after {
		switch s.Kind {
		case Counter:
			s.Value += 2
		case Histogram:
			s.Count, s.Sum, s.Buckets = s.Count+1, s.Sum+1, []uint64{1, 2, 1}
		}
		after[key] = s
	}
	for _, test := range []struct {
		name      string
		defect    func(points []Point) []Point // the points are c, g, h, s
		wrong     []string
		unsettled []string
	}{
		{name: "none", defect: func(p []Point) []Point { return p }},
		{name: "missing", defect: func(p []Point) []Point { return p[1:] }, wrong: []string{`c{a="b"}: is missing`}},
		{name: "twice", defect: func(p []Point) []Point { return append(p, p[1]) }, wrong: []string{`g{}: is there more than once`}},
		{name: "attribute", defect: func(p []Point) []Point { p[0].Labels = `{a="c"}`; return p },
			wrong: []string{`c{a="b"}: is missing`, `c{a="c"}: is not on the page`}},
		{name: "kind", defect: func(p []Point) []Point { p[1].Kind = Counter; return p },
			wrong: []string{`g{}: kind cumulative monotonic sum, want gauge`}},
		{name: "type", defect: func(p []Point) []Point { p[1].Type = "unknown"; return p },
			wrong: []string{`g{}: prometheus.type unknown, want gauge`}},
		{name: "description", defect: func(p []Point) []Point { p[0].Help = "x"; return p },
			wrong: []string{`c{a="b"}: description x, want h`}},
		{name: "unit", defect: func(p []Point) []Point { p[1].Unit = "s"; return p }, wrong: []string{`g{}: unit s, want `}},
		{name: "start", defect: func(p []Point) []Point { p[0].Start = time.Time{}; return p },
			wrong: []string{`c{a="b"}: start time 0001-01-01 00:00:00 +0000 UTC, want ` + start.String()}},
		{name: "counter behind", defect: func(p []Point) []Point { p[0].Value = 2; return p },
			wrong: []string{`c{a="b"}: value 2, want 3 to 5`}},
		{name: "counter ahead", defect: func(p []Point) []Point { p[0].Value = 6; return p },
			wrong: []string{`c{a="b"}: value 6, want 3 to 5`}},
		{name: "gauge", defect: func(p []Point) []Point { p[1].Value = 6; return p },
			unsettled: []string{`g{}: value 6, want 5`}},
		{name: "bounds", defect: func(p []Point) []Point { p[2].Bounds = []float64{1, 3}; return p },
			wrong: []string{`h{}: bounds [1 3], want [1 2]`}},
		{name: "bucket", defect: func(p []Point) []Point { p[2].Buckets = []uint64{0, 2, 1}; return p },
			wrong: []string{`h{}: bucket 0 0, want 1 to 1`}},
		{name: "count", defect: func(p []Point) []Point { p[2].Count = 5; return p }, wrong: []string{`h{}: count 5, want 3 to 4`}},
		{name: "sum", defect: func(p []Point) []Point { p[3].Sum = 9; return p }, wrong: []string{`s{}: sum 9, want 2 to 2`}},
		{name: "quantile", defect: func(p []Point) []Point { p[3].Quantiles = nil; return p },
			wrong: []string{`s{}: quantiles [], want [{0.5 1}]`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			points := make([]Point, 0, len(before))
			for _, key := range slices.Sorted(maps.Keys(before)) {
				points = append(points, Point{Series: before[key]})
			}
			wrong, unsettled := Compare(before, after, test.defect(points))
			for what, got := range map[string][2][]string{
				"wrong": {texts(wrong), test.wrong}, "unsettled": {texts(unsettled), test.unsettled},
			} {
				if !slices.Equal(got[0], got[1]) {
					t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got[0], "\n"), strings.Join(got[1], "\n"))
				}
			}
		})
	}
}

func index(all ...Series) map[string]Series {
	m := map[string]Series{}
	for _, s := range all {
		m[s.Key()] = s
	}
	return m
}

func texts(diffs []Diff) (all []string) {
	for _, d := range diffs {
		all = append(all, d.String())
	}
	return all
}

func TestCompareLinesFindsEachDefect(t *testing.T) {
	before := map[string]Line{"c{}": {3, true}, "g{}": {5, false}}
	after := map[string]Line{"c{}": {4, true}, "g{}": {5, false}}
	for _, test := range []struct {
		name             string
		got              map[string]Line
		wrong, unsettled []string
	}{
		{name: "none", got: map[string]Line{"c{}": {4, false}, "g{}": {5, false}}},
		{name: "missing and extra", got: map[string]Line{"c{}": {4, false}, "x{}": {5, false}},
			wrong: []string{"g{}: is missing", "x{}: is not on the page"}},
		{name: "values", got: map[string]Line{"c{}": {5, false}, "g{}": {6, false}},
			wrong: []string{"c{}: value 5, want 3 to 4"}, unsettled: []string{"g{}: value 6, want 5"}},
	} {
		wrong, unsettled := CompareLines(before, after, test.got)
		if !slices.Equal(texts(wrong), test.wrong) || !slices.Equal(texts(unsettled), test.unsettled) {
			t.Errorf("%s: wrong %v, unsettled %v, want %v, %v", test.name, wrong, unsettled, test.wrong, test.unsettled)
		}
	}
}

func TestAGaugeThatCountsWhoLooksMayBeOffByThem(t *testing.T) {
	for _, test := range []struct {
		name               string
		before, got, after float64
		want               bool
	}{
		{name: "process_open_fds", before: 46, got: 45, after: 46, want: false},
		{name: "process_open_fds", before: 46, got: 40, after: 46, want: true},
		{name: "process_max_fds", before: 46, got: 45, after: 46, want: true},
		{name: "process_max_fds", before: 46, got: 46, after: 46, want: false},
		{name: "process_max_fds", before: 46, got: 40, after: 47, want: false},
		{name: "nan", before: math.NaN(), got: math.NaN(), after: math.NaN(), want: false},
		{name: "nan", before: math.NaN(), got: 1, after: math.NaN(), want: true},
	} {
		if got := moved(test.name, test.before, test.got, test.after); got != test.want {
			t.Errorf("moved(%s, %v, %v, %v) is %v", test.name, test.before, test.got, test.after, got)
		}
	}
}
