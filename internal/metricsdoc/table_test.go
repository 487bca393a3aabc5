package metricsdoc

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// row is one row of a table: a family of the engine's page, or a metric of the
// plugin's own.
type row struct {
	line   int    // of the document, from 1
	text   string // of the whole row
	name   string
	typ    string   // "counter", "gauge", "histogram", "summary"; "up-down counter" only for one of the plugin's own
	unit   string   // empty where the number has none
	labels []string // sorted

	// Of families only.

	since      []versions
	fromSource bool   // on no recorded page
	condition  string // when the family is there; empty is always
}

// in reports whether engines of version v have the family, if its condition
// holds.
func (r *row) in(v version) bool {
	return slices.ContainsFunc(r.since, func(s versions) bool { return s.contain(v) })
}

// version is an engine's: 20.10 is {20, 10}.
type version []int

func (v version) String() string {
	parts := make([]string, 0, len(v))
	for _, n := range v {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, ".")
}

// versions is those from first to last, to every one that begins with last, or
// without end where last is empty: 26.0 to 27.4 holds 27.4.1.
type versions struct{ first, last version }

func (vs versions) contain(v version) bool {
	return slices.Compare(v, vs.first) >= 0 && slices.Compare(v[:min(len(v), len(vs.last))], vs.last) <= 0
}

var numbers = regexp.MustCompile(`^\d+(\.\d+)*`)

// parseVersion reads the numbers that s begins with: what follows, as in
// "20.10.24+dfsg1", is the packager's.
func parseVersion(s string) (version, error) {
	var v version
	for n := range strings.SplitSeq(numbers.FindString(s), ".") {
		i, err := strconv.Atoi(n)
		if err != nil {
			return nil, fmt.Errorf("%q is no version", s)
		}
		v = append(v, i)
	}
	return v, nil
}

// parseSince reads "20.10", "20.10 only", "26.0–27.4", or several of them with
// "and" between them.
func parseSince(s string) (since []versions, err error) {
	for text := range strings.SplitSeq(s, " and ") {
		first, last, _ := strings.Cut(text, "–")
		if only, ok := strings.CutSuffix(text, " only"); ok {
			first, last = only, only
		}
		var vs versions
		for _, end := range []struct {
			text string
			v    *version
		}{{first, &vs.first}, {last, &vs.last}} {
			if end.text == "" && end.v == &vs.last {
				continue
			}
			if *end.v, err = parseVersion(end.text); err != nil || end.v.String() != end.text {
				return nil, fmt.Errorf("%q is no range of versions", text)
			}
		}
		if !vs.contain(vs.first) {
			return nil, fmt.Errorf("%q ends before it begins", text)
		}
		since = append(since, vs)
	}
	return since, nil
}

// The headers of the two kinds of tables.
var (
	familyHeader = []string{"Family", "Type", "Unit", "Labels", "Since", "What it tells", "When it moves"}
	ownHeader    = []string{"Metric", "Type", "Unit", "Attributes", "What it tells", "When it moves"}
)

// none is what a cell says instead of being empty.
const none = "—"

// parse returns the rows of the tables of families and of those of the plugin's
// own metrics. Other tables are passed over.
func parse(document string) (families, own []row, err error) {
	lines := strings.Split(document, "\n")
	lineOf := map[string]int{}
	for i := 0; i < len(lines); i++ {
		header := cells(lines[i])
		switch {
		case slices.Equal(header, familyHeader), slices.Equal(header, ownHeader):
		case len(header) > 0 && (header[0] == familyHeader[0] || header[0] == ownHeader[0]):
			// It was meant, and its rows would be passed over.
			return nil, nil, fmt.Errorf("line %d: columns %q, want %q or %q", i+1, header, familyHeader, ownHeader)
		default:
			continue
		}
		i++ // the rule under the header
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|") {
			i++
			r, err := parseRow(lines[i], header)
			if err == nil && lineOf[r.name] > 0 {
				err = fmt.Errorf("%s has a row on line %d already", r.name, lineOf[r.name])
			}
			if err != nil {
				return nil, nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			r.line = i + 1
			lineOf[r.name] = r.line
			if slices.Equal(header, familyHeader) {
				families = append(families, r)
			} else {
				own = append(own, r)
			}
		}
	}
	return families, own, nil
}

// cells returns the cells of a row, nil if line is none.
func cells(line string) []string {
	inner, ok := strings.CutPrefix(line, "|")
	if !ok {
		return nil
	}
	list := strings.Split(strings.TrimSuffix(strings.TrimSpace(inner), "|"), "|")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

func parseRow(line string, header []string) (r row, err error) {
	c := cells(line)
	if len(c) != len(header) {
		return row{}, fmt.Errorf("%d cells, want %d", len(c), len(header))
	}
	for i, cell := range c {
		if strings.Trim(cell, ".") == "" {
			return row{}, fmt.Errorf("%q is empty; write %s for none", header[i], none)
		}
	}
	r = row{text: line, typ: c[1]}
	if r.name, err = unquote(c[0]); err != nil {
		return row{}, err
	}
	if c[2] != none {
		r.unit = c[2]
	}
	if c[3] != none {
		for label := range strings.SplitSeq(c[3], ", ") {
			name, err := unquote(label)
			if err != nil {
				return row{}, err
			}
			r.labels = append(r.labels, name)
		}
	}
	if !slices.IsSorted(r.labels) {
		return row{}, fmt.Errorf("the labels of %s are not sorted", r.name)
	}
	if len(header) == len(ownHeader) {
		return r, nil
	}
	since, condition, _ := strings.Cut(c[4], "; ")
	r.condition = condition
	since, r.fromSource = strings.CutSuffix(since, " (from source)")
	if r.since, err = parseSince(since); err != nil {
		return row{}, err
	}
	return r, nil
}

func unquote(cell string) (string, error) {
	name := strings.Trim(cell, "`")
	if name == "" || cell != "`"+name+"`" {
		return "", fmt.Errorf("%s is no name in backquotes", cell)
	}
	return name, nil
}

// String returns r as the document has it, with dots where someone must write.
func (r *row) String() string {
	orNone := func(s string) string {
		if s == "" {
			return none
		}
		return s
	}
	labels := make([]string, 0, len(r.labels))
	for _, l := range r.labels {
		labels = append(labels, "`"+l+"`")
	}
	c := []string{"`" + r.name + "`", r.typ, orNone(r.unit), orNone(strings.Join(labels, ", "))}
	for _, vs := range r.since {
		c = append(c, vs.first.String())
	}
	return "| " + strings.Join(append(c, "...", "..."), " | ") + " |"
}
