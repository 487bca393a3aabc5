package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"otelmetricsplugin/pkg/translate"
)

// ScopeName is the instrumentation scope of what the pipeline measures itself.
const ScopeName = "otelmetricsplugin"

// Config is what a pipeline is made of.
type Config struct {
	// Scrape reads the page once; it bounds itself in time.
	Scrape func(context.Context) ([]*dto.MetricFamily, error)
	// Exporter makes the exporter of one pipeline, which shuts it down. Its
	// exports bound themselves in time.
	Exporter func(context.Context) (sdkmetric.Exporter, error)
	// Interval is the time between two collections.
	Interval time.Duration
	// Spread is the time within which the first collection falls, at random,
	// so that a fleet does not march in step; 0 collects at once.
	Spread time.Duration
	// Keep reports whether a family is exported; nil keeps all.
	Keep func(family string) bool
	// Resource wins over what the page says of the resource, which wins over
	// Defaults.
	Resource, Defaults []attribute.KeyValue
	// Instruments adds asynchronous instruments of the caller's to each
	// pipeline's meter; nil adds none.
	Instruments func(metric.Meter) error
	// Dial connects to the target and hangs up; with it the [Manager] finds
	// out that the engine left the plugin with a stale socket. nil never does.
	Dial func(context.Context) error
	// Now tells the time of a scrape; nil is time.Now. Durations are not
	// measured by it.
	Now func() time.Time
	// Version is the version of the scopes.
	Version string
	// Logger is told of each change of state; nil is silent.
	Logger *slog.Logger
}

// lastScrape bounds the scrape of a pipeline that ends: what is left of the
// five seconds belongs to the delivery.
const lastScrape = 2 * time.Second

// pipeline is one MeterProvider and what hangs on its reader: the asynchronous
// instruments, whose callback scrapes the page and translates it, and the
// Producer, which hands over the families of that very page. A reader runs
// callbacks first and producers second, in one goroutine, so one scrape serves
// both.
type pipeline struct {
	cfg        Config
	translator *translate.Translator
	provider   *sdkmetric.MeterProvider
	reader     sdkmetric.Reader

	up, duration, samples, kept metric.Float64Observable
	dropped                     metric.Int64ObservableCounter

	stopping <-chan struct{} // closed: a scrape under way is cut off, and only the last one is made
	scraped  chan<- struct{} // closed when the last page has been read

	// Of the last collection; a reader's collections never overlap.
	result   *translate.Result
	err      error
	resource *resource.Resource
	lost     map[string]int64 // dropped points since the start, by reason
	dropping bool             // whether any were dropped in it
	state    state
}

// state is how the last scrape went.
type state int

const (
	unknown state = iota // there was none
	succeeding
	failing
)

// lastCollection in a context makes the collection the last one.
type lastCollection struct{}

// errStopped is why a scrape that was under way at Stop is cut off.
var errStopped = errors.New("cut off by the end of the pipeline")

// newPipeline builds a pipeline whose reader is made by newReader from the
// pipeline's exporter and Producer. It goes on where the translator ended; nil
// begins anew.
func newPipeline(ctx context.Context, cfg Config, translator *translate.Translator, stopping <-chan struct{}, scraped chan<- struct{}, newReader func(sdkmetric.Exporter, sdkmetric.Producer) sdkmetric.Reader) (*pipeline, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	exporter, err := cfg.Exporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("exporter: %w", err)
	}
	if translator == nil {
		translator = translate.New(translate.Config{Version: cfg.Version, Temporality: exporter.Temporality, Keep: cfg.Keep})
	}
	p := &pipeline{
		cfg:        cfg,
		translator: translator,
		stopping:   stopping,
		scraped:    scraped,
		result:     &translate.Result{},
		lost:       map[string]int64{},
	}
	p.describe(nil)
	p.reader = newReader(&describing{exporter, p}, p)
	p.provider = sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(p.reader),
		sdkmetric.WithResource(resource.Empty()), // put in at the export, by describing
	)
	if err := p.instrument(); err != nil {
		return nil, errors.Join(err, p.provider.Shutdown(ctx))
	}
	return p, nil
}

// instrument creates the asynchronous instruments. The first four have the
// names, units and descriptions that the Collector's prometheusreceiver gives
// them.
func (p *pipeline) instrument() error {
	meter := p.provider.Meter(ScopeName, metric.WithInstrumentationVersion(p.cfg.Version))
	var errs []error
	gauge := func(name, unit, description string) metric.Float64Observable {
		g, err := meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}
	p.up = gauge("up", "", "The scraping was successful")
	p.duration = gauge("scrape_duration_seconds", "s", "Duration of the scrape")
	p.samples = gauge("scrape_samples_scraped", "", "The number of samples the target exposed")
	p.kept = gauge("scrape_samples_post_metric_relabeling", "", "The number of samples remaining after metric relabeling was applied")
	dropped, err := meter.Int64ObservableCounter("otelmetricsplugin.translate.dropped",
		metric.WithUnit("{data_point}"), metric.WithDescription("Points of the page that were not translated, by reason"))
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("instruments: %w", err)
	}
	p.dropped = dropped
	if _, err := meter.RegisterCallback(p.observe, p.up, p.duration, p.samples, p.kept, p.dropped); err != nil {
		return fmt.Errorf("instruments: %w", err)
	}
	if p.cfg.Instruments != nil {
		return p.cfg.Instruments(meter)
	}
	return nil
}

// observe is the callback of the instruments: it scrapes the page, translates
// it and observes how that went. A failed scrape is no error, which would throw
// the collection away, but data: up is 0.
//
// A collection that Stop cuts off has neither families nor up. It is exported
// all the same: its other instruments have moved on, and what they were given
// would be missing from their sums.
func (p *pipeline) observe(ctx context.Context, o metric.Observer) error {
	at, start := p.cfg.Now(), time.Now()
	families, err := p.scrape(ctx)
	duration := time.Since(start)

	p.err = err
	if errors.Is(err, errStopped) {
		p.result = &translate.Result{}
		p.observeLost(o)
		return nil
	}
	up := 1.0
	if err != nil {
		up = 0
		p.result = p.translator.Missed(at)
	} else {
		p.result = p.translator.Translate(families, at)
		p.describe(p.result.Resource)
	}
	p.report(err)
	p.count(p.result.Dropped)

	o.ObserveFloat64(p.up, up)
	o.ObserveFloat64(p.duration, duration.Seconds())
	o.ObserveFloat64(p.samples, float64(p.result.Samples))
	o.ObserveFloat64(p.kept, float64(p.result.Kept))
	p.observeLost(o)
	return nil
}

func (p *pipeline) observeLost(o metric.Observer) {
	for reason, n := range p.lost {
		o.ObserveInt64(p.dropped, n, metric.WithAttributes(attribute.String("reason", reason)))
	}
}

// scrape reads the page once. The error is errStopped where Stop, and not the
// page, is to blame that there is none.
func (p *pipeline) scrape(ctx context.Context) ([]*dto.MetricFamily, error) {
	if ctx.Value(lastCollection{}) != nil {
		defer close(p.scraped)
		ctx, cancel := context.WithTimeout(ctx, lastScrape)
		defer cancel()
		return p.cfg.Scrape(ctx)
	}
	if isClosed(p.stopping) {
		return nil, errStopped
	}
	// A page that hangs must not keep the last one waiting.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	families, err := p.cfg.Scrape(ctx)
	if errors.Is(err, context.Canceled) && isClosed(p.stopping) {
		err = errStopped
	}
	return families, err
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// report logs the first scrape and each change from success to failure and
// back.
func (p *pipeline) report(err error) {
	before := p.state
	p.state = succeeding
	if err != nil {
		p.state = failing
	}
	switch {
	case p.state == before:
	case p.state == failing:
		p.cfg.Logger.Warn("the scrape failed; up is 0 until one succeeds", "error", err)
	case before == unknown:
		p.cfg.Logger.Info("the first page was read", "samples", p.result.Samples, "kept", p.result.Kept)
	default:
		p.cfg.Logger.Info("the scrape succeeds again", "samples", p.result.Samples, "kept", p.result.Kept)
	}
	if p.state == succeeding && p.state != before && p.result.Kept == 0 && p.result.Samples > 0 {
		p.cfg.Logger.Warn("METRICS_INCLUDE and METRICS_EXCLUDE leave nothing of the page", "remedy", "they match whole names, as engine_daemon_.*")
	}
}

// count adds up the points that were dropped, and logs when dropping starts and
// when it ends.
func (p *pipeline) count(dropped map[string]int) {
	var faults []any
	for _, reason := range slices.Sorted(maps.Keys(dropped)) {
		p.lost[reason] += int64(dropped[reason])
		if reason != translate.DropBaseline { // the first page of deltas: nothing is wrong
			faults = append(faults, reason, dropped[reason])
		}
	}
	switch {
	case len(faults) > 0 && !p.dropping:
		p.cfg.Logger.Warn("points of the page are dropped", slog.Group("points", faults...))
	case len(faults) == 0 && p.dropping && p.state == succeeding:
		p.cfg.Logger.Info("no points of the page are dropped any more")
	default:
		return
	}
	p.dropping = len(faults) > 0
}

// Produce returns the families of the page that observe just read.
func (p *pipeline) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	return p.result.Scopes, nil
}

// describe builds the resource anew if the page says anything of it: at the
// engine's boot it comes late, after an upgrade it is another.
func (p *pipeline) describe(page []attribute.KeyValue) {
	if p.resource != nil && len(page) == 0 {
		return // a page that does not say keeps what is known
	}
	// Of equal keys NewSchemaless keeps the last.
	p.resource = resource.NewSchemaless(slices.Concat(p.cfg.Defaults, page, p.cfg.Resource)...)
}

// describing is the pipeline's exporter: it puts in the resource, which a
// MeterProvider cannot change once it is made, and passes on what only the
// finished request can say.
type describing struct {
	sdkmetric.Exporter
	pipeline *pipeline
}

func (d *describing) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	if len(rm.ScopeMetrics) == 0 {
		return nil
	}
	described := metricdata.ResourceMetrics{Resource: d.pipeline.resource, ScopeMetrics: rm.ScopeMetrics}
	// What was collected is exported also when the reader's time is over: with
	// delta temporality it is nowhere else.
	ctx = translate.NewContext(context.WithoutCancel(ctx), d.pipeline.result)
	return d.Exporter.Export(ctx, &described)
}

// Once collects once, exports once and returns the error of either, a failed
// scrape included.
func Once(ctx context.Context, cfg Config) error {
	var exporter sdkmetric.Exporter
	p, err := newPipeline(ctx, cfg, nil, nil, nil, func(e sdkmetric.Exporter, producer sdkmetric.Producer) sdkmetric.Reader {
		exporter = e
		return sdkmetric.NewManualReader(sdkmetric.WithProducer(producer), sdkmetric.WithTemporalitySelector(e.Temporality))
	})
	if err != nil {
		return err
	}
	var rm metricdata.ResourceMetrics
	err = p.reader.Collect(ctx, &rm)
	if err == nil {
		err = p.err
	}
	if err == nil {
		err = exporter.Export(ctx, &rm)
	}
	return errors.Join(err, p.provider.Shutdown(ctx), exporter.Shutdown(ctx))
}
