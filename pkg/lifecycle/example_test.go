package lifecycle_test

import (
	"context"
	"fmt"
	"time"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/pkg/lifecycle"
)

// names is a Delivery of the names of metrics.
type names chan []string

func (names) MaxRequest() int { return 4 << 20 }

func (n names) Accept(request []byte, _ int) error {
	var req colmetricpb.ExportMetricsServiceRequest
	if err := proto.Unmarshal(request, &req); err != nil {
		return err
	}
	var list []string
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				list = append(list, m.GetName())
			}
		}
	}
	n <- list
	return nil
}

// Example collects from a target that it makes up. A plugin serves
// [lifecycle.NewServer] instead of calling Start by itself.
func Example() {
	delivered := make(names, 10)
	manager, err := lifecycle.New(lifecycle.Config{
		Scrape: func(context.Context) ([]byte, error) {
			return encode(counter("requests_total", 42)), nil
		},
		Delivery: delivered,
		Interval: 15 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	manager.Start()
	for _, name := range <-delivered {
		fmt.Println(name)
	}
	if err := manager.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// requests_total
	// up
	// scrape_duration_seconds
	// scrape_samples_scraped
	// scrape_samples_post_metric_relabeling
}
