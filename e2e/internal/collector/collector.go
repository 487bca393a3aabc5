// Package collector runs a real OpenTelemetry Collector inside the test: the
// OTLP receiver with its default settings in front of an exporter that keeps
// every request it is handed.
package collector

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"otelmetricsplugin/e2e/internal/feed"
	"otelmetricsplugin/e2e/internal/loopback"
)

// patience bounds the start of a Collector.
const patience = 30 * time.Second

// Collector is an OpenTelemetry Collector on a loopback port of its own. What
// it received outlives Stop and Start.
type Collector struct {
	// Endpoint is the host:port of the OTLP/gRPC receiver, the same after
	// every Start.
	Endpoint string
	// Received holds every request that the receiver accepted, in order.
	Received feed.Feed[pmetric.Metrics]
	// Log holds what the Collector logged, a line each.
	Log feed.Feed[string]

	exporters map[exporter.Factory]string // further exporters and their configuration

	running *otelcol.Collector
	ended   chan error // what Run returned
}

// New returns a Collector that is not started yet. Each further exporter gets
// every request as well; its configuration is YAML in flow style.
func New(t *testing.T, exporters map[exporter.Factory]string) *Collector {
	t.Helper()
	return &Collector{Endpoint: loopback.FreeAddress(t), exporters: exporters}
}

// Start runs the Collector until Stop or the end of the test, and returns when
// it accepts requests.
func (c *Collector) Start(t *testing.T) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatalf("start the Collector on %s: %v", c.Endpoint, err)
	}
	t.Cleanup(func() { c.Stop(t) })
}

// Stop shuts the Collector down as SIGTERM would: what it has accepted is
// handed on first. It does nothing when the Collector is not running.
func (c *Collector) Stop(t *testing.T) {
	t.Helper()
	if c.running == nil {
		return
	}
	c.running.Shutdown()
	if err := <-c.ended; err != nil {
		t.Errorf("the Collector on %s ended with: %v", c.Endpoint, err)
	}
	c.running = nil
}

func (c *Collector) start() error {
	ready := make(chan struct{})
	col, err := otelcol.NewCollector(otelcol.CollectorSettings{
		BuildInfo:               component.NewDefaultBuildInfo(),
		Factories:               func() (otelcol.Factories, error) { return c.factories(ready) },
		DisableGracefulShutdown: true,
		SkipSettingGRPCLogger:   true,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			URIs:              []string{"yaml:" + c.config()},
			ProviderFactories: []confmap.ProviderFactory{yamlprovider.NewFactory()},
		}},
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- col.Run(context.Background()) }()
	select {
	case <-ready:
		c.running, c.ended = col, ended
		return nil
	case err := <-ended:
		return fmt.Errorf("ended at once: %w", err)
	case <-time.After(patience):
		return fmt.Errorf("not ready within %v", patience)
	}
}

func (c *Collector) config() string {
	exporters, names := "store: {}", "store"
	for factory, config := range c.exporters {
		exporters += fmt.Sprintf(", %s: %s", factory.Type(), config)
		names += ", " + factory.Type().String()
	}
	return fmt.Sprintf(`
receivers: {otlp: {protocols: {grpc: {endpoint: %q}}}}
exporters: {%s}
service: {pipelines: {metrics: {receivers: [otlp], exporters: [%s]}}}
`, c.Endpoint, exporters, names)
}

func (c *Collector) factories(ready chan<- struct{}) (otelcol.Factories, error) {
	exporters := map[component.Type]exporter.Factory{storeType: c.storeFactory()}
	for factory := range maps.Keys(c.exporters) {
		exporters[factory.Type()] = factory
	}
	receivers, err := otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())
	return otelcol.Factories{
		Receivers: receivers,
		Exporters: exporters,
		Telemetry: telemetry.NewFactory(
			func() component.Config { return &struct{}{} },
			telemetry.WithCreateLogger(func(context.Context, telemetry.LoggerSettings, component.Config) (*zap.Logger, component.ShutdownFunc, error) {
				return c.logger(ready), nil, nil
			}),
		),
	}, err
}

// logger writes to c.Log and closes ready when the Collector says that it is:
// it has no other event for that.
func (c *Collector) logger(ready chan<- struct{}) *zap.Logger {
	once := sync.OnceFunc(func() { close(ready) })
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	core := zapcore.NewCore(encoder, zapcore.AddSync(lines{&c.Log}), zapcore.InfoLevel)
	return zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if e.Message == "Everything is ready. Begin running and processing data." {
			once()
		}
		return nil
	}))
}

type lines struct{ to *feed.Feed[string] }

func (l lines) Write(line []byte) (int, error) {
	l.to.Append(string(line))
	return len(line), nil
}

var storeType = component.MustNewType("store")

// storeFactory makes the exporter that appends to c.Received.
func (c *Collector) storeFactory() exporter.Factory {
	return exporter.NewFactory(storeType,
		func() component.Config { return &struct{}{} },
		exporter.WithMetrics(func(context.Context, exporter.Settings, component.Config) (exporter.Metrics, error) {
			next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error {
				kept := pmetric.NewMetrics() // md belongs to the pipeline
				md.CopyTo(kept)
				c.Received.Append(kept)
				return nil
			})
			return &store{Metrics: next}, err
		}, component.StabilityLevelStable))
}

type store struct {
	consumer.Metrics
	component.StartFunc
	component.ShutdownFunc
}
