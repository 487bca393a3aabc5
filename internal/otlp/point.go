package otlp

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Point is a data point, or anything else that can say how many bytes it will
// append.
type Point interface {
	size() int
	append(b []byte) []byte
}

// Raw is an encoded data point.
type Raw []byte

func (r Raw) size() int              { return len(r) }
func (r Raw) append(b []byte) []byte { return append(b, r...) }

// Times and flags of every kind of data point. Times are Unix nanoseconds; a
// start of 0 is unknown.
type Times struct {
	Start, Time     int64
	NoRecordedValue bool // the staleness marker of a series
}

const fixed64Field = 1 + 8 // a fixed64 with a field number below 16

func (t *Times) size() int {
	n := 0
	if t.Start != 0 {
		n += fixed64Field
	}
	if t.Time != 0 {
		n += fixed64Field
	}
	if t.NoRecordedValue {
		n += 2
	}
	return n
}

func (t *Times) append(b []byte, flags protowire.Number) []byte {
	if t.Start != 0 {
		b = appendFixed64(b, pointStart, uint64(t.Start))
	}
	if t.Time != 0 {
		b = appendFixed64(b, pointTime, uint64(t.Time))
	}
	if t.NoRecordedValue {
		b = appendVarint(b, flags, noRecordedValue)
	}
	return b
}

// NumberPoint is a data point of a gauge or a sum. Attributes and exemplars
// are encoded, by [AppendAttribute] and [Exemplar.Append].
type NumberPoint struct {
	Times
	Attributes []byte
	Value      float64
	Exemplars  []byte
}

func (p *NumberPoint) size() int {
	n := len(p.Attributes) + p.Times.size() + len(p.Exemplars)
	if !p.NoRecordedValue {
		n += fixed64Field
	}
	return n
}

func (p *NumberPoint) append(b []byte) []byte {
	b = append(b, p.Attributes...)
	b = p.Times.append(b, numberFlags)
	if !p.NoRecordedValue {
		b = appendDouble(b, numberAsDouble, p.Value)
	}
	return append(b, p.Exemplars...)
}

// HistogramPoint is a data point of a histogram with explicit buckets.
type HistogramPoint struct {
	Times
	Attributes []byte
	Count      uint64
	Sum        float64
	HasSum     bool
	Bounds     []float64
	Counts     []uint64
	Exemplars  []byte
}

func (p *HistogramPoint) size() int {
	n := len(p.Attributes) + p.Times.size() + len(p.Exemplars)
	if p.Count != 0 {
		n += fixed64Field
	}
	if p.HasSum {
		n += fixed64Field
	}
	return n + sizePacked64(histogramCounts, len(p.Counts)) + sizePacked64(histogramBounds, len(p.Bounds))
}

func (p *HistogramPoint) append(b []byte) []byte {
	b = append(b, p.Attributes...)
	b = p.Times.append(b, histogramFlags)
	if p.Count != 0 {
		b = appendFixed64(b, histogramCount, p.Count)
	}
	if p.HasSum {
		b = appendDouble(b, histogramSum, p.Sum)
	}
	if len(p.Counts) > 0 {
		b = appendLength(b, histogramCounts, 8*len(p.Counts))
		for _, n := range p.Counts {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
	}
	if len(p.Bounds) > 0 {
		b = appendLength(b, histogramBounds, 8*len(p.Bounds))
		for _, v := range p.Bounds {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return append(b, p.Exemplars...)
}

// sizePacked64 is the size of a packed field of n 64-bit numbers.
func sizePacked64(field protowire.Number, n int) int {
	if n == 0 {
		return 0
	}
	return sizeBytes(field, 8*n)
}

// ExponentialPoint is a data point of an exponential histogram.
type ExponentialPoint struct {
	Times
	Attributes         []byte
	Count              uint64
	Sum                float64
	HasSum             bool
	Scale              int32
	ZeroCount          uint64
	ZeroThreshold      float64
	Positive, Negative Buckets
	Exemplars          []byte
}

// Buckets are those of one sign. Bucket i has the index Offset+i.
type Buckets struct {
	Offset int32
	Counts []uint64
}

func (s *Buckets) size() int {
	n := 0
	if s.Offset != 0 {
		n += 1 + protowire.SizeVarint(protowire.EncodeZigZag(int64(s.Offset)))
	}
	if len(s.Counts) > 0 {
		n += sizeBytes(bucketsCounts, s.packed())
	}
	return n
}

func (s *Buckets) packed() int {
	n := 0
	for _, c := range s.Counts {
		n += protowire.SizeVarint(c)
	}
	return n
}

func (s *Buckets) append(b []byte, field protowire.Number) []byte {
	b = appendLength(b, field, s.size())
	if s.Offset != 0 {
		b = appendVarint(b, bucketsOffset, protowire.EncodeZigZag(int64(s.Offset)))
	}
	if len(s.Counts) > 0 {
		b = appendLength(b, bucketsCounts, s.packed())
		for _, c := range s.Counts {
			b = protowire.AppendVarint(b, c)
		}
	}
	return b
}

func (p *ExponentialPoint) size() int {
	n := len(p.Attributes) + p.Times.size() + len(p.Exemplars)
	if p.Count != 0 {
		n += fixed64Field
	}
	if p.HasSum {
		n += fixed64Field
	}
	if p.Scale != 0 {
		n += 1 + protowire.SizeVarint(protowire.EncodeZigZag(int64(p.Scale)))
	}
	if p.ZeroCount != 0 {
		n += fixed64Field
	}
	if p.ZeroThreshold != 0 {
		n += fixed64Field
	}
	return n + sizeBytes(exponentialPositive, p.Positive.size()) + sizeBytes(exponentialNegative, p.Negative.size())
}

func (p *ExponentialPoint) append(b []byte) []byte {
	b = append(b, p.Attributes...)
	b = p.Times.append(b, exponentialFlags)
	if p.Count != 0 {
		b = appendFixed64(b, exponentialCount, p.Count)
	}
	if p.HasSum {
		b = appendDouble(b, exponentialSum, p.Sum)
	}
	if p.Scale != 0 {
		b = appendVarint(b, exponentialScale, protowire.EncodeZigZag(int64(p.Scale)))
	}
	if p.ZeroCount != 0 {
		b = appendFixed64(b, exponentialZeroCount, p.ZeroCount)
	}
	b = p.Positive.append(b, exponentialPositive)
	b = p.Negative.append(b, exponentialNegative)
	b = append(b, p.Exemplars...)
	if p.ZeroThreshold != 0 {
		b = appendDouble(b, exponentialZeroThreshold, p.ZeroThreshold)
	}
	return b
}

// SummaryPoint is a data point of a summary.
type SummaryPoint struct {
	Times
	Attributes []byte
	Count      uint64
	Sum        float64
	Quantiles  []Quantile
}

// Quantile is a value at a quantile of a summary.
type Quantile struct{ Quantile, Value float64 }

func (q Quantile) size() int {
	n := 0
	if q.Quantile != 0 {
		n += fixed64Field
	}
	if isSet(q.Value) {
		n += fixed64Field
	}
	return n
}

// isSet reports whether v is written: protobuf leaves out a positive zero.
func isSet(v float64) bool { return math.Float64bits(v) != 0 }

func (p *SummaryPoint) size() int {
	n := len(p.Attributes) + p.Times.size()
	if p.Count != 0 {
		n += fixed64Field
	}
	if isSet(p.Sum) {
		n += fixed64Field
	}
	for _, q := range p.Quantiles {
		n += sizeBytes(summaryQuantiles, q.size())
	}
	return n
}

func (p *SummaryPoint) append(b []byte) []byte {
	b = append(b, p.Attributes...)
	b = p.Times.append(b, summaryFlags)
	if p.Count != 0 {
		b = appendFixed64(b, summaryCount, p.Count)
	}
	if isSet(p.Sum) {
		b = appendDouble(b, summarySum, p.Sum)
	}
	for _, q := range p.Quantiles {
		b = appendLength(b, summaryQuantiles, q.size())
		if q.Quantile != 0 {
			b = appendDouble(b, quantileQuantile, q.Quantile)
		}
		if isSet(q.Value) {
			b = appendDouble(b, quantileValue, q.Value)
		}
	}
	return b
}

// Exemplar is an exemplar. A time of 0 is unknown; ids are nil or as long as
// OTLP wants them. Attributes are encoded, by [AppendExemplarAttribute].
type Exemplar struct {
	Time       int64
	Value      float64
	SpanID     []byte
	TraceID    []byte
	Attributes []byte
}

// AppendExemplarAttribute appends an attribute of an exemplar.
func AppendExemplarAttribute(b, key, value []byte) []byte {
	return appendStringPair(b, exemplarAttributes, key, value)
}

// Append appends e as an exemplar of a data point of kind k.
func (e *Exemplar) Append(b []byte, k Kind) []byte {
	n := fixed64Field + len(e.Attributes)
	if e.Time != 0 {
		n += fixed64Field
	}
	if len(e.SpanID) > 0 {
		n += sizeBytes(exemplarSpanID, len(e.SpanID))
	}
	if len(e.TraceID) > 0 {
		n += sizeBytes(exemplarTraceID, len(e.TraceID))
	}
	b = appendLength(b, k.exemplarsField(), n)
	if e.Time != 0 {
		b = appendFixed64(b, exemplarTime, uint64(e.Time))
	}
	b = appendDouble(b, exemplarAsDouble, e.Value)
	if len(e.SpanID) > 0 {
		b = appendBytes(b, exemplarSpanID, e.SpanID)
	}
	if len(e.TraceID) > 0 {
		b = appendBytes(b, exemplarTraceID, e.TraceID)
	}
	return append(b, e.Attributes...)
}
