// Command floor is the least that the job can cost in Go: it reads the page, looks at every byte, and sends requests that
// were made once, at the start, uncompressed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/bench/internal/page"
)

// A request's size, uncompressed, below the 4 MiB that a receiver takes by default.
const requestSize = 3 << 20

func main() {
	url := flag.String("url", "", "the page's `URL`")
	endpoint := flag.String("endpoint", "", "the receiver's `host:port`")
	interval := flag.Duration("interval", time.Second, "between two scrapes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *url, *endpoint, *interval); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1) //nolint:gocritic // the context's end changes nothing any more
	}
}

func run(ctx context.Context, url, endpoint string, interval time.Duration) error {
	client := page.NewClient(url)
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	families, err := client.Families(ctx)
	if err != nil {
		return err
	}
	requests, err := requests(families)
	if err != nil {
		return err
	}
	families = nil //nolint:ineffassign,wastedassign // FreeOSMemory collects it
	debug.FreeOSMemory()

	buffer := make([]byte, 256<<10)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for sum := byte(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := client.Get(ctx, func(r io.Reader) error {
			for {
				n, err := r.Read(buffer)
				for _, b := range buffer[:n] {
					sum ^= b
				}
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
			}
		})
		if err != nil {
			return err
		}
		for _, request := range requests {
			const method = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
			if err := conn.Invoke(ctx, method, request, new([]byte)); err != nil {
				return err
			}
		}
		if sum == 1 { // the compiler does not know that this says nothing
			fmt.Fprint(io.Discard, sum)
		}
	}
}

// raw is a codec of messages that are bytes already.
type raw struct{}

// Name is the codec's, in place of the generated types' one.
func (raw) Name() string { return "proto" }

// Marshal sends the bytes as they are.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("marshal %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal ignores the response.
func (raw) Unmarshal(mem.BufferSlice, any) error { return nil }

// requests encodes the families as OTLP has them, in requests that a receiver takes by default.
func requests(families []*dto.MetricFamily) (requests [][]byte, err error) {
	var scope *metricspb.ScopeMetrics
	size := 0
	flush := func() {
		if scope == nil || err != nil {
			return
		}
		var request []byte
		request, err = proto.Marshal(&collectorpb.ExportMetricsServiceRequest{
			ResourceMetrics: []*metricspb.ResourceMetrics{{ScopeMetrics: []*metricspb.ScopeMetrics{scope}}},
		})
		requests = append(requests, request)
		scope, size = nil, 0
	}
	now := uint64(time.Now().UnixNano())
	for _, family := range families {
		for begin, all := 0, family.GetMetric(); begin < len(all); {
			metric := &metricspb.Metric{Name: family.GetName(), Description: family.GetHelp()}
			end := begin
			for ; end < len(all) && size < requestSize; end++ {
				size += add(metric, family.GetType(), all[end], now)
			}
			begin = end
			if scope == nil {
				scope = &metricspb.ScopeMetrics{}
			}
			scope.Metrics = append(scope.Metrics, metric)
			if size >= requestSize {
				flush()
			}
		}
	}
	flush()
	return requests, err
}

// add appends a data point and returns its size.
func add(metric *metricspb.Metric, kind dto.MetricType, m *dto.Metric, now uint64) int {
	var attributes []*commonpb.KeyValue
	for _, label := range m.GetLabel() {
		attributes = append(attributes, &commonpb.KeyValue{
			Key:   label.GetName(),
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: label.GetValue()}},
		})
	}
	if kind == dto.MetricType_HISTOGRAM {
		h := m.GetHistogram()
		point := &metricspb.HistogramDataPoint{
			Attributes: attributes, StartTimeUnixNano: now, TimeUnixNano: now,
			Count: h.GetSampleCount(), Sum: proto.Float64(h.GetSampleSum()),
		}
		before := uint64(0)
		for _, b := range h.GetBucket() {
			point.ExplicitBounds = append(point.ExplicitBounds, b.GetUpperBound())
			point.BucketCounts = append(point.BucketCounts, b.GetCumulativeCount()-before)
			before = b.GetCumulativeCount()
		}
		point.BucketCounts = append(point.BucketCounts, h.GetSampleCount()-before)
		if metric.GetHistogram() == nil {
			metric.Data = &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{
				AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE,
			}}
		}
		metric.GetHistogram().DataPoints = append(metric.GetHistogram().DataPoints, point)
		return proto.Size(point) + 4
	}
	point := &metricspb.NumberDataPoint{Attributes: attributes, TimeUnixNano: now}
	if kind == dto.MetricType_COUNTER {
		point.StartTimeUnixNano = now
		point.Value = &metricspb.NumberDataPoint_AsDouble{AsDouble: m.GetCounter().GetValue()}
		if metric.GetSum() == nil {
			metric.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{
				IsMonotonic:            true,
				AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE,
			}}
		}
		metric.GetSum().DataPoints = append(metric.GetSum().DataPoints, point)
	} else {
		point.Value = &metricspb.NumberDataPoint_AsDouble{AsDouble: m.GetGauge().GetValue()}
		if metric.GetGauge() == nil {
			metric.Data = &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{}}
		}
		metric.GetGauge().DataPoints = append(metric.GetGauge().DataPoints, point)
	}
	return proto.Size(point) + 4
}
