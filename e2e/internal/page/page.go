// Package page reads the engine's own metrics page and what a Collector
// received of it into one form, and compares the two.
//
// It is the oracle of the end-to-end tests, so it shares no code with the
// translator that it judges: it states once more, from the OpenTelemetry
// specification (compatibility/prometheus_and_openmetrics.md), what a family
// must have become.
package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Kind is the kind of an OpenTelemetry metric.
type Kind string

// The kinds that a page's families become.
const (
	Gauge     Kind = "gauge"
	Counter   Kind = "cumulative monotonic sum"
	Histogram Kind = "cumulative histogram"
	Summary   Kind = "summary"
)

// Series is one data point of one metric, with what its metric says of it.
type Series struct {
	Name   string
	Labels string // {a="b",c="d"}, sorted by name
	Kind   Kind
	Type   string // of the family: counter, gauge, histogram, summary, unknown
	Help   string
	Unit   string

	Start time.Time // zero: unset
	Time  time.Time // zero on a page without timestamps

	Value     float64 // of a gauge or a counter
	Count     uint64  // and the rest of histograms and summaries
	Sum       float64
	Bounds    []float64 // upper bounds, without +Inf
	Buckets   []uint64  // observations in each bucket alone, +Inf last
	Quantiles []Quantile
}

// Quantile is one quantile of a summary.
type Quantile struct{ Quantile, Value float64 }

// Key tells one series of a page from another.
func (s Series) Key() string { return s.Name + s.Labels }

// Get reads the page that is served at /metrics on a unix socket. It asks for
// protobuf, the one form that carries created timestamps.
func Get(ctx context.Context, socket string) ([]*dto.MetricFamily, error) {
	return get(ctx, "http://engine/metrics", string(expfmt.NewFormat(expfmt.TypeProtoDelim)),
		func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		})
}

// GetURL reads the page at the URL as Prometheus' text format.
func GetURL(ctx context.Context, url string) ([]*dto.MetricFamily, error) {
	return get(ctx, url, string(expfmt.NewFormat(expfmt.TypeTextPlain)), new(net.Dialer).DialContext)
}

func get(ctx context.Context, url, accept string, dial func(context.Context, string, string) (net.Conn, error)) ([]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, res.Status)
	}
	var families []*dto.MetricFamily
	for decoder := expfmt.NewDecoder(res.Body, expfmt.ResponseFormat(res.Header)); ; {
		family := new(dto.MetricFamily)
		switch err := decoder.Decode(family); {
		case errors.Is(err, io.EOF):
			return families, nil
		case err != nil:
			return nil, fmt.Errorf("decode %s: %w", url, err)
		}
		families = append(families, family)
	}
}

// Expect returns what the families must become, by [Series.Key].
func Expect(families []*dto.MetricFamily) map[string]Series {
	var started time.Time
	for _, f := range families {
		if f.GetName() == "process_start_time_seconds" && len(f.GetMetric()) == 1 {
			seconds, fraction := math.Modf(f.GetMetric()[0].GetGauge().GetValue())
			started = time.Unix(int64(seconds), int64(fraction*1e9))
		}
	}
	all := map[string]Series{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			s := expect(f.GetType(), m, started)
			s.Name, s.Type, s.Help, s.Unit = f.GetName(), types[f.GetType()], f.GetHelp(), f.GetUnit()
			all[s.Key()] = s
		}
	}
	return all
}

// types are the values of the metadata prometheus.type.
var types = map[dto.MetricType]string{
	dto.MetricType_COUNTER: "counter", dto.MetricType_GAUGE: "gauge", dto.MetricType_UNTYPED: "unknown",
	dto.MetricType_HISTOGRAM: "histogram", dto.MetricType_SUMMARY: "summary",
}

func expect(kind dto.MetricType, m *dto.Metric, started time.Time) Series {
	var labels []string
	for _, l := range m.GetLabel() {
		if l.GetValue() != "" { // an empty label is no label
			labels = append(labels, Label(l.GetName(), l.GetValue()))
		}
	}
	s := Series{Labels: Join(labels)}
	if m.TimestampMs != nil {
		s.Time = time.UnixMilli(m.GetTimestampMs())
	}
	switch kind {
	case dto.MetricType_COUNTER:
		s.Kind, s.Value, s.Start = Counter, m.GetCounter().GetValue(), started
		if created := m.GetCounter().GetCreatedTimestamp(); created != nil {
			s.Start = created.AsTime()
		}
	case dto.MetricType_GAUGE:
		s.Kind, s.Value = Gauge, m.GetGauge().GetValue()
	case dto.MetricType_UNTYPED:
		s.Kind, s.Value = Gauge, m.GetUntyped().GetValue()
	case dto.MetricType_HISTOGRAM:
		h := m.GetHistogram()
		s.Kind, s.Count, s.Sum, s.Start = Histogram, h.GetSampleCount(), h.GetSampleSum(), started
		if created := h.GetCreatedTimestamp(); created != nil {
			s.Start = created.AsTime()
		}
		var below uint64
		for _, b := range h.GetBucket() {
			if !math.IsInf(b.GetUpperBound(), +1) {
				s.Bounds = append(s.Bounds, b.GetUpperBound())
				s.Buckets = append(s.Buckets, b.GetCumulativeCount()-below)
				below = b.GetCumulativeCount()
			}
		}
		s.Buckets = append(s.Buckets, h.GetSampleCount()-below)
	case dto.MetricType_SUMMARY:
		q := m.GetSummary()
		s.Kind, s.Count, s.Sum, s.Start = Summary, q.GetSampleCount(), q.GetSampleSum(), started
		if created := q.GetCreatedTimestamp(); created != nil {
			s.Start = created.AsTime()
		}
		for _, v := range q.GetQuantile() {
			s.Quantiles = append(s.Quantiles, Quantile{v.GetQuantile(), v.GetValue()})
		}
	default:
		s.Kind = Kind("unsupported " + kind.String())
	}
	return s
}

// Samples counts the samples of the families as Prometheus does: the lines of
// the text format that are no comments.
func Samples(families []*dto.MetricFamily) int {
	n := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch {
			case m.GetHistogram() != nil:
				n += len(m.GetHistogram().GetBucket()) + 2 // _sum and _count
				if b := m.GetHistogram().GetBucket(); len(b) == 0 || !math.IsInf(b[len(b)-1].GetUpperBound(), +1) {
					n++ // the text format always has the +Inf bucket, protobuf need not
				}
			case m.GetSummary() != nil:
				n += len(m.GetSummary().GetQuantile()) + 2
			default:
				n++
			}
		}
	}
	return n
}

// Label is a label as the text format writes it.
func Label(name, value string) string { return fmt.Sprintf("%s=%q", name, value) }

// Join puts labels into their canonical order and form.
func Join(labels []string) string {
	slices.Sort(labels)
	return "{" + strings.Join(labels, ",") + "}"
}
