package delivery

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Register observes the state of q with asynchronous instruments of m, once in
// the life of q. All names begin with "otelmetricsplugin.delivery.".
func (q *Queue) Register(m metric.Meter) error {
	var errs []error
	const prefix = "otelmetricsplugin.delivery."
	upDown := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		i, err := m.Int64ObservableUpDownCounter(prefix+name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return i
	}
	counter := func(name, unit, description string) metric.Int64ObservableCounter {
		i, err := m.Int64ObservableCounter(prefix+name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return i
	}
	gauge := func(name, unit, description string) metric.Float64ObservableGauge {
		i, err := m.Float64ObservableGauge(prefix+name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return i
	}
	requests := upDown("queue.requests", "{request}", "Requests that wait to be delivered.")
	points := upDown("queue.points", "{data_point}", "Data points in the requests that wait.")
	size := upDown("queue.size", "By", "Bytes that the waiting requests take, on the disk and in memory.")
	age := gauge("queue.oldest_age", "s", "Age of the oldest request that waits, 0 when none does.")
	deliveredRequests := counter("delivered.requests", "{request}", "Requests that the Collector accepted.")
	deliveredPoints := counter("delivered.points", "{data_point}", "Data points that the Collector accepted.")
	retries := counter("retries", "{attempt}", "Attempts that failed and are repeated.")
	dropped := counter("dropped.points", "{data_point}", "Data points that were dropped, by reason.")
	success := gauge("last_success", "s", "Time of the last accepted request, in seconds since 1970.")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delivery: make the instruments: %w", err)
	}

	where := func(v string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String("where", v)))
	}
	disk, memory := where("disk"), where("memory")
	byReason := map[string]metric.MeasurementOption{}
	for _, r := range reasons {
		byReason[r] = metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", r)))
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := q.Stats()
		o.ObserveInt64(requests, s.QueuedRequests)
		o.ObserveInt64(points, s.QueuedPoints)
		o.ObserveInt64(size, s.DiskBytes, disk)
		o.ObserveInt64(size, s.MemoryBytes, memory)
		o.ObserveFloat64(age, s.OldestAge.Seconds())
		o.ObserveInt64(deliveredRequests, s.DeliveredRequests)
		o.ObserveInt64(deliveredPoints, s.DeliveredPoints)
		o.ObserveInt64(retries, s.Retries)
		for reason, attrs := range byReason {
			o.ObserveInt64(dropped, s.Dropped[reason], attrs)
		}
		if !s.LastSuccess.IsZero() {
			o.ObserveFloat64(success, float64(s.LastSuccess.UnixMilli())/1e3)
		}
		return nil
	}, requests, points, size, age, deliveredRequests, deliveredPoints, retries, dropped, success)
	if err != nil {
		return fmt.Errorf("delivery: register the instruments: %w", err)
	}
	return nil
}
