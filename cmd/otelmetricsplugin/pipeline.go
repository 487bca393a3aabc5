package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
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

// ending bounds what the program still does once it was told to end. It is
// gone within five seconds; the engine kills a plugin after ten.
const ending = 4 * time.Second

// confine drops every privilege that the program does not need from here on.
// What cannot be dropped is no reason to collect nothing.
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

// newConfig wires settings to what a pipeline is made of. Close releases the
// scraper.
func newConfig(s *settings.Settings, logger *slog.Logger, send export.Send) (cfg lifecycle.Config, scraper *scrape.Scraper, err error) {
	v, _ := buildVersion()
	s.Scrape.UserAgent = "otelmetricsplugin/" + v
	scraper, err = scrape.New(s.Scrape)
	if err != nil {
		return lifecycle.Config{}, nil, err
	}
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
	}, scraper, nil
}

// defaultResource is what is known of the resource without a page. A plugin
// shares its host's name.
func defaultResource() []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("service.name", "dockerd")}
	if name, err := os.Hostname(); err == nil {
		attrs = append(attrs, attribute.String("host.name", name))
	}
	return attrs
}

// runPipeline collects and exports until ctx ends or, as the plugin, its socket
// is found stale. With a serve function it starts nothing by itself: serve
// does, and runs until ctx ends.
func runPipeline(ctx context.Context, s *settings.Settings, logger *slog.Logger, serve func(context.Context, *lifecycle.Manager) error) (err error) {
	v, _ := buildVersion()
	conn, err := export.Dial(s, "otelmetricsplugin/"+v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	queue, err := delivery.Open(delivery.Config{
		Conn: conn, Dir: s.SpoolDir, MaxBytes: s.SpoolMaxBytes, Timeout: s.Timeout, Logger: logger, Redact: conn.Redact,
	})
	if err != nil {
		return err
	}
	cfg, scraper, err := newConfig(s, logger, queue.Accept)
	if err != nil {
		return err
	}
	defer scraper.Close()
	cfg.Instruments = queue.Register
	if serve != nil {
		cfg.Spread = s.Interval
		cfg.Dial = scraper.Dial
	}
	manager := lifecycle.New(cfg)
	logger.Info("ready", "version", v, "endpoint", s.Endpoint.Target, "tls", s.Endpoint.TLS,
		"target", scraper.String(), "interval", s.Interval)

	if serve != nil {
		err = serve(ctx, manager)
	} else {
		manager.Start()
		<-ctx.Done()
	}

	end, cancel := context.WithTimeout(context.Background(), ending)
	defer cancel()
	if closeErr := manager.Close(end); closeErr != nil {
		logger.Warn("the pipeline did not end in time", "error", closeErr)
	}
	if closeErr := queue.Close(end); closeErr != nil {
		logger.Warn("the delivery ended with a loss", "error", closeErr)
	}
	return err
}

// runPlugin serves the plugin protocol until ctx ends.
func runPlugin(ctx context.Context, s *settings.Settings, logger *slog.Logger) error {
	return runPipeline(ctx, s, logger, func(ctx context.Context, manager *lifecycle.Manager) error {
		listener, err := lifecycle.Listen(s.PluginSocket)
		if err != nil {
			return err
		}
		server := lifecycle.NewServer(manager)
		server.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelWarn)
		server.BaseContext = func(net.Listener) context.Context { return ctx }
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()

		select {
		case err := <-served:
			return fmt.Errorf("plugin socket: %w", err)
		case <-manager.Stale():
			err = lifecycle.ErrStale
		case <-ctx.Done():
		}
		_ = server.Close() // nobody waits for an answer of a plugin that ends
		if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	})
}

// printOnce writes one request to w and sends nothing.
func printOnce(ctx context.Context, s *settings.Settings, logger *slog.Logger, w io.Writer) error {
	cfg, scraper, err := newConfig(s, logger, func(_ context.Context, req *colmetricpb.ExportMetricsServiceRequest) error {
		line, err := receive.AppendJSON(nil, req)
		if err == nil {
			_, err = w.Write(append(line, '\n'))
		}
		return err
	})
	if err != nil {
		return err
	}
	defer scraper.Close()
	return lifecycle.Once(ctx, cfg)
}
