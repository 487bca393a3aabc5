package receive

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"
)

const (
	// defaultWidth is the number of columns of a table that does not go to a terminal.
	defaultWidth = 120

	// minWidth leaves room for a value beside a name.
	minWidth = 60

	// maxRows is how many rows one request may fill, so that a hostile one
	// cannot scroll everything else away.
	maxRows = 500

	// maxRemembered is how many series are remembered to tell what changed,
	// about 48 bytes each. Beyond it everything is forgotten and the next
	// tables are whole again.
	maxRemembered = 1 << 20

	// maxText is the length in runes at which any text from the network is cut.
	maxText = 256
)

// table writes requests as text. The first time that a metric arrives it gets a
// row; from then on only when one of its points has changed. The row shows the
// point that moved most, which on the first time is the largest.
type table struct {
	width int
	seed  maphash.Seed
	seen  map[uint64]reading // by series
	limit int                // of seen

	requests, points int
}

func newTable(width int) *table {
	return &table{width: max(width, minWidth), seed: maphash.MakeSeed(), seen: map[uint64]reading{}, limit: maxRemembered}
}

// request returns the block of text for one request that arrived at the given
// time.
func (t *table) request(req *colmetricpb.ExportMetricsServiceRequest, at time.Time, w wire) []byte {
	t.requests++
	var resources bytes.Buffer
	var n counts
	for _, rm := range req.GetResourceMetrics() {
		t.resource(&resources, rm, &n)
	}
	t.points += n.points

	var b bytes.Buffer
	t.line(&b, fmt.Sprintf("%s  request %d: %s, %s, %s%s", at.Format("15:04:05.000"), t.requests,
		plural(n.metrics, "metric"), plural(n.points, "point"), byteCount(proto.Size(req)), w))
	b.Write(resources.Bytes())
	b.WriteByte('\n')
	return b.Bytes()
}

// summary returns one line about everything received.
func (t *table) summary() []byte {
	return fmt.Appendf(nil, "received %s with %s\n", plural(t.requests, "request"), plural(t.points, "point"))
}

// counts is what was counted in one request.
type counts struct{ metrics, points, rows int }

// resource appends what one resource of a request reported: a line for itself,
// then its rows, and adds it to the request's counts.
func (t *table) resource(b *bytes.Buffer, rm *metricpb.ResourceMetrics, n *counts) {
	var rows []row
	unchanged, hidden := 0, 0
	for _, sm := range rm.GetScopeMetrics() {
		series := t.scope(rm.GetResource(), sm.GetScope())
		for _, m := range sm.GetMetrics() {
			r, changed := t.row(series, m)
			n.metrics++
			n.points += r.points
			switch {
			case !changed:
				unchanged++
			case n.rows == maxRows:
				hidden++
			default:
				n.rows++
				rows = append(rows, r)
			}
		}
	}
	t.line(b, resourceName(rm.GetResource()))
	t.rows(b, rows)
	if hidden > 0 {
		t.line(b, fmt.Sprintf("  %d more changed", hidden))
	}
	if unchanged > 0 {
		t.line(b, fmt.Sprintf("  %d unchanged", unchanged))
	}
}

// row is one metric as it is shown.
type row struct {
	name, kind, unit string
	points           int
	value            string
}

// row returns the row of a metric whose series hash starts as given, and
// whether any of its points is new or has changed since it last arrived.
func (t *table) row(series maphash.Hash, m *metricpb.Metric) (r row, changed bool) {
	points := pointsOf(m)
	r = row{name: printable(m.GetName()), kind: kindOf(m), unit: printable(m.GetUnit()), points: len(points)}
	writeString(&series, m.GetName())
	if len(points) == 0 {
		r.value = "no points"
		_, changed = t.remember(series.Sum64(), reading{})
		return r, !changed
	}

	var most struct {
		point
		before reading
		known  bool
		moved  float64
	}
	for _, p := range points {
		hash := series
		writeAttributes(&hash, p.attributes)
		before, known := t.remember(hash.Sum64(), p.reading)
		if known && p.same(before) {
			continue
		}
		moved := math.Abs(p.number - before.number)
		if !changed || moved > most.moved {
			most.point, most.before, most.known, most.moved = p, before, known, moved
		}
		changed = true
	}
	if !changed {
		return r, false
	}
	r.value = most.text(most.before, most.known)
	if len(most.attributes) > 0 {
		r.value += " " + attributesText(most.attributes)
	}
	return r, true
}

// remember notes the latest reading of a series and returns the one before it.
func (t *table) remember(series uint64, latest reading) (before reading, known bool) {
	before, known = t.seen[series]
	if !known && len(t.seen) >= t.limit {
		clear(t.seen)
	}
	t.seen[series] = latest
	return before, known
}

// rows appends the rows under their heads, in columns.
func (t *table) rows(b *bytes.Buffer, rows []row) {
	if len(rows) == 0 {
		return
	}
	rows = slices.Insert(rows, 0, row{name: "NAME", kind: "TYPE", unit: "UNIT", value: "VALUE"})
	points := make([]string, len(rows))
	for i, r := range rows {
		points[i] = strconv.Itoa(r.points)
	}
	points[0] = "POINTS"

	var name, kind, unit, count int
	for i, r := range rows {
		name = max(name, utf8.RuneCountInString(r.name))
		kind = max(kind, len(r.kind))
		unit = max(unit, utf8.RuneCountInString(r.unit))
		count = max(count, len(points[i]))
	}
	unit = min(unit, 10)
	name = min(name, t.width/2)
	for i, r := range rows {
		t.line(b, fmt.Sprintf("  %-*s  %-*s  %-*s  %*s  %s", name, cut(r.name, name), kind, r.kind, unit, cut(r.unit, unit), count, points[i], r.value))
	}
}

// line appends one line of text, cut to the table's width.
func (t *table) line(b *bytes.Buffer, text string) {
	b.WriteString(strings.TrimRight(cut(text, t.width), " "))
	b.WriteByte('\n')
}

// scope returns the start of the hash of every series of a scope of a resource.
func (t *table) scope(resource *resourcepb.Resource, scope *commonpb.InstrumentationScope) maphash.Hash {
	var h maphash.Hash
	h.SetSeed(t.seed)
	writeAttributes(&h, resource.GetAttributes())
	writeString(&h, scope.GetName())
	writeString(&h, scope.GetVersion())
	writeAttributes(&h, scope.GetAttributes())
	return h
}

func writeAttributes(h *maphash.Hash, attributes []*commonpb.KeyValue) {
	for _, kv := range attributes {
		writeString(h, kv.GetKey())
		writeString(h, valueText(kv.GetValue()))
	}
	writeString(h, "")
}

// writeString adds s to the hash, and where it ends.
func writeString(h *maphash.Hash, s string) {
	maphash.WriteComparable(h, len(s))
	_, _ = h.WriteString(s) // never fails
}

// reading is what is remembered of a point: enough to tell whether it changed.
type reading struct {
	number float64 // of a gauge or sum; of the others the count
	sum    float64 // of the others
	absent bool    // the point has the flag "no recorded value"
}

// same reports whether two readings are equal, a NaN to itself included.
func (r reading) same(other reading) bool {
	return r.absent == other.absent &&
		math.Float64bits(r.number) == math.Float64bits(other.number) &&
		math.Float64bits(r.sum) == math.Float64bits(other.sum)
}

// point is a data point of any kind.
type point struct {
	reading
	attributes []*commonpb.KeyValue
	counts     bool // the number is a count
	sums       bool // there is a sum
}

// text returns the point's value, with the growth since the reading before it
// if that is known.
func (p point) text(before reading, known bool) string {
	if p.absent {
		return "no recorded value"
	}
	text := numberText(p.number)
	if p.counts {
		text = "count " + text
	}
	if growth := p.number - before.number; known && !before.absent && growth != 0 && !math.IsNaN(growth) {
		sign := ""
		if growth > 0 {
			sign = "+"
		}
		text += " (" + sign + numberText(growth) + ")"
	}
	if p.sums {
		text += " sum " + numberText(p.sum)
	}
	return text
}

func pointsOf(m *metricpb.Metric) []point {
	var points []point
	// An optional sum is unset, not 0, where the source gave none.
	distribution := func(attributes []*commonpb.KeyValue, flags uint32, count uint64, sum *float64) {
		p := point{attributes: attributes, counts: true}
		p.number, p.absent = float64(count), absent(flags)
		if sum != nil {
			p.sum, p.sums = *sum, true
		}
		points = append(points, p)
	}
	numbers := func(from []*metricpb.NumberDataPoint) {
		for _, d := range from {
			p := point{attributes: d.GetAttributes()}
			p.number, p.absent = d.GetAsDouble(), absent(d.GetFlags())
			if v, ok := d.GetValue().(*metricpb.NumberDataPoint_AsInt); ok {
				p.number = float64(v.AsInt)
			}
			points = append(points, p)
		}
	}
	switch data := m.GetData().(type) {
	case *metricpb.Metric_Gauge:
		numbers(data.Gauge.GetDataPoints())
	case *metricpb.Metric_Sum:
		numbers(data.Sum.GetDataPoints())
	case *metricpb.Metric_Histogram:
		for _, d := range data.Histogram.GetDataPoints() {
			distribution(d.GetAttributes(), d.GetFlags(), d.GetCount(), d.Sum)
		}
	case *metricpb.Metric_ExponentialHistogram:
		for _, d := range data.ExponentialHistogram.GetDataPoints() {
			distribution(d.GetAttributes(), d.GetFlags(), d.GetCount(), d.Sum)
		}
	case *metricpb.Metric_Summary:
		for _, d := range data.Summary.GetDataPoints() {
			distribution(d.GetAttributes(), d.GetFlags(), d.GetCount(), proto.Float64(d.GetSum()))
		}
	}
	return points
}

func absent(flags uint32) bool {
	return flags&uint32(metricpb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) != 0
}

// kindOf names the type of a metric, with what departs from cumulative and
// monotonic; a sum that is not monotonic is what an UpDownCounter reports.
func kindOf(m *metricpb.Metric) string {
	var kind string
	temporality := metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	switch data := m.GetData().(type) {
	case *metricpb.Metric_Gauge:
		kind = "gauge"
	case *metricpb.Metric_Sum:
		kind, temporality = "sum", data.Sum.GetAggregationTemporality()
		if !data.Sum.GetIsMonotonic() {
			kind = "up-down sum"
		}
	case *metricpb.Metric_Histogram:
		kind, temporality = "histogram", data.Histogram.GetAggregationTemporality()
	case *metricpb.Metric_ExponentialHistogram:
		kind, temporality = "exp. histogram", data.ExponentialHistogram.GetAggregationTemporality()
	case *metricpb.Metric_Summary:
		kind = "summary"
	default:
		kind = "unknown"
	}
	switch temporality {
	case metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE:
		return kind
	case metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA:
		return "delta " + kind
	default:
		return kind + " of no temporality"
	}
}

// resourceName identifies a resource in one line by what the semantic
// conventions call its service.
func resourceName(r *resourcepb.Resource) string {
	var name, version, instance string
	for _, kv := range r.GetAttributes() {
		switch kv.GetKey() {
		case "service.name":
			name = valueText(kv.GetValue())
		case "service.version":
			version = valueText(kv.GetValue())
		case "service.instance.id":
			instance = valueText(kv.GetValue())
		}
	}
	words := []string{cmp.Or(printable(name), "a resource without service.name")}
	if version != "" {
		words = append(words, printable(version))
	}
	if instance != "" {
		words = append(words, "instance", printable(instance))
	}
	return strings.Join(words, " ")
}

// attributesText returns attributes as Prometheus writes labels.
func attributesText(attributes []*commonpb.KeyValue) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, kv := range attributes {
		if b.Len() > maxText {
			b.WriteString("…")
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(printable(kv.GetKey()))
		b.WriteByte('=')
		b.WriteString(printable(valueText(kv.GetValue())))
	}
	b.WriteByte('}')
	return b.String()
}

// valueText returns an attribute's value as text, not yet printable.
func valueText(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case nil:
		return ""
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *commonpb.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *commonpb.AnyValue_DoubleValue:
		return numberText(v.DoubleValue)
	case *commonpb.AnyValue_BytesValue:
		return hex.EncodeToString(v.BytesValue)
	case *commonpb.AnyValue_ArrayValue:
		return fmt.Sprintf("[%d values]", len(v.ArrayValue.GetValues()))
	case *commonpb.AnyValue_KvlistValue:
		return fmt.Sprintf("{%d values}", len(v.KvlistValue.GetValues()))
	default:
		return fmt.Sprintf("%T", v)
	}
}

// numberText writes a number for reading: whole ones in full, others to six
// significant digits.
func numberText(v float64) string {
	switch size := math.Abs(v); {
	case v == math.Trunc(v) && size < 1e15:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case size >= 1e5 && size < 1e15: // times and sizes: no exponent
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
}

func byteCount(n int) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	default:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// String says how a request was compressed; it is empty if it was not.
func (w wire) String() string {
	if w.compression == "" || w.compression == "identity" {
		return ""
	}
	return fmt.Sprintf(" (%s with %s)", byteCount(w.bytes), printable(w.compression))
}

// printable returns text from the network as it may be shown on a terminal:
// runes that are not printable are escaped as in a Go string, so that no
// escape sequence, line end or change of writing direction takes effect.
func printable(s string) string {
	s = cut(s, maxText)
	if strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// cut returns s, or its beginning and an ellipsis where it is longer than the
// given number of runes.
func cut(s string, runes int) string {
	if len(s) <= runes { // bytes are at least as many
		return s
	}
	for i := range s {
		if runes--; runes == 0 {
			if _, size := utf8.DecodeRuneInString(s[i:]); i+size == len(s) {
				return s
			}
			return s[:i] + "…"
		}
	}
	return s
}
