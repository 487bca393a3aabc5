// Package flame draws a CPU profile as a flame graph: a box for each function on a stack, as wide as its share of the samples.
package flame

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"html"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// A node is a function under its callers.
type node struct {
	name     string
	value    int64
	children map[string]*node
}

func (n *node) child(name string) *node {
	c := n.children[name]
	if c == nil {
		c = &node{name: name, children: map[string]*node{}}
		n.children[name] = c
	}
	return c
}

// Stack is one sample: functions, the outermost first, and how much it counts.
type Stack struct {
	Functions []string
	Value     int64
}

// FromProfile returns the stacks of a profile of pprof's format. Of its values it takes the last, which is CPU time in a
// CPU profile.
func FromProfile(p *profile.Profile) (stacks []Stack) {
	for _, sample := range p.Sample {
		s := Stack{Value: sample.Value[len(sample.Value)-1]}
		for _, location := range slices.Backward(sample.Location) {
			for _, line := range slices.Backward(location.Line) { // inlined functions come first
				s.Functions = append(s.Functions, line.Function.Name)
			}
		}
		stacks = append(stacks, s)
	}
	return stacks
}

// FromPerf reads the stacks that `perf script -F comm,ip,sym` writes: a line for each frame, the innermost first, between
// a line that is not indented and an empty one.
func FromPerf(r io.Reader) (stacks []Stack, err error) {
	var functions []string
	end := func() {
		if len(functions) > 0 {
			slices.Reverse(functions)
			stacks = append(stacks, Stack{Functions: functions, Value: 1})
			functions = nil
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.TrimLeft(line, " \t") == line { // empty, or the start of the next sample
			end()
			continue
		}
		if _, symbol, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			functions = append(functions, symbol)
		}
	}
	end()
	return stacks, lines.Err()
}

// tree folds stacks. Unless root is empty, it keeps only those with a function whose name contains root, from that
// function on.
func tree(stacks []Stack, root string) *node {
	all := &node{name: "all", children: map[string]*node{}}
	for _, s := range stacks {
		functions := s.Functions
		if root != "" {
			from := slices.IndexFunc(functions, func(name string) bool { return strings.Contains(name, root) })
			if from < 0 {
				continue
			}
			functions = functions[from:]
		}
		all.value += s.Value
		n := all
		for _, name := range functions {
			n = n.child(name)
			n.value += s.Value
		}
	}
	return all
}

// The picture, in pixels.
const (
	width     = 1200
	rowHeight = 18
	margin    = 10
	charWidth = 6.6
	least     = 0.5 // narrower boxes are left out
)

// Write draws stacks in SVG. Every box has a title that a browser shows: the function and its share. Unless root is empty,
// the picture has only stacks with a function whose name contains root, from that function on.
func Write(w io.Writer, stacks []Stack, title, root string) error {
	t := tree(stacks, root)
	if t.value == 0 {
		return errors.New("there are no such samples")
	}
	var boxes strings.Builder
	depth := draw(&boxes, t, t.value, margin, 0)
	height := (depth+2)*rowHeight + 2*margin
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="monospace" font-size="11">
<rect width="100%%" height="100%%" fill="#fffdf5"/>
<text x="%d" y="%d" font-size="14">%s</text>
<g transform="translate(0 %d)">
%s</g>
</svg>
`, width, height, margin, margin+rowHeight/2, html.EscapeString(title), margin+rowHeight, boxes.String())
	return err
}

// draw writes a node and its children below it, and returns how many rows that took.
func draw(b *strings.Builder, n *node, total int64, x float64, row int) (rows int) {
	w := float64(n.value) / float64(total) * (width - 2*margin)
	if w < least {
		return row
	}
	name := short(n.name)
	fmt.Fprintf(b, `<g><title>%s: %.1f%%</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="#fffdf5" stroke-width="0.5"/>`,
		html.EscapeString(n.name), 100*float64(n.value)/float64(total), x, row*rowHeight, w, rowHeight-1, color(n.name))
	if most := int((w - 4) / charWidth); most >= 3 {
		if len(name) > most {
			name = name[:most-2] + ".."
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`, x+2, row*rowHeight+12, html.EscapeString(name))
	}
	b.WriteString("</g>\n")
	rows = row + 1
	for _, c := range slices.SortedFunc(maps.Values(n.children), func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.value, a.value), cmp.Compare(a.name, b.name))
	}) {
		rows = max(rows, draw(b, c, total, x, row+1))
		x += float64(c.value) / float64(total) * (width - 2*margin)
	}
	return rows
}

// short is a function's name without the directories of its package.
func short(name string) string {
	parameters := strings.IndexByte(name, '[')
	if parameters < 0 {
		parameters = len(name)
	}
	return name[strings.LastIndexByte(name[:parameters], '/')+1:]
}

// color is warm, and the same for every function of a package.
func color(name string) string {
	name = short(name)
	pkg, _, _ := strings.Cut(name, ".")
	h := fnv.New32a()
	_, _ = io.WriteString(h, pkg)
	v := h.Sum32()
	return fmt.Sprintf("hsl(%d,%d%%,%d%%)", v%60, 65+v>>8%25, 62+v>>16%16)
}
