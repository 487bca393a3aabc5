package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// Config configures a [Manager]. Scrape, Delivery and Interval are required.
type Config struct {
	// Scrape reads the target once and returns its exposition as delimited
	// protobuf, which may be reused at the next call. It returns when its
	// context ends, and limits its own duration. Calls do not overlap.
	Scrape func(context.Context) ([]byte, error)
	// Delivery takes the requests.
	Delivery Delivery
	// Interval is the time between two collections.
	Interval time.Duration
	// Spread is the time within which the first collection after a Start
	// happens, at random, so that a fleet does not collect in step; 0 collects
	// at once.
	Spread time.Duration
	// Keep reports whether a family is exported; nil keeps all.
	Keep func(family string) bool
	// Temporality selects the temporality of what is exported, the Manager's
	// own instruments included; nil is cumulative.
	Temporality sdkmetric.TemporalitySelector
	// Resource wins over what the exposition says of the resource, which wins
	// over Defaults.
	Resource, Defaults []attribute.KeyValue
	// Instruments adds asynchronous instruments of the caller's to those of the
	// Manager; nil adds none. It is called once.
	Instruments func(metric.Meter) error
	// Dial connects to the target and hangs up; with it the Manager notices
	// that the engine left it with a stale socket, see [ErrStale]. nil never
	// does.
	Dial func(context.Context) error
	// Now returns the time of a scrape; nil is time.Now. Durations are not
	// measured by it.
	Now func() time.Time
	// Version is the version of the instrumentation scopes.
	Version string
	// Logger receives one record for each change of state; nil is silent.
	Logger *slog.Logger
}

// Delivery takes encoded OTLP requests and does not keep its caller waiting.
type Delivery interface {
	// MaxRequest returns how many bytes a request should have at most.
	MaxRequest() int
	// Accept takes an encoded ExportMetricsServiceRequest with its number of
	// data points. The request is valid until Accept returns.
	Accept(request []byte, points int) error
}

// complete fills in the defaults. The error names every required field that is
// missing.
func (c *Config) complete() error {
	var missing []string
	if c.Scrape == nil {
		missing = append(missing, "Scrape")
	}
	if c.Delivery == nil {
		missing = append(missing, "Delivery")
	}
	if c.Interval <= 0 {
		missing = append(missing, "a positive Interval")
	}
	if len(missing) > 0 {
		return errors.New("lifecycle: the Config lacks " + strings.Join(missing, ", "))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}
