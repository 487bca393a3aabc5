// Package otlp reads and writes the wire format of OTLP metrics requests.
package otlp

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
)

// cached sizes and serialises without walking again what one proto.Size of
// the whole request has walked. It must never see a message that changed, or
// that was sized before it was complete.
var cached = proto.MarshalOptions{UseCachedSize: true}

// lengthGrowth is the most that a length prefix can grow beyond one byte: a
// message is sized before what it will hold is known.
const lengthGrowth = 4

// Split cuts an encoded request into whole requests of at most limit bytes
// each and hands each to emit with the number of its data points, in order. A
// point that is larger than limit by itself is handed over alone. A part is
// valid only during emit. It returns an error if request is malformed.
//
// This implementation decodes and encodes again.
func Split(request []byte, limit int, emit func(part []byte, points int)) error {
	req := &colmetricpb.ExportMetricsServiceRequest{}
	if err := proto.Unmarshal(request, req); err != nil {
		return fmt.Errorf("not an OTLP metrics request: %w", err)
	}
	var buf []byte
	var marshalErr error
	split(req, limit, func(part *colmetricpb.ExportMetricsServiceRequest, points int) {
		cached.Size(part)
		data, err := cached.MarshalAppend(buf[:0], part)
		if err != nil {
			marshalErr = err
			return
		}
		buf = data
		emit(data, points)
	})
	return marshalErr
}

// split cuts req into requests of at most limit serialised bytes and hands
// each to emit with the number of its data points, in the order of req. Every
// one has the resource, the scope and the metric that its points had; a point
// that is larger than limit by itself is handed over alone. A metric without
// points appears in no part, unless req fits whole.
//
// The time is linear in the size of req. The parts share the points of req,
// and the parts of a request must be serialised before req changes.
func split(req *colmetricpb.ExportMetricsServiceRequest, limit int, emit func(part *colmetricpb.ExportMetricsServiceRequest, points int)) {
	size := proto.Size(req) // and every message in req now knows its size
	if size <= limit {
		if n := countPoints(req); n > 0 {
			emit(req, n)
		}
		return
	}
	s := splitter{limit: limit, emit: emit}
	for _, rm := range req.GetResourceMetrics() {
		s.resource(rm)
	}
	s.flush()
}

// splitter fills one part after the other. Sizes are upper bounds: a length
// prefix is taken as five bytes.
type splitter struct {
	limit int
	emit  func(*colmetricpb.ExportMetricsServiceRequest, int)

	part   *colmetricpb.ExportMetricsServiceRequest
	size   int // of part
	points int // in part

	// The resource and the scope in part that are being filled; nil when the
	// next point has to open them.
	rm *metricpb.ResourceMetrics
	sm *metricpb.ScopeMetrics
}

func (s *splitter) flush() {
	if s.points > 0 {
		s.emit(s.part, s.points)
	}
	s.part, s.size, s.points, s.rm, s.sm = nil, 0, 0, nil, nil
}

// framed is the size of a message of n bytes as a field of another.
func framed(n int) int { return 1 + protowire.SizeBytes(n) }

// header is the size that an unfinished message of n bytes, of which levels
// length prefixes still grow, takes as a field of another.
func header(n, levels int) int { return framed(n) + levels*lengthGrowth }

func (s *splitter) resource(rm *metricpb.ResourceMetrics) {
	s.rm, s.sm = nil, nil
	open := func() *metricpb.ResourceMetrics {
		return &metricpb.ResourceMetrics{Resource: rm.GetResource(), SchemaUrl: rm.GetSchemaUrl()}
	}
	rmSize := header(cached.Size(open()), 1)
	for _, sm := range rm.GetScopeMetrics() {
		s.scope(sm, open, rmSize)
	}
}

func (s *splitter) scope(sm *metricpb.ScopeMetrics, openResource func() *metricpb.ResourceMetrics, rmSize int) {
	s.sm = nil
	open := func() *metricpb.ScopeMetrics {
		return &metricpb.ScopeMetrics{Scope: sm.GetScope(), SchemaUrl: sm.GetSchemaUrl()}
	}
	smSize := header(cached.Size(open()), 1)
	for _, m := range sm.GetMetrics() {
		points := pointsOf(m)
		mSize := header(cached.Size(points.slice(0, 0)), 2)
		for from := 0; from < points.n; {
			to := from
			for ; to < points.n; to++ {
				need := framed(points.size(to))
				if s.rm == nil {
					need += rmSize
				}
				if s.sm == nil {
					need += smSize
				}
				if to == from {
					need += mSize
				}
				if s.size+need > s.limit && s.points > 0 {
					break // full
				}
				if s.part == nil {
					s.part = &colmetricpb.ExportMetricsServiceRequest{}
				}
				if s.rm == nil {
					s.rm = openResource()
					s.part.ResourceMetrics = append(s.part.ResourceMetrics, s.rm)
				}
				if s.sm == nil {
					s.sm = open()
					s.rm.ScopeMetrics = append(s.rm.ScopeMetrics, s.sm)
				}
				s.size += need
				s.points++
			}
			if to > from {
				s.sm.Metrics = append(s.sm.Metrics, points.slice(from, to))
			}
			if to < points.n {
				s.flush()
			}
			from = to
		}
	}
}

// metricPoints is the data points of one metric, whatever their type.
type metricPoints struct {
	n     int
	size  func(i int) int
	slice func(i, j int) *metricpb.Metric // the metric with those points alone
}

func pointsOf(m *metricpb.Metric) metricPoints {
	with := func(set func(*metricpb.Metric)) *metricpb.Metric {
		c := &metricpb.Metric{Name: m.Name, Description: m.Description, Unit: m.Unit, Metadata: m.Metadata}
		set(c)
		return c
	}
	switch d := m.GetData().(type) {
	case *metricpb.Metric_Gauge:
		p := d.Gauge.GetDataPoints()
		return metricPoints{len(p), sizeOf(p), func(i, j int) *metricpb.Metric {
			return with(func(c *metricpb.Metric) {
				c.Data = &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: p[i:j]}}
			})
		}}
	case *metricpb.Metric_Sum:
		p := d.Sum.GetDataPoints()
		return metricPoints{len(p), sizeOf(p), func(i, j int) *metricpb.Metric {
			return with(func(c *metricpb.Metric) {
				c.Data = &metricpb.Metric_Sum{Sum: &metricpb.Sum{DataPoints: p[i:j],
					AggregationTemporality: d.Sum.GetAggregationTemporality(), IsMonotonic: d.Sum.GetIsMonotonic()}}
			})
		}}
	case *metricpb.Metric_Histogram:
		p := d.Histogram.GetDataPoints()
		return metricPoints{len(p), sizeOf(p), func(i, j int) *metricpb.Metric {
			return with(func(c *metricpb.Metric) {
				c.Data = &metricpb.Metric_Histogram{Histogram: &metricpb.Histogram{DataPoints: p[i:j],
					AggregationTemporality: d.Histogram.GetAggregationTemporality()}}
			})
		}}
	case *metricpb.Metric_ExponentialHistogram:
		p := d.ExponentialHistogram.GetDataPoints()
		return metricPoints{len(p), sizeOf(p), func(i, j int) *metricpb.Metric {
			return with(func(c *metricpb.Metric) {
				c.Data = &metricpb.Metric_ExponentialHistogram{ExponentialHistogram: &metricpb.ExponentialHistogram{DataPoints: p[i:j],
					AggregationTemporality: d.ExponentialHistogram.GetAggregationTemporality()}}
			})
		}}
	case *metricpb.Metric_Summary:
		p := d.Summary.GetDataPoints()
		return metricPoints{len(p), sizeOf(p), func(i, j int) *metricpb.Metric {
			return with(func(c *metricpb.Metric) {
				c.Data = &metricpb.Metric_Summary{Summary: &metricpb.Summary{DataPoints: p[i:j]}}
			})
		}}
	}
	return metricPoints{0, nil, func(int, int) *metricpb.Metric { return with(func(*metricpb.Metric) {}) }}
}

func sizeOf[P proto.Message](points []P) func(int) int {
	return func(i int) int { return cached.Size(points[i]) }
}

func countPoints(req *colmetricpb.ExportMetricsServiceRequest) (n int) {
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				n += pointsOf(m).n
			}
		}
	}
	return n
}
