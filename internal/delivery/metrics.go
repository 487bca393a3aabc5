package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Why data points are dropped: the values of the attribute "reason".
const (
	DroppedQueueFull      = "queue_full"      // the oldest, for want of space
	DroppedRejected       = "rejected"        // the Collector's answer was final
	DroppedPartialSuccess = "partial_success" // the Collector took the rest of the request
	DroppedTooLarge       = "too_large"       // one data point alone exceeds MaxMessage or what the Collector takes
	DroppedInvalid        = "invalid"         // cannot be serialised: text that is not UTF-8
	DroppedDamaged        = "damaged"         // the spool's file could not be read back
	DroppedShutdown       = "shutdown"        // waited in memory at the end
)

var reasons = []string{DroppedQueueFull, DroppedRejected, DroppedPartialSuccess, DroppedTooLarge, DroppedInvalid, DroppedDamaged, DroppedShutdown}

// Stats is the state of a [Queue] at one moment, counted since [Open].
type Stats struct {
	QueuedRequests int64
	QueuedPoints   int64
	DiskBytes      int64         // what the spool takes on the disk, damaged files included
	MemoryBytes    int64         // of requests that wait in memory
	OldestAge      time.Duration // of what waits; 0 when nothing does

	DeliveredRequests int64
	DeliveredPoints   int64            // without those that a partial success refused
	Retries           int64            // attempts that failed and were, or will be, repeated
	Dropped           map[string]int64 // data points by reason
	LastSuccess       time.Time        // zero before the first
}

// Stats returns the present state.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.count
	s.Dropped = maps.Clone(q.count.Dropped)
	s.QueuedRequests = int64(len(q.items))
	s.QueuedPoints = q.points
	s.MemoryBytes = q.memory
	if q.spool != nil {
		s.DiskBytes = q.spool.used
	}
	if len(q.items) > 0 {
		s.OldestAge = max(0, time.Since(q.items[0].at))
	}
	return s
}

// Register observes the state of q with asynchronous instruments of m, until
// Close or the next Register, whose meter takes the place of m. All names begin
// with "otelmetricsplugin.delivery.". The instruments of a meter start to count
// where those of the meter before were last observed for a request that was
// accepted: theirs is the start time of what follows, and nothing is counted
// twice, or not at all because a last collection was thrown away.
func (q *Queue) Register(m metric.Meter) error {
	if err := q.unregister(context.Background()); err != nil {
		return err
	}
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
	q.mu.Lock()
	base := q.told
	q.observed = base
	q.mu.Unlock()
	r, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := q.Stats()
		q.mu.Lock()
		q.observed = s
		q.mu.Unlock()
		o.ObserveInt64(requests, s.QueuedRequests)
		o.ObserveInt64(points, s.QueuedPoints)
		o.ObserveInt64(size, s.DiskBytes, disk)
		o.ObserveInt64(size, s.MemoryBytes, memory)
		o.ObserveFloat64(age, s.OldestAge.Seconds())
		o.ObserveInt64(deliveredRequests, s.DeliveredRequests-base.DeliveredRequests)
		o.ObserveInt64(deliveredPoints, s.DeliveredPoints-base.DeliveredPoints)
		o.ObserveInt64(retries, s.Retries-base.Retries)
		for reason, attrs := range byReason {
			o.ObserveInt64(dropped, s.Dropped[reason]-base.Dropped[reason], attrs)
		}
		if !s.LastSuccess.IsZero() {
			o.ObserveFloat64(success, float64(s.LastSuccess.UnixMilli())/1e3)
		}
		return nil
	}, requests, points, size, age, deliveredRequests, deliveredPoints, retries, dropped, success)
	if err != nil {
		return fmt.Errorf("delivery: register the instruments: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.registered = r
	return nil
}

// unregister ends what the last Register began. It waits for a collection that
// is running, and for callbacks of others in it, until ctx ends: what it is told
// then is told by a queue that does nothing any more.
func (q *Queue) unregister(ctx context.Context) error {
	q.mu.Lock()
	r := q.registered
	q.registered = nil
	q.mu.Unlock()
	if r == nil {
		return nil
	}
	// Without the lock: a collection asks for Stats.
	ended := make(chan error, 1)
	go func() { ended <- r.Unregister() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}
