package page

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Point is a series as a Collector received it.
type Point struct {
	Series

	Scope    string            // the instrumentation scope's name
	Resource map[string]string // the resource's attributes
}

// Points returns every data point of a request in one flat list.
func Points(md pmetric.Metrics) []Point {
	var all []Point
	for _, rm := range md.ResourceMetrics().All() {
		resource := map[string]string{}
		for k, v := range rm.Resource().Attributes().All() {
			resource[k] = v.AsString()
		}
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				family := ""
				if v, ok := m.Metadata().Get("prometheus.type"); ok {
					family = v.AsString()
				}
				for _, s := range series(m) {
					s.Name, s.Type, s.Help, s.Unit = m.Name(), family, m.Description(), m.Unit()
					all = append(all, Point{Series: s, Scope: sm.Scope().Name(), Resource: resource})
				}
			}
		}
	}
	return all
}

func series(m pmetric.Metric) (all []Series) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		for _, p := range m.Gauge().DataPoints().All() {
			all = append(all, number(Gauge, p))
		}
	case pmetric.MetricTypeSum:
		kind := Counter
		if !m.Sum().IsMonotonic() || m.Sum().AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
			kind = Kind(m.Sum().AggregationTemporality().String() + " sum")
		}
		for _, p := range m.Sum().DataPoints().All() {
			all = append(all, number(kind, p))
		}
	case pmetric.MetricTypeHistogram:
		kind := Histogram
		if t := m.Histogram().AggregationTemporality(); t != pmetric.AggregationTemporalityCumulative {
			kind = Kind(t.String() + " histogram")
		}
		for _, p := range m.Histogram().DataPoints().All() {
			s := point(kind, p)
			s.Count, s.Sum = p.Count(), p.Sum()
			s.Bounds, s.Buckets = p.ExplicitBounds().AsRaw(), p.BucketCounts().AsRaw()
			all = append(all, s)
		}
	case pmetric.MetricTypeSummary:
		for _, p := range m.Summary().DataPoints().All() {
			s := point(Summary, p)
			s.Count, s.Sum = p.Count(), p.Sum()
			for _, q := range p.QuantileValues().All() {
				s.Quantiles = append(s.Quantiles, Quantile{q.Quantile(), q.Value()})
			}
			all = append(all, s)
		}
	default:
		all = append(all, Series{Kind: Kind("unsupported " + m.Type().String())})
	}
	return all
}

func number(kind Kind, p pmetric.NumberDataPoint) Series {
	s := point(kind, p)
	switch p.ValueType() {
	case pmetric.NumberDataPointValueTypeDouble:
		s.Value = p.DoubleValue()
	case pmetric.NumberDataPointValueTypeInt:
		s.Value = float64(p.IntValue())
	default:
		s.Kind += " without a value"
	}
	return s
}

func point(kind Kind, p interface {
	Attributes() pcommon.Map
	StartTimestamp() pcommon.Timestamp
	Timestamp() pcommon.Timestamp
}) Series {
	var labels []string
	for k, v := range p.Attributes().All() {
		labels = append(labels, Label(k, v.AsString()))
	}
	s := Series{Kind: kind, Labels: Join(labels), Time: p.Timestamp().AsTime()}
	if p.StartTimestamp() != 0 {
		s.Start = p.StartTimestamp().AsTime()
	}
	return s
}
