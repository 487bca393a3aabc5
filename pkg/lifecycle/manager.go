// Package lifecycle wires the MetricsCollector protocol of Docker Engine to an
// OpenTelemetry MeterProvider.
//
// In come StartMetrics and StopMetrics, in any order and any number of times; a
// [Manager] has one running pipeline or none: a MeterProvider whose reader
// scrapes, translates and exports at every interval. Both answer at once and
// leave the work to a goroutine. The package opens no connection and reads no
// file of its own.
package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"otelmetricsplugin/pkg/translate"
)

const (
	// slack is what a collection with its export may take beyond the interval.
	// Both bound themselves: it only keeps a fault of either from lasting for
	// ever.
	slack = time.Minute
	// answer bounds how long StopMetrics waits for the last page to be read:
	// once it is answered the engine closes the metrics socket.
	answer = time.Second
	// grace is how long after StartMetrics the metrics socket may refuse
	// connections before it is taken for stale; retry is the time between two
	// attempts.
	grace = 5 * time.Second
	retry = 250 * time.Millisecond
)

// ErrStale says that the engine asked for metrics and left the plugin with a
// metrics socket that nobody listens on: after a restart with live-restore the
// plugin's mount still shows the file of the engine before. Nothing inside the
// plugin can mend it; the engine mounts the new file when the process ended.
var ErrStale = errors.New("the metrics socket is stale: the engine started the metrics, and nobody listens on the socket that it mounted; a restart of the plugin's process mounts the new one")

// Manager starts and stops pipelines. All its methods are safe for concurrent
// use.
type Manager struct {
	cfg   Config
	stale chan struct{}

	mu      sync.Mutex
	closed  bool               // Close was called: no Start any more
	current *run               // the last pipeline started; nil before the first
	unwatch context.CancelFunc // ends the last watch for a stale socket
	watches sync.WaitGroup

	// translator is that of all pipelines, of which there is one at a time: what
	// a page before Stop has said holds after Start.
	translator *translate.Translator
}

// New returns a Manager that has started nothing.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{cfg: cfg, stale: make(chan struct{}), unwatch: func() {}}
}

// run is one pipeline from its start to its end.
type run struct {
	stop    chan struct{} // closed by Stop
	stopped bool          // whether stop is closed; guarded by Manager.mu
	scraped chan struct{} // closed when the last page has been read
	done    chan struct{} // closed when the pipeline is gone
}

// Start starts a pipeline unless one runs, and returns at once. If one is still
// ending, the new one follows it. After Close it does nothing.
func (m *Manager) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.watch()
	if m.current != nil && !m.current.stopped {
		return
	}
	before := over
	if m.current != nil {
		before = m.current.done
	}
	m.current = &run{stop: make(chan struct{}), scraped: make(chan struct{}), done: make(chan struct{})}
	go m.run(m.current, before)
}

// Stop stops the pipeline that runs, if any. It returns when the last page has
// been read, after a second at most; the export and the end of the pipeline go
// on, see Close.
func (m *Manager) Stop() {
	m.mu.Lock()
	m.unwatch()
	r := m.current
	if r == nil {
		m.mu.Unlock()
		return
	}
	if !r.stopped {
		r.stopped = true
		close(r.stop)
	}
	m.mu.Unlock()

	timeout := time.NewTimer(answer)
	defer timeout.Stop()
	select {
	case <-r.scraped:
	case <-r.done:
	case <-timeout.C:
	}
}

// Close stops the pipeline for good and waits until it is gone or ctx ends,
// which is the error then.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.Stop()
	m.watches.Wait()
	m.mu.Lock()
	r := m.current
	m.mu.Unlock()
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stale is closed when the metrics socket was found stale, see [ErrStale].
func (m *Manager) Stale() <-chan struct{} { return m.stale }

// over is closed: nothing to wait for.
var over = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// run runs one pipeline after the one before is gone.
func (m *Manager) run(r *run, before <-chan struct{}) {
	defer close(r.done)
	select {
	case <-before:
	default:
		select {
		case <-before:
		case <-r.stop:
			// Stopped before it began: the pipeline before makes the last
			// collection. A storm of Start and Stop leaves one of each.
			<-before
			return
		}
	}

	// The reader's ticks follow its creation, so the pipeline is built when
	// its first collection is due. A Stop before that still collects once.
	if m.cfg.Spread > 0 {
		due := time.NewTimer(rand.N(m.cfg.Spread))
		select {
		case <-due.C:
		case <-r.stop:
			due.Stop()
		}
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := newPipeline(ctx, m.cfg, m.translator, r.stop, r.scraped, func(e sdkmetric.Exporter, producer sdkmetric.Producer) sdkmetric.Reader {
		return sdkmetric.NewPeriodicReader(e, sdkmetric.WithProducer(producer),
			sdkmetric.WithInterval(m.cfg.Interval), sdkmetric.WithTimeout(m.cfg.Interval+slack))
	})
	if err != nil {
		m.cfg.Logger.Error("the pipeline could not be built; the next StartMetrics tries again", "error", err)
		m.mu.Lock()
		r.stopped = true
		m.mu.Unlock()
		return
	}
	m.translator = p.translator

	// The first collection; the reader makes one at each interval after it.
	if !isClosed(r.stop) {
		first, cancelFirst := context.WithCancel(ctx)
		defer cancelFirst()
		go func() {
			<-r.stop
			cancelFirst()
		}()
		if err := p.provider.ForceFlush(first); err != nil && first.Err() == nil {
			m.cfg.Logger.Warn("the first export failed", "error", err)
		}
	}
	<-r.stop

	// Shutdown waits for a collection under way, whose scrape is cut off and
	// whose export is not, and makes the last one. It takes as long as these
	// bound themselves; whoever cannot wait has Close.
	if err := p.provider.Shutdown(context.WithValue(ctx, lastCollection{}, true)); err != nil {
		m.cfg.Logger.Warn("the last export failed", "error", err)
	}
}

// watch looks whether the metrics socket that the engine speaks of is alive.
// The caller holds m.mu.
func (m *Manager) watch() {
	m.unwatch()
	if m.cfg.Dial == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.unwatch = cancel
	m.watches.Go(func() {
		defer cancel()
		late := time.After(grace)
		again := time.NewTicker(retry)
		defer again.Stop()
		for {
			dial, cancelDial := context.WithTimeout(ctx, retry)
			err := m.cfg.Dial(dial)
			cancelDial()
			if !errors.Is(err, syscall.ECONNREFUSED) {
				return // alive, or ill in a way that a restart does not cure
			}
			select {
			case <-again.C:
			case <-late:
				m.foundStale()
				return
			case <-ctx.Done():
				return
			}
		}
	})
}

func (m *Manager) foundStale() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.stale:
	default:
		close(m.stale)
	}
}
