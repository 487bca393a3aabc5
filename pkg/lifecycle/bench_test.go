package lifecycle

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/pkg/translate"
)

// discard is a Delivery that takes everything.
type discard struct{}

func (discard) MaxRequest() int          { return 4 << 20 }
func (discard) Accept([]byte, int) error { return nil }

// fifteen instruments of a caller's, as many as a delivery has or more.
func fifteen(meter metric.Meter) error {
	var counters []metric.Int64Observable
	var all []metric.Observable
	for n := range 15 {
		c, err := meter.Int64ObservableCounter(fmt.Sprintf("counter.%d", n), metric.WithUnit("{request}"), metric.WithDescription("A counter of the caller's"))
		if err != nil {
			return err
		}
		counters, all = append(counters, c), append(all, c)
	}
	attributes := []metric.ObserveOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("where", "disk")))}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for n, c := range counters {
			o.ObserveInt64(c, int64(n), attributes...)
		}
		return nil
	}, all...)
	return err
}

func newBenchCycle(b *testing.B) *cycle {
	b.Helper()
	c, err := newCycle(Config{
		Scrape:   func(context.Context) ([]byte, error) { return nil, nil },
		Delivery: discard{}, Interval: time.Second, Instruments: fifteen, Version: "1",
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.close(); err != nil {
			b.Error(err)
		}
	})
	return c
}

// BenchmarkCycle is a whole cycle with an exposition of one gauge.
func BenchmarkCycle(b *testing.B) {
	c := newBenchCycle(b)
	var exposition bytes.Buffer
	if _, err := protodelim.MarshalTo(&exposition, &dto.MetricFamily{
		Name: proto.String("x"), Type: dto.MetricType_GAUGE.Enum(),
		Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: proto.Float64(1)}}},
	}); err != nil {
		b.Fatal(err)
	}
	scrape := func() ([]byte, error) { return exposition.Bytes(), nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := c.run(scrape); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCollect is what the own metrics cost: callbacks, aggregation,
// transformation and encoding of twenty instruments.
func BenchmarkCollect(b *testing.B) {
	c := newBenchCycle(b)
	c.instruments.observe(nil, time.Millisecond, translate.Result{Samples: 1, Kept: 1, Dropped: map[string]int{translate.DropNoValue: 1}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.exporter.collect(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAccept is the way of the own metrics from their request into that of
// the cycle, and to a Delivery that does nothing.
func BenchmarkAccept(b *testing.B) {
	c := newBenchCycle(b)
	own, err := c.exporter.collect()
	if err != nil {
		b.Fatal(err)
	}
	var refused error
	accept := func(part []byte, points int) { refused = c.cfg.Delivery.Accept(part, points) }
	b.ReportAllocs()
	for b.Loop() {
		c.writer.Reset(c.cfg.Delivery.MaxRequest(), accept)
		if err := c.writer.Append(own); err != nil {
			b.Fatal(err)
		}
		c.writer.Close()
		if refused != nil {
			b.Fatal(refused)
		}
	}
}
