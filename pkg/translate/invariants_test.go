package translate_test

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/pkg/translate"
)

// point is what all kinds of points have in common.
type point struct {
	series      string // scope, name, kind and attributes
	delta       bool
	start, time uint64
	stale       bool    // no recorded value
	value       float64 // of a number; the count of others
	sum         float64 // zero for a number
}

// pointsOf returns the points of a request, or what is wrong with one of them,
// whatever the page was.
func pointsOf(req *colmetricpb.ExportMetricsServiceRequest) ([]point, error) {
	if _, err := proto.Marshal(req); err != nil {
		return nil, fmt.Errorf("the request cannot be sent: %w", err)
	}
	var points []point
	seen := make(map[string]bool)
	for _, sm := range scopesOf(req) {
		sc := sm.GetScope()
		scope := fmt.Sprintf("%q %q %q %s", sc.GetName(), sc.GetVersion(), sm.GetSchemaUrl(), renderAttrs(sc.GetAttributes()))
		if seen[scope] {
			return nil, fmt.Errorf("scope %s twice", scope)
		}
		seen[scope] = true
		for _, m := range sm.GetMetrics() {
			metric := fmt.Sprintf("%s %q %T", scope, m.GetName(), m.GetData())
			if seen[metric] {
				return nil, fmt.Errorf("metric %s twice", metric)
			}
			seen[metric] = true
			of, err := pointsOfMetric(m)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", metric, err)
			}
			for _, p := range of {
				// Whatever the kind: a backend may tell series by name and attributes.
				series := fmt.Sprintf("%s %q %s", scope, m.GetName(), p.series)
				p.series = metric + " " + p.series
				if p.start > p.time {
					return nil, fmt.Errorf("%s: start %d after time %d", p.series, p.start, p.time)
				}
				if seen[series] {
					return nil, fmt.Errorf("%s: two points", p.series)
				}
				seen[series] = true
				points = append(points, p)
			}
		}
	}
	return points, nil
}

func scopesOf(req *colmetricpb.ExportMetricsServiceRequest) (scopes []*metricpb.ScopeMetrics) {
	for _, rm := range req.GetResourceMetrics() {
		scopes = append(scopes, rm.GetScopeMetrics()...)
	}
	return scopes
}

func pointsOfMetric(m *metricpb.Metric) (points []point, err error) {
	if m.GetName() == "" || len(m.GetMetadata()) != 1 {
		return nil, fmt.Errorf("name %q, metadata %v", m.GetName(), m.GetMetadata())
	}
	add := func(attrs []*commonpb.KeyValue, flags uint32, p point, exemplars []*metricpb.Exemplar) error {
		if err := checkAttrs(attrs); err != nil {
			return err
		}
		for _, e := range exemplars {
			if n := len(e.GetTraceId()); n != 0 && n != 16 {
				return fmt.Errorf("trace id of %d bytes", n)
			}
			if n := len(e.GetSpanId()); n != 0 && n != 8 {
				return fmt.Errorf("span id of %d bytes", n)
			}
		}
		p.series, p.stale = renderAttrs(attrs), flags != 0
		points = append(points, p)
		return nil
	}
	const delta = metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	switch d := m.GetData().(type) {
	case *metricpb.Metric_Gauge:
		for _, p := range d.Gauge.GetDataPoints() {
			if (p.Value == nil) != (p.Flags != 0) {
				return nil, fmt.Errorf("value %v with flags %d", p.Value, p.Flags)
			}
			if err := add(p.Attributes, p.Flags, point{start: p.StartTimeUnixNano, time: p.TimeUnixNano, value: p.GetAsDouble()}, p.Exemplars); err != nil {
				return nil, err
			}
		}
	case *metricpb.Metric_Sum:
		for _, p := range d.Sum.GetDataPoints() {
			if (p.Value == nil) != (p.Flags != 0) {
				return nil, fmt.Errorf("value %v with flags %d", p.Value, p.Flags)
			}
			if p.GetAsDouble() < 0 {
				return nil, fmt.Errorf("monotonic sum of %g", p.GetAsDouble())
			}
			if err := add(p.Attributes, p.Flags, point{
				delta: d.Sum.AggregationTemporality == delta,
				start: p.StartTimeUnixNano, time: p.TimeUnixNano, value: p.GetAsDouble(),
			}, p.Exemplars); err != nil {
				return nil, err
			}
		}
	case *metricpb.Metric_Histogram:
		for _, p := range d.Histogram.GetDataPoints() {
			if p.Flags == 0 && len(p.BucketCounts) != len(p.ExplicitBounds)+1 {
				return nil, fmt.Errorf("%d buckets, %d bounds", len(p.BucketCounts), len(p.ExplicitBounds))
			}
			for i, b := range p.ExplicitBounds {
				if math.IsNaN(b) || math.IsInf(b, 1) || i > 0 && p.ExplicitBounds[i-1] >= b {
					return nil, fmt.Errorf("bounds %v", p.ExplicitBounds)
				}
			}
			if n := total(p.BucketCounts); n != p.Count {
				return nil, fmt.Errorf("%d in buckets, count %d", n, p.Count)
			}
			if err := add(p.Attributes, p.Flags, point{
				delta: d.Histogram.AggregationTemporality == delta,
				start: p.StartTimeUnixNano, time: p.TimeUnixNano, value: float64(p.Count), sum: p.GetSum(),
			}, p.Exemplars); err != nil {
				return nil, err
			}
		}
	case *metricpb.Metric_ExponentialHistogram:
		for _, p := range d.ExponentialHistogram.GetDataPoints() {
			if n := p.ZeroCount + total(p.GetPositive().GetBucketCounts()) + total(p.GetNegative().GetBucketCounts()); n != p.Count {
				return nil, fmt.Errorf("%d in buckets, count %d", n, p.Count)
			}
			if err := add(p.Attributes, p.Flags, point{
				delta: d.ExponentialHistogram.AggregationTemporality == delta,
				start: p.StartTimeUnixNano, time: p.TimeUnixNano, value: float64(p.Count), sum: p.GetSum(),
			}, p.Exemplars); err != nil {
				return nil, err
			}
		}
	case *metricpb.Metric_Summary:
		for _, p := range d.Summary.GetDataPoints() {
			last := math.Inf(-1)
			for _, q := range p.QuantileValues {
				if !(q.Quantile > last && q.Quantile >= 0 && q.Quantile <= 1) {
					return nil, fmt.Errorf("quantiles %v", p.QuantileValues)
				}
				last = q.Quantile
			}
			if err := add(p.Attributes, p.Flags, point{
				start: p.StartTimeUnixNano, time: p.TimeUnixNano, value: float64(p.Count), sum: p.Sum,
			}, nil); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("data %T", d)
	}
	if len(points) == 0 {
		return nil, fmt.Errorf("no points")
	}
	return points, nil
}

func total(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

func checkAttrs(attrs []*commonpb.KeyValue) error {
	keys := make([]string, len(attrs))
	for i, kv := range attrs {
		keys[i] = kv.GetKey()
		if kv.GetKey() == "" || kv.GetValue().GetStringValue() == "" || !utf8.ValidString(kv.GetKey()) {
			return fmt.Errorf("attribute %v", kv)
		}
	}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != len(attrs) {
		return fmt.Errorf("attributes %v", attrs)
	}
	return nil
}

// checkAccounting tells whether each metric of a page became a point or was
// counted as dropped, and nothing else did.
func checkAccounting(families []*dto.MetricFamily, r translate.Result, points []point) error {
	metrics, exported, dropped := 0, 0, 0
	for _, mf := range families {
		if mf.GetName() != "target_info" {
			metrics += len(mf.GetMetric())
		}
	}
	for _, n := range r.Dropped {
		dropped += n
	}
	stale := 0
	for _, p := range points {
		if p.stale {
			stale++
		} else {
			exported++
		}
	}
	// A point without a value is one of the page's own, by a stale NaN, or of
	// a series that is no more.
	if n := exported + dropped; n > metrics || n+stale < metrics {
		return fmt.Errorf("%d metrics: %d exported, %d dropped %v, %d without a value", metrics, exported, dropped, r.Dropped, stale)
	}
	return nil
}
