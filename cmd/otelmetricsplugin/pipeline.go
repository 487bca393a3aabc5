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

// ending bounds what the program still does once it was told to end, and
// collecting the part of it that is not the delivery's. It is gone within five
// seconds; the engine kills a plugin after ten.
const (
	ending     = 4 * time.Second
	collecting = 3 * time.Second
)

// spoolName is the delivery's own directory within SPOOL_DIR, which in a plugin
// also holds what the user puts there: certificates, a file of headers.
const spoolName = "spool"

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

// newScraper returns the scraper of the settings' page, which the caller closes.
func newScraper(s *settings.Settings) (*scrape.Scraper, error) {
	cfg := s.Scrape
	cfg.UserAgent = userAgent()
	return scrape.New(cfg)
}

func userAgent() string {
	v, _ := buildVersion()
	return "otelmetricsplugin/" + v
}

// newConfig wires settings to what a pipeline is made of.
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
	scraper, err := newScraper(s)
	if err != nil {
		return err
	}
	defer scraper.Close()
	conn, err := export.Dial(s, userAgent())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	spool := s.SpoolDir
	if spool != "" {
		spool = filepath.Join(spool, spoolName)
	}
	queue, err := delivery.Open(delivery.Config{
		Conn: conn, Dir: spool, MaxBytes: s.SpoolMaxBytes, Timeout: s.Timeout, Logger: logger, Redact: conn.Redact,
	})
	if err != nil {
		return err
	}
	cfg := newConfig(s, scraper, logger, queue.Accept)
	cfg.Instruments = queue.Register
	if serve != nil {
		cfg.Spread = s.Interval
		cfg.Dial = scraper.Dial
	}
	manager := lifecycle.New(cfg)
	v, commit := buildVersion()
	logger.Info("ready", "version", v, "commit", commit, "endpoint", s.Endpoint.Target, "tls", s.Endpoint.TLS,
		"target", scraper.String(), "interval", s.Interval.String())

	if serve != nil {
		err = serve(ctx, manager)
	} else {
		manager.Start()
		<-ctx.Done()
	}

	end, cancel := context.WithTimeout(context.Background(), ending)
	defer cancel()
	endCollecting, cancelCollecting := context.WithTimeout(end, collecting)
	defer cancelCollecting()
	if closeErr := manager.Close(endCollecting); closeErr != nil {
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

// printOnce writes one request to w and sends nothing. It is cumulative whatever
// the settings say: one page alone has no deltas.
func printOnce(ctx context.Context, s *settings.Settings, w io.Writer) error {
	scraper, err := newScraper(s)
	if err != nil {
		return err
	}
	defer scraper.Close()
	s.Temporality = sdkmetric.CumulativeTemporalitySelector
	err = lifecycle.Once(ctx, newConfig(s, scraper, nil, func(_ context.Context, req *colmetricpb.ExportMetricsServiceRequest) error {
		line, err := receive.AppendJSON(nil, req)
		if err == nil {
			_, err = w.Write(append(line, '\n'))
		}
		return err
	}))
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w; run it as root", err)
	}
	return err
}
