package lifecycle

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"otelmetricsplugin/pkg/translate"
)

// instruments are the asynchronous instruments of a cycle. Their callback only
// reads what the cycle has just learned.
type instruments struct {
	up, duration, samples, kept float64
	dropped                     map[string]*dropCount // by reason
}

// dropCount is the number of points that were dropped for one reason.
type dropCount struct {
	points int64
	reason []metric.ObserveOption
}

// newInstruments creates the instruments, and those of more, which may be nil.
// The first four have the names, units and descriptions that the Collector's
// prometheusreceiver gives them.
func newInstruments(meter metric.Meter, more func(metric.Meter) error) (*instruments, error) {
	var errs []error
	gauge := func(name, unit, description string) metric.Float64Observable {
		g, err := meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}
	up := gauge("up", "", "The scraping was successful")
	duration := gauge("scrape_duration_seconds", "s", "Duration of the scrape")
	samples := gauge("scrape_samples_scraped", "", "The number of samples the target exposed")
	kept := gauge("scrape_samples_post_metric_relabeling", "", "The number of samples remaining after metric relabeling was applied")
	dropped, err := meter.Int64ObservableCounter("otelmetricsplugin.translate.dropped",
		metric.WithUnit("{data_point}"), metric.WithDescription("Points of the page that were not translated, by reason"))
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}

	i := &instruments{dropped: map[string]*dropCount{}}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveFloat64(up, i.up)
		o.ObserveFloat64(duration, i.duration)
		o.ObserveFloat64(samples, i.samples)
		o.ObserveFloat64(kept, i.kept)
		for _, d := range i.dropped {
			o.ObserveInt64(dropped, d.points, d.reason...)
		}
		return nil
	}, up, duration, samples, kept, dropped)
	if err == nil && more != nil {
		err = more(meter)
	}
	return i, err
}

// observe notes how a scrape and its translation went.
func (i *instruments) observe(failure error, duration time.Duration, result translate.Result) {
	i.up = 1
	if failure != nil {
		i.up = 0
	}
	i.duration = duration.Seconds()
	i.samples, i.kept = float64(result.Samples), float64(result.Kept)
	for reason, points := range result.Dropped {
		d := i.dropped[reason]
		if d == nil {
			attributes := metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", reason)))
			d = &dropCount{reason: []metric.ObserveOption{attributes}}
			i.dropped[reason] = d
		}
		d.points += int64(points)
	}
}
