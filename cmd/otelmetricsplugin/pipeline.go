package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/internal/collector"
	"otelmetricsplugin/internal/delivery"
	"otelmetricsplugin/internal/otlp"
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
	conn    *collector.Conn
	queue   *delivery.Queue
	manager *lifecycle.Manager
	logger  *slog.Logger
}

// newPipeline wires settings to a pipeline, which starts nothing by itself. As
// the plugin it spreads its scrapes over the interval, and finds out whether its
// socket is stale. The caller closes it.
func newPipeline(s *settings.Settings, logger *slog.Logger, plugin bool) (p *pipeline, err error) {
	p = &pipeline{logger: logger}
	built := p // a return with an error sets p
	defer func() {
		if err != nil {
			err = errors.Join(err, built.close())
		}
	}()
	if p.scraper, err = newScraper(s); err != nil {
		return nil, err
	}
	if p.conn, err = collector.Dial(s, userAgent()); err != nil {
		return nil, err
	}
	spool := s.SpoolDir
	if spool != "" {
		spool = filepath.Join(spool, spoolName)
	}
	p.queue, err = delivery.Open(delivery.Config{
		Conn: p.conn, Compression: s.Compression, Dir: spool, MaxBytes: s.SpoolMaxBytes, Timeout: s.Timeout,
		Logger: logger, Redact: p.conn.Redact,
	})
	if err != nil {
		return nil, err
	}
	cfg := newConfig(s, p.scraper, p.queue)
	cfg.Logger = logger
	cfg.Instruments = p.queue.Register
	if plugin {
		cfg.Spread = s.Interval
		cfg.Dial = p.scraper.Dial
	}
	if p.manager, err = lifecycle.New(cfg); err != nil {
		return nil, err
	}
	v, commit := buildVersion()
	logger.Info("ready", "version", v, "commit", commit, "endpoint", s.Endpoint.Target, "tls", s.Endpoint.TLS,
		"target", p.scraper.String(), "interval", s.Interval.String())
	return p, nil
}

// close collects once more, delivers what it can in the time that there is, and
// keeps the rest.
func (p *pipeline) close() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if p.manager != nil {
		collectCtx, cancelCollect := context.WithTimeout(ctx, collectTimeout)
		defer cancelCollect()
		if err := p.manager.Close(collectCtx); err != nil {
			p.logger.Warn("the pipeline did not end in time", "error", err)
		}
	}
	if p.queue != nil {
		if err := p.queue.Close(ctx); err != nil {
			p.logger.Warn("the delivery ended with a loss", "error", err)
		}
	}
	if p.conn != nil {
		err = p.conn.Close()
	}
	if p.scraper != nil {
		p.scraper.Close()
	}
	return err
}

// collectOnce scrapes once and returns as OTLP JSON what would be exported.
func collectOnce(ctx context.Context, s *settings.Settings) (line []byte, err error) {
	scraper, err := newScraper(s)
	if err != nil {
		return nil, err
	}
	defer scraper.Close()
	printer := &printer{}
	err = lifecycle.Once(ctx, newConfig(s, scraper, printer))
	return printer.line, err
}

// printer is a [lifecycle.Delivery] to a line of OTLP JSON.
type printer struct{ line []byte }

// MaxRequest leaves the request in one part.
func (p *printer) MaxRequest() int { return math.MaxInt }

// Accept appends the request to the line.
func (p *printer) Accept(request []byte, _ int) error {
	var message colmetricpb.ExportMetricsServiceRequest
	err := proto.Unmarshal(request, &message)
	if err == nil {
		p.line, err = otlp.AppendJSON(p.line, &message)
	}
	return err
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

func newConfig(s *settings.Settings, scraper *scrape.Scraper, delivery lifecycle.Delivery) lifecycle.Config {
	v, _ := buildVersion()
	memory := &footprint{release: releaseMemory}
	return lifecycle.Config{
		Scrape: func(ctx context.Context) ([]byte, error) {
			exposition, err := scraper.Scrape(ctx)
			if err == nil {
				memory.saw(len(exposition))
			}
			return exposition, nameSetting(err)
		},
		Delivery:    delivery,
		Interval:    s.Interval,
		Keep:        s.Keep,
		Temporality: s.Temporality,
		Defaults:    defaultResource(),
		Resource:    s.Resource,
		Version:     v,
	}
}

// limitSettings are the settings that raise a limit.
var limitSettings = map[scrape.Limit]string{
	scrape.LimitTime:       "SCRAPE_TIMEOUT",
	scrape.LimitBytes:      "SCRAPE_MAX_BYTES",
	scrape.LimitSamples:    "SCRAPE_MAX_SAMPLES",
	scrape.LimitLabelBytes: "SCRAPE_MAX_LABEL_BYTES",
}

// nameSetting adds to the error of a limit the setting that raises it.
func nameSetting(err error) error {
	if limit, ok := errors.AsType[*scrape.LimitError](err); ok {
		if setting, ok := limitSettings[limit.Limit]; ok {
			return fmt.Errorf("%w; %s raises the limit", err, setting)
		}
	}
	return err
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
