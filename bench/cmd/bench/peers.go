//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"otelmetricsplugin/bench/internal/page"
	"otelmetricsplugin/bench/internal/proc"
	"otelmetricsplugin/bench/internal/sink"
)

// station is a page and receivers for one program at a time.
type station struct {
	dir    string
	server *page.Server
	strict *sink.OTLP // takes requests of 4 MiB, the default
	lax    *sink.OTLP // takes requests of any size
	write  *sink.RemoteWrite
}

// anySize is the limit of a receiver that takes a whole page in one request.
const anySize = 1<<31 - 1

func newStation(ctx context.Context, dir string, observe func([]byte) error) (s *station, err error) {
	s = &station{}
	if s.dir, err = os.MkdirTemp(dir, ""); err != nil {
		return nil, err
	}
	if s.server, err = page.Serve(ctx, filepath.Join(s.dir, "page")); err != nil {
		return nil, err
	}
	if s.strict, err = sink.NewOTLP(sink.DefaultLimit, page.Prefix, observe); err != nil {
		return nil, err
	}
	if s.lax, err = sink.NewOTLP(anySize, page.Prefix, observe); err != nil {
		return nil, err
	}
	s.write, err = sink.NewRemoteWrite(page.Prefix)
	return s, err
}

func (s *station) close() {
	_ = s.server.Close()
	s.strict.Stop()
	s.lax.Stop()
	_ = s.write.Close()
}

// peer is one way to get a page to a receiver.
type peer struct {
	name        string
	compression string
	// baseline is the peer that this one is compared with.
	baseline string
	// sink is the receiver that counts what arrives.
	sink func(*station) interface{ Counts() sink.Counts }
	// samples says that the sink counts samples, not data points.
	samples bool
	start   func(context.Context, *station, programs, time.Duration) (*proc.Process, error)
}

func strict(s *station) interface{ Counts() sink.Counts } { return s.strict }
func lax(s *station) interface{ Counts() sink.Counts }    { return s.lax }
func write(s *station) interface{ Counts() sink.Counts }  { return s.write }

const (
	collectorPlain = "Collector"
	collectorGzip  = "Collector, gzip"
	pluginPlain    = "otelmetricsplugin"
	pluginGzip     = "otelmetricsplugin, gzip"
)

func allPeers() []peer {
	return []peer{
		{name: pluginPlain, compression: "none", baseline: collectorPlain, sink: strict, start: startPlugin("none")},
		{name: pluginGzip, compression: "gzip", baseline: collectorGzip, sink: strict, start: startPlugin("gzip")},
		{name: "otelmetricsplugin, zstd", compression: "zstd", baseline: collectorGzip, sink: strict, start: startPlugin("zstd")},
		{name: collectorPlain, compression: "none", baseline: collectorPlain, sink: lax, start: startCollector("none")},
		{name: collectorGzip, compression: "gzip", baseline: collectorGzip, sink: strict, start: startCollector("gzip")},
		{name: "contrib bridge", compression: "none", baseline: collectorPlain, sink: lax, start: startBridge},
		{name: "vmagent, remote write", compression: "zstd", baseline: collectorGzip, sink: write, samples: true, start: startVmagent},
		{name: "floor", compression: "none", baseline: collectorPlain, sink: strict, start: startFloor},
	}
}

// wanted are the peers whose name has one of the words.
func wanted(words string) (peers []peer) {
	for _, p := range allPeers() {
		for word := range strings.SplitSeq(words, ",") {
			if strings.Contains(p.name, word) {
				peers = append(peers, p)
				break
			}
		}
	}
	return peers
}

func startPlugin(compression string) func(context.Context, *station, programs, time.Duration) (*proc.Process, error) {
	return func(ctx context.Context, s *station, p programs, interval time.Duration) (*proc.Process, error) {
		spool, err := os.MkdirTemp(s.dir, "spool")
		if err != nil {
			return nil, err
		}
		return proc.Start(ctx, []string{
			"SCRAPE_URL=" + s.server.Unix,
			"OTLP_ENDPOINT=http://" + s.strict.Address,
			fmt.Sprintf("OTEL_METRIC_EXPORT_INTERVAL=%d", interval.Milliseconds()),
			"OTEL_EXPORTER_OTLP_COMPRESSION=" + compression,
			"SPOOL_DIR=" + spool,
		}, p.plugin, "run")
	}
}

// startCollector starts the cheapest Collector that was found; docs/performance.md says what was tried.
func startCollector(compression string) func(context.Context, *station, programs, time.Duration) (*proc.Process, error) {
	return func(ctx context.Context, s *station, p programs, interval time.Duration) (*proc.Process, error) {
		// Without compression the whole page is one request, which costs least. Requests that a default receiver takes are
		// cut by the exporter's queue.
		endpoint, batch := s.lax.Address, ""
		if compression != "none" {
			endpoint = s.strict.Address
			batch = ", batch: {flush_timeout: 10ms, sizer: items, min_size: 1, max_size: 10000}"
		}
		return proc.Start(ctx, nil, p.collector, fmt.Sprintf(`
receivers:
  prometheus:
    config:
      scrape_configs:
      - job_name: bench
        scrape_interval: %[1]dms
        scrape_timeout: %[1]dms
        scrape_protocols: [%[2]s]
        enable_compression: false
        static_configs: [{targets: [%[3]q]}]
exporters:
  otlp_grpc: {endpoint: %[4]q, compression: %[5]s, timeout: 30s, tls: {insecure: true}, sending_queue: {num_consumers: 1%[6]s}}
service:
  pipelines: {metrics: {receivers: [prometheus], exporters: [otlp_grpc]}}
`, interval.Milliseconds(), p.collectorFormat, s.server.Address, endpoint, compression, batch))
	}
}

func startBridge(ctx context.Context, s *station, p programs, interval time.Duration) (*proc.Process, error) {
	return proc.Start(ctx, nil, p.bridge, "-url", s.server.Unix, "-endpoint", s.lax.Address, "-interval", interval.String())
}

func startFloor(ctx context.Context, s *station, p programs, interval time.Duration) (*proc.Process, error) {
	return proc.Start(ctx, nil, p.floor, "-url", s.server.Unix, "-endpoint", s.strict.Address, "-interval", interval.String())
}

func startVmagent(ctx context.Context, s *station, p programs, interval time.Duration) (*proc.Process, error) {
	data, err := os.MkdirTemp(s.dir, "vmagent")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(data, "scrape.yml")
	err = os.WriteFile(config, fmt.Appendf(nil, `
scrape_configs:
- job_name: bench
  scrape_interval: %[1]dms
  scrape_timeout: %[1]dms
  disable_compression: true
  static_configs: [{targets: [%[2]q]}]
`, interval.Milliseconds(), s.server.Address), 0o600)
	if err != nil {
		return nil, err
	}
	return proc.Start(ctx, nil, p.vmagent,
		"-promscrape.config="+config,
		"-promscrape.maxScrapeSize=1GB",
		"-remoteWrite.url="+s.write.URL,
		"-remoteWrite.tmpDataPath="+data,
		"-httpListenAddr=127.0.0.1:0",
		"-loggerLevel=WARN")
}
