package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"

	"otelmetricsplugin/internal/delivery"
	"otelmetricsplugin/internal/export"
	"otelmetricsplugin/internal/receive"
	"otelmetricsplugin/internal/sandbox"
	"otelmetricsplugin/internal/settings"
	"otelmetricsplugin/pkg/lifecycle"
	"otelmetricsplugin/pkg/scrape"
)

// How long the program takes to end at most, and the part of that for the last
// collection. It is gone within five seconds; the engine kills a plugin after ten.
const (
	stopTimeout    = 4 * time.Second
	collectTimeout = 3 * time.Second
)

// spoolName is the delivery's own directory within SPOOL_DIR, which in a plugin
// also has what the user puts there: certificates, a file of headers.
const spoolName = "spool"

// confine drops every privilege that the program does not need from here on. It
// collects with those that it could not drop, too.
func confine(s *settings.Settings, logger *slog.Logger, socket string) {
	report, err := sandbox.Enter(sandbox.Paths{
		Spool:  s.SpoolDir,
		Socket: socket,
		Read:   []string{s.TLS.CA, s.TLS.Certificate, s.TLS.Key, s.HeadersFile},
	})
	if err != nil {
		logger.Warn("privileges that are not needed could not be dropped", "error", err)
	}
	logger.Info("confined", "sandbox", report)
}

// pipeline is everything from the scrape to the Collector.
type pipeline struct {
	scraper *scrape.Scraper
	conn    *export.Conn
	queue   *delivery.Queue
	manager *lifecycle.Manager
	logger  *slog.Logger
}

// newPipeline wires settings to a pipeline, which starts nothing by itself. As
// the plugin it spreads its scrapes over the interval, and finds out whether its
// socket is stale. The caller closes it.
func newPipeline(s *settings.Settings, logger *slog.Logger, plugin bool) (*pipeline, error) {
	scraper, err := newScraper(s)
	if err != nil {
		return nil, err
	}
	conn, err := export.Dial(s, userAgent())
	if err != nil {
		scraper.Close()
		return nil, err
	}
	spool := s.SpoolDir
	if spool != "" {
		spool = filepath.Join(spool, spoolName)
	}
	queue, err := delivery.Open(delivery.Config{
		Conn: conn, Dir: spool, MaxBytes: s.SpoolMaxBytes, Timeout: s.Timeout, Logger: logger, Redact: conn.Redact,
	})
	if err != nil {
		scraper.Close()
		return nil, errors.Join(err, conn.Close())
	}
	cfg := newConfig(s, scraper, logger, queue.Accept)
	cfg.Instruments = queue.Register
	if plugin {
		cfg.Spread = s.Interval
		cfg.Dial = scraper.Dial
	}
	v, commit := buildVersion()
	logger.Info("ready", "version", v, "commit", commit, "endpoint", s.Endpoint.Target, "tls", s.Endpoint.TLS,
		"target", scraper.String(), "interval", s.Interval.String())
	return &pipeline{scraper, conn, queue, lifecycle.New(cfg), logger}, nil
}

// close collects once more, delivers what it can in the time that there is, and
// keeps the rest.
func (p *pipeline) close() error {
	defer p.scraper.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	collectCtx, cancelCollect := context.WithTimeout(ctx, collectTimeout)
	defer cancelCollect()
	if err := p.manager.Close(collectCtx); err != nil {
		p.logger.Warn("the pipeline did not end in time", "error", err)
	}
	if err := p.queue.Close(ctx); err != nil {
		p.logger.Warn("the delivery ended with a loss", "error", err)
	}
	return p.conn.Close()
}

// collectOnce scrapes once and returns as OTLP JSON what would be exported.
func collectOnce(ctx context.Context, s *settings.Settings) (line []byte, err error) {
	scraper, err := newScraper(s)
	if err != nil {
		return nil, err
	}
	defer scraper.Close()
	err = lifecycle.Once(ctx, newConfig(s, scraper, nil, func(_ context.Context, req *colmetricpb.ExportMetricsServiceRequest) error {
		var err error
		line, err = receive.AppendJSON(line, req)
		return err
	}))
	return line, err
}

func newScraper(s *settings.Settings) (*scrape.Scraper, error) {
	cfg := s.Scrape
	cfg.UserAgent = userAgent()
	return scrape.New(cfg)
}

func userAgent() string {
	v, _ := buildVersion()
	return "otelmetricsplugin/" + v
}

func newConfig(s *settings.Settings, scraper *scrape.Scraper, logger *slog.Logger, send export.Send) lifecycle.Config {
	v, _ := buildVersion()
	return lifecycle.Config{
		Scrape: scraper.Scrape,
		Exporter: func(ctx context.Context) (sdkmetric.Exporter, error) {
			return export.New(ctx, send, s.Temporality)
		},
		Interval: s.Interval,
		Keep:     s.Keep,
		Defaults: defaultResource(),
		Resource: s.Resource,
		Version:  v,
		Logger:   logger,
	}
}

// defaultResource is what is known of the resource without a scrape. A plugin
// shares its host's name.
func defaultResource() []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("service.name", "dockerd")}
	if name, err := os.Hostname(); err == nil {
		attrs = append(attrs, attribute.String("host.name", name))
	}
	return attrs
}
