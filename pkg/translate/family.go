package translate

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"otelmetricsplugin/internal/otlp"
)

// family is what is remembered of a family from one exposition to the next.
type family struct {
	name string
	keep bool   // Config.Keep wants it
	help []byte // as it came
	unit []byte // as it came
	head []byte // name, description and unit, encoded
	page uint64 // the last one that the family is on

	gaugeType     metricType // of its gauges: gauge or untyped, which are one metric
	gaugeTypePage uint64     // the last exposition with any
	kind          otlp.Kind  // of its points of the default scope that are written at once, 0 before the first

	series     []series // in the order of the last exposition, and behind them the new ones
	attributes []byte   // of all series, encoded
	unused     int      // bytes of attributes
	next       int      // in series, where the next metric is expected
	seen       uint32   // series in the exposition under way
	moved      bool     // series are not in the order of the exposition under way

	histograms []histogramState // by series.state-1
	free       []uint32         // states that are not in use
	bounds     []float64        // of the last histogram; mostly, all have the same
}

// begin begins an exposition, unless the family was already seen in it: what the first
// of a name says is kept.
func (f *family) begin(t *Translator, fr *frame) {
	if (fr.typ == gauge || fr.typ == untyped) && f.gaugeTypePage != t.page.number {
		f.gaugeType, f.gaugeTypePage = fr.typ, t.page.number
	}
	if f.page == t.page.number {
		return
	}
	f.page = t.page.number
	help, unit := t.bytes(fr.help), t.bytes(fr.unit)
	if f.head == nil || !bytes.Equal(help, f.help) || !bytes.Equal(unit, f.unit) {
		f.help, f.unit = append(f.help[:0], cut(help, maxHelp)...), append(f.unit[:0], cut(unit, maxUnit)...)
		f.head = otlp.Head(f.name, validUTF8(f.help), ucumUnit(validUTF8(f.unit)))
	}
}

// grow makes room for the series of a new family. Real ones take more bytes of
// the exposition than the least: what others are believed is bounded.
func (f *family) grow(fr *frame) {
	const least = 24
	f.series = slices.Grow(f.series, min(int(fr.metrics), int(fr.body.end-fr.body.start)/least+1))
}

// metric returns the metric of the points of kind k.
func (f *family) metric(t *Translator, k otlp.Kind) otlp.Metric {
	switch k {
	case otlp.Sum:
		return otlp.NewMetric(k, t.sumDelta, f.head, typeMetadata[counter])
	case otlp.Summary:
		return otlp.NewMetric(k, false, f.head, typeMetadata[summary])
	case otlp.Gauge:
		return otlp.NewMetric(k, false, f.head, typeMetadata[f.gaugeType])
	default:
		return otlp.NewMetric(k, t.histogramDelta, f.head, typeMetadata[histogram])
	}
}

// typeMetadata is the metadata prometheus.type: rule 4.
var typeMetadata = [...][]byte{
	counter:   otlp.Metadata("prometheus.type", "counter"),
	gauge:     otlp.Metadata("prometheus.type", "gauge"),
	histogram: otlp.Metadata("prometheus.type", "histogram"),
	summary:   otlp.Metadata("prometheus.type", "summary"),
	untyped:   otlp.Metadata("prometheus.type", "unknown"),
}

// write writes a point of s: at once if it is of the family's first kind and of
// the default scope, else when these are written.
func (t *Translator) write(f *family, s *series, p otlp.Point) {
	if s.scope == 0 {
		if f.kind == 0 {
			f.kind = s.kind
			t.w.Metric(f.metric(t, f.kind))
		}
		if f.kind == s.kind {
			t.w.Point(p)
			return
		}
	}
	g := t.scopes[s.scope].group(f, s.kind)
	g.points = otlp.AppendDelimited(g.points, p)
}

// end ends the family for the exposition under way: a series that is not in it gets
// a staleness marker and is forgotten.
func (f *family) end(t *Translator) {
	if int(f.seen) < len(f.series) {
		for i := range f.series {
			if s := &f.series[i]; s.page != t.page.number {
				t.markStale(f, s, t.page.now)
				f.forget(s)
			}
		}
		f.moved = true
	}
	if f.moved {
		f.reorder(t.page.number)
	}
	t.scopes[0].write(t)
	f.kind, f.next, f.seen, f.moved = 0, 0, 0, false
}

// forget frees what s has in the family.
func (f *family) forget(s *series) {
	f.unused += int(s.length)
	if s.state != 0 {
		f.histograms[s.state-1] = histogramState{}
		f.free = append(f.free, s.state)
	}
}

// reorder puts the series of the given exposition into its order and drops all
// others.
func (f *family) reorder(page uint64) {
	kept := slices.DeleteFunc(f.series, func(s series) bool { return s.page != page })
	for i := range kept { // their positions are 0 to len(kept)-1: each swap puts one in its place
		for at := kept[i].position; int(at) != i; at = kept[i].position {
			kept[i], kept[at] = kept[at], kept[i]
		}
	}
	f.series = kept
	if len(f.series) == 0 {
		f.series, f.histograms, f.free, f.attributes, f.unused = nil, nil, nil, nil, 0
		return
	}
	if cap(f.series) > 2*len(f.series) {
		f.series = slices.Clip(slices.Clone(f.series))
	}
	if len(f.free) > len(f.histograms)/2 {
		f.packHistograms()
	}
	if f.unused > len(f.attributes)/4 || cap(f.attributes) > 2*len(f.attributes) {
		packed := make([]byte, 0, len(f.attributes)-f.unused)
		for i := range f.series {
			s := &f.series[i]
			from := s.offset
			s.offset = uint32(len(packed))
			packed = append(packed, f.attributes[from:from+s.length]...)
		}
		f.attributes, f.unused = packed, 0
	}
}

// packHistograms gives back the states that are not in use.
func (f *family) packHistograms() {
	packed := make([]histogramState, 0, len(f.histograms)-len(f.free))
	for i := range f.series {
		if s := &f.series[i]; s.state != 0 {
			packed = append(packed, f.histograms[s.state-1])
			s.state = uint32(len(packed))
		}
	}
	f.histograms, f.free = packed, nil
}

// ucum is the specification's table of units, and ratio, which is a unit in
// Prometheus' naming practice.
var ucum = map[string]string{
	"days": "d", "hours": "h", "minutes": "min", "seconds": "s",
	"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns",
	"bytes": "By", "kibibytes": "KiBy", "mebibytes": "MiBy", "gibibytes": "GiBy", "tebibytes": "TiBy",
	"kilobytes": "kBy", "megabytes": "MBy", "gigabytes": "GBy", "terabytes": "TBy",
	"meters": "m", "volts": "V", "amperes": "A", "joules": "J", "watts": "W", "grams": "g",
	"celsius": "Cel", "hertz": "Hz", "percent": "%", "ratio": "1",
}

// ucumUnit returns the UCUM unit for a Prometheus unit; one that is not in the
// table is taken as it is.
func ucumUnit(prometheus string) string {
	if u, ok := ucum[prometheus]; ok {
		return u
	}
	return prometheus
}

// A family's texts are repeated in every request that an exposition is split
// to: they are cut to what anyone reads. HELP of an engine has at most 200 bytes.
const (
	maxHelp = 4 << 10
	maxUnit = 64
)

// cut returns at most the first n bytes of s, and no part of a rune.
func cut(s []byte, n int) []byte {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// validUTF8 makes s fit a protobuf string: one that is not UTF-8 would fail the
// whole request.
func validUTF8(s []byte) string { return strings.ToValidUTF8(string(s), "\uFFFD") }
