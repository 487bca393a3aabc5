// Package translate turns Prometheus expositions into OpenTelemetry metrics, in
// one pass from the bytes of delimited protobuf to the bytes of OTLP requests.
//
// It is pure: no I/O, no clock, no logging. It accepts any bytes, and counts
// what it cannot translate. The rules are those of the OpenTelemetry
// specification, compatibility/prometheus_and_openmetrics.md; docs/translation.md
// lists them by number.
package translate

import (
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"otelmetricsplugin/internal/otlp"
)

// ScopeName is the instrumentation scope of every point whose labels name no
// other.
const ScopeName = "otelmetricsplugin/pkg/translate"

// Config configures a [Translator]. The zero value translates every family
// with cumulative temporality, under the resource that the exposition names.
type Config struct {
	// Version is the version of the default instrumentation scope.
	Version string
	// Temporality selects the temporality of counters and histograms; nil is
	// cumulative for both. An exposition is read at collection, so a counter is
	// asked for as an observable counter; a histogram, of which there is no
	// observable kind, as a histogram.
	Temporality sdkmetric.TemporalitySelector
	// Keep reports whether the family of that name is wanted; nil keeps all.
	Keep func(family string) bool
	// Resource wins over what the exposition says of the resource, which wins
	// over Defaults.
	Resource, Defaults []attribute.KeyValue
}

// Result is what became of one exposition.
type Result struct {
	// Samples is the number of samples of the exposition, counted as Prometheus
	// counts the lines of the text format: scrape_samples_scraped.
	Samples int
	// Kept is the number of those in families that Config.Keep wants:
	// scrape_samples_post_metric_relabeling.
	Kept int
	// Dropped counts the points that were not translated, by reason: one of
	// the Drop constants. It is nil if there were none.
	Dropped map[string]int
}

// Translator translates the successive expositions of one target.
type Translator struct{ cfg Config }

// New returns a Translator that has seen no exposition.
func New(cfg Config) *Translator { return &Translator{cfg: cfg} }

// Translate translates one exposition.
func (t *Translator) Translate(exposition []byte, at time.Time, w *otlp.Writer) Result {
	return Result{}
}

// Missed is called in place of Translate.
func (t *Translator) Missed(at time.Time, w *otlp.Writer) Result { return Result{} }
