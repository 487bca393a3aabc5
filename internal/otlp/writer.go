package otlp

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Writer writes data points into export requests. When the next point would not
// fit it ends the request under way, a part, and begins another one with the
// same resource, scope and metric. Every part is a whole request.
//
// [Writer.Resource], [Writer.Scope] and [Writer.Metric] say what the points
// that follow belong to. They write nothing until there is a point, and keep
// what they are given until the next call of the same method.
type Writer struct {
	limit int
	emit  func(request []byte, points int)

	resource     []byte // Resource
	resourceRest []byte // the other fields of ResourceMetrics
	scope        Scope
	metric       Metric

	buf    []byte // the part under way
	points int    // in it
	depth  int    // number of open messages
	start  [levels]int
	length [levels]int // bytes of the last length written at that level: those to reserve
	peak   int         // the longest part since Reset
}

// The messages that are open while points are written, from the outside in.
const (
	levelResource = iota
	levelScope
	levelMetric
	levelData
	levels
)

// NewWriter returns a Writer of parts of at most limit bytes, which are handed
// to emit with their number of data points; a single point that is larger is a
// part by itself. The request is valid until emit returns.
func NewWriter(limit int, emit func(request []byte, points int)) *Writer {
	w := &Writer{length: [levels]int{3, 3, 2, 2}}
	w.Reset(limit, emit)
	return w
}

// Reset begins anew, as [NewWriter] does, with the memory that w has: what was
// not emitted is forgotten.
func (w *Writer) Reset(limit int, emit func(request []byte, points int)) {
	const small = 64 << 10
	if cap(w.buf) > small && cap(w.buf) > 4*w.peak {
		w.buf = nil
	}
	w.limit, w.emit = limit, emit
	w.resource, w.resourceRest, w.scope, w.metric = nil, nil, Scope{}, Metric{}
	w.buf, w.points, w.depth, w.peak = w.buf[:0], 0, 0, 0
}

// Resource sets the resource of what follows, encoded by the function
// [Resource].
func (w *Writer) Resource(resource []byte) { w.setResource(resource, nil) }

func (w *Writer) setResource(resource, rest []byte) {
	w.closeTo(levelResource)
	w.resource, w.resourceRest = resource, rest
}

// Scope sets the scope of what follows.
func (w *Writer) Scope(s Scope) {
	w.closeTo(levelScope)
	w.scope = s
}

// Metric sets the metric of what follows.
func (w *Writer) Metric(m Metric) {
	w.closeTo(levelMetric)
	w.metric = m
}

// Point appends a data point.
func (w *Writer) Point(p Point) {
	size := p.size()
	need := sizeBytes(dataPoints, size)
	if w.points > 0 && len(w.buf)+w.opening()+need+w.closing() > w.limit {
		w.cut()
	}
	w.open()
	w.buf = slices.Grow(w.buf, need)
	w.buf = p.append(appendLength(w.buf, dataPoints, size))
	w.points++
}

// AppendDelimited appends a data point that [Writer.Delimited] will write.
func AppendDelimited(b []byte, p Point) []byte {
	return p.append(protowire.AppendVarint(b, uint64(p.size())))
}

// Delimited appends data points that [AppendDelimited] wrote.
func (w *Writer) Delimited(points []byte) {
	for len(points) > 0 {
		p, n := protowire.ConsumeBytes(points)
		if n < 0 {
			return
		}
		w.Point(Raw(p))
		points = points[n:]
	}
}

// Close emits the last part, if it has any points.
func (w *Writer) Close() { w.cut() }

// cut ends the part under way.
func (w *Writer) cut() {
	if w.points > 0 {
		w.closeTo(levelResource)
		w.peak = max(w.peak, len(w.buf))
		w.emit(w.buf, w.points)
	}
	w.buf, w.points, w.depth = w.buf[:0], 0, 0
}

// maxHead is the most that the tag and the length of a message take.
const maxHead = 1 + binary.MaxVarintLen32

// opening is at most what open will write.
func (w *Writer) opening() int {
	n := (levels - w.depth) * maxHead
	if w.depth <= levelResource {
		n += maxHead + len(w.resource)
	}
	if w.depth <= levelScope {
		n += maxHead + len(w.scope.scope)
	}
	if w.depth <= levelMetric {
		n += len(w.metric.head)
	}
	return n
}

// closing is at most what closeTo(levelResource) will write.
func (w *Writer) closing() int {
	return levels*binary.MaxVarintLen32 + len(w.metric.tail) + len(w.metric.metadata) + len(w.scope.rest) + len(w.resourceRest)
}

// open opens the messages that a point belongs into.
func (w *Writer) open() {
	if w.depth == levels {
		return
	}
	if w.depth <= levelResource {
		w.begin(requestResourceMetrics)
		w.buf = appendBytes(w.buf, resourceMetricsResource, w.resource)
	}
	if w.depth <= levelScope {
		w.begin(resourceMetricsScopeMetrics)
		w.buf = appendBytes(w.buf, scopeMetricsScope, w.scope.scope)
	}
	if w.depth <= levelMetric {
		w.begin(scopeMetricsMetrics)
		w.buf = append(w.buf, w.metric.head...)
	}
	w.begin(protowire.Number(w.metric.kind))
}

// begin opens a message, with room for a length like the last one.
func (w *Writer) begin(field protowire.Number) {
	w.buf = protowire.AppendTag(w.buf, field, protowire.BytesType)
	w.buf = append(w.buf, make([]byte, w.length[w.depth])...)
	w.start[w.depth] = len(w.buf)
	w.depth++
}

// closeTo closes all messages but the outermost ones, of that number.
func (w *Writer) closeTo(depth int) {
	for w.depth > depth {
		switch w.depth - 1 {
		case levelData:
			w.buf = append(w.buf, w.metric.tail...)
		case levelMetric:
			w.buf = append(w.buf, w.metric.metadata...)
		case levelScope:
			w.buf = append(w.buf, w.scope.rest...)
		case levelResource:
			w.buf = append(w.buf, w.resourceRest...)
		}
		w.end()
	}
}

// end closes the innermost message: its length is known now. Where the room
// for it is of another size, the message is moved.
func (w *Writer) end() {
	w.depth--
	start, room := w.start[w.depth], w.length[w.depth]
	n := len(w.buf) - start
	need := protowire.SizeVarint(uint64(n))
	if need != room {
		if need > room {
			w.buf = append(w.buf, make([]byte, need-room)...)
		}
		copy(w.buf[start-room+need:], w.buf[start:start+n])
		w.buf = w.buf[:start-room+need+n]
		w.length[w.depth] = need
	}
	binary.PutUvarint(w.buf[start-room:], uint64(n))
}
