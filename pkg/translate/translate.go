// Package translate turns Prometheus metric families into OpenTelemetry metric
// data.
//
// In comes one decoded page and the time it was scraped; out goes a [Result]:
// scopes of metricdata, what the page says of its resource, and a count of
// every sample kept and dropped. The output depends on the page and on the
// pages before it alone: no I/O, no clock of its own, no logging.
//
// What metricdata cannot say (prometheus.type, an unset histogram sum, a
// series that vanished) is written on the outgoing request by [Finish].
package translate

import (
	"context"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
)

// ScopeName is the instrumentation scope of every point whose labels name no
// other.
const ScopeName = "otelmetricsplugin/pkg/translate"

// Config configures a [Translator]. The zero value translates every family
// with cumulative temporality.
type Config struct {
	// Version is the version of the default instrumentation scope.
	Version string
	// Temporality selects the temporality of sums and histograms by the kind
	// of instrument they correspond to; nil is cumulative for all.
	Temporality sdkmetric.TemporalitySelector
	// Keep reports whether the family of that name is wanted; nil keeps all.
	Keep func(family string) bool
}

// Translator translates the successive pages of one target. It remembers of
// the last page what start times and deltas need, and no more. It is not safe
// for concurrent use.
type Translator struct {
	cfg Config
}

// New returns a Translator that has seen no page.
func New(cfg Config) *Translator { return &Translator{cfg: cfg} }

// Result is one translated page. It is valid until the next call on the
// Translator that returned it.
type Result struct {
	// Scopes holds the points, by instrumentation scope.
	Scopes []metricdata.ScopeMetrics
	// Resource is what the page says of the process that it came from.
	Resource []attribute.KeyValue
	// Samples is the number of samples on the page, counted as Prometheus
	// counts the lines of the text format: scrape_samples_scraped.
	Samples int
	// Kept is the number of those in families that Config.Keep wants:
	// scrape_samples_post_metric_relabeling.
	Kept int
	// Dropped counts the points that were not translated, by reason.
	Dropped map[string]int
}

// Translate translates one page that was scraped at the given time, which
// becomes the timestamp of every sample without one of its own.
func (t *Translator) Translate(families []*dto.MetricFamily, at time.Time) *Result {
	return &Result{}
}

// Missed tells the Translator that the scrape at the given time gave no page.
func (t *Translator) Missed(at time.Time) *Result {
	return &Result{}
}

// NewContext returns a context that carries what [Finish] needs to know of r.
func NewContext(ctx context.Context, r *Result) context.Context { return ctx }

// Finish writes on req what metricdata could not say of the Result that ctx
// carries. Without a Result it leaves req as it is.
func Finish(ctx context.Context, req *colmetricpb.ExportMetricsServiceRequest) {}
