// Command bridge is what OpenTelemetry's Go modules offer for the same job: the Prometheus bridge of opentelemetry-go-contrib
// behind the SDK's periodic reader and the OTLP/gRPC exporter. Its gatherer gets a page and decodes it with expfmt.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/sdk/metric"

	"otelmetricsplugin/bench/internal/page"
)

func main() {
	url := flag.String("url", "", "the page's `URL`")
	endpoint := flag.String("endpoint", "", "the receiver's `host:port`")
	interval := flag.Duration("interval", time.Second, "between two scrapes")
	compression := flag.String("compression", "none", "none or gzip")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *url, *endpoint, *interval, *compression); err != nil {
		fmt.Fprintln(os.Stderr, "bridge:", err)
		os.Exit(1) //nolint:gocritic // the context's end changes nothing any more
	}
}

func run(ctx context.Context, url, endpoint string, interval time.Duration, compression string) error {
	options := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(endpoint), otlpmetricgrpc.WithInsecure()}
	if compression == "gzip" {
		options = append(options, otlpmetricgrpc.WithCompressor("gzip"))
	}
	exporter, err := otlpmetricgrpc.New(ctx, options...)
	if err != nil {
		return err
	}
	reader := metric.NewPeriodicReader(exporter,
		metric.WithInterval(interval),
		metric.WithTimeout(time.Minute),
		metric.WithProducer(prometheus.NewMetricProducer(prometheus.WithGatherer(target{page.NewClient(url)}))))
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	<-ctx.Done()
	ended, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return provider.Shutdown(ended)
}

// target is a page elsewhere as a prometheus.Gatherer.
type target struct{ client *page.Client }

// Gather gets and decodes the page.
func (t target) Gather() ([]*dto.MetricFamily, error) { return t.client.Families(context.Background()) }
