package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"otelmetricsplugin/internal/otlp"
	"otelmetricsplugin/pkg/translate"
)

// cycle is what happens at every interval, and what is kept from one to the
// next. Its methods are called by one goroutine at a time.
type cycle struct {
	cfg         Config
	translator  *translate.Translator
	writer      *otlp.Writer
	instruments *instruments
	exporter    *exporter
	reporter    reporter
}

func newCycle(cfg Config) (*cycle, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	exporter, err := newExporter(cfg.Temporality)
	if err != nil {
		return nil, fmt.Errorf("lifecycle: exporter: %w", err)
	}
	instruments, err := newInstruments(exporter.meter(cfg.Version), cfg.Instruments)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lifecycle: instruments: %w", err), exporter.close())
	}
	return &cycle{
		cfg: cfg,
		translator: translate.New(translate.Config{
			Version: cfg.Version, Temporality: cfg.Temporality, Keep: cfg.Keep, Resource: cfg.Resource, Defaults: cfg.Defaults,
		}),
		writer:      otlp.NewWriter(0, nil),
		instruments: instruments,
		exporter:    exporter,
		reporter:    reporter{logger: cfg.Logger},
	}, nil
}

// abandonedError is the error of a scrape whose cycle ends with it: nothing is
// observed, collected or accepted.
type abandonedError struct{ error }

func (e abandonedError) Unwrap() error { return e.error }

func isAbandoned(err error) bool {
	_, ok := errors.AsType[abandonedError](err)
	return ok
}

// run runs one cycle: scrape, translate, observe, collect, accept. A failed
// scrape is not an error but data: up is 0, and each series gets a staleness
// marker.
func (c *cycle) run(scrape func() ([]byte, error)) error {
	at, start := c.cfg.Now(), time.Now()
	exposition, failure := scrape()
	duration := time.Since(start)
	if isAbandoned(failure) {
		return failure
	}

	var refused error
	c.writer.Reset(c.cfg.Delivery.MaxRequest(), func(part []byte, points int) {
		if err := c.cfg.Delivery.Accept(part, points); err != nil {
			refused = err
		}
	})
	var result translate.Result
	if failure == nil {
		result = c.translator.Translate(exposition, at, c.writer)
	} else {
		result = c.translator.Missed(at, c.writer)
	}

	c.instruments.observe(failure, duration, result)
	c.reporter.report(failure, result)

	own, err := c.exporter.collect()
	err = errors.Join(err, c.writer.Append(own))
	c.writer.Close()
	return errors.Join(err, refused)
}

// close releases what the cycle holds. No run follows.
func (c *cycle) close() error { return c.exporter.close() }

// Once collects once, and returns the error of the scrape, in which case
// nothing is delivered, or of the delivery. Interval, Spread and Dial have no
// meaning here.
func Once(ctx context.Context, cfg Config) error {
	cfg.Interval = time.Hour
	c, err := newCycle(cfg)
	if err != nil {
		return err
	}
	err = c.run(func() ([]byte, error) {
		exposition, err := cfg.Scrape(ctx)
		if err != nil {
			return nil, abandonedError{err}
		}
		return exposition, nil
	})
	return errors.Join(err, c.close())
}
