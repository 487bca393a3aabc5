// Package lifecycle serves Docker Engine's MetricsCollector protocol and runs
// the collections between StartMetrics and StopMetrics: scrape, translate,
// observe, collect, accept, at every interval.
//
// It opens no connection, reads no file but its socket, and never waits for the
// network: scraping and delivering are the caller's.
package lifecycle

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// stopTimeout limits how long StopMetrics waits for the last exposition:
	// once it is answered the engine closes the metrics socket.
	stopTimeout = time.Second
	// lastScrapeTimeout limits the scrape of the last collection: what is left
	// of the five seconds in which the program ends belongs to the delivery.
	lastScrapeTimeout = 2 * time.Second
)

// Manager starts and stops the collections of one target. Its methods are safe
// for concurrent use.
type Manager struct {
	cfg Config
	// cycle belongs to the session that runs, of which there is one at a time:
	// what an exposition before Stop has said holds after Start.
	cycle *cycle
	stale chan struct{}

	mu      sync.Mutex
	closed  bool               // Close was called: nothing starts any more
	current *session           // the last one that was started
	unwatch context.CancelFunc // ends the last watch for a stale socket
	watches sync.WaitGroup
	release func() error // of what New made; the first call counts
}

// session is the time from a Start to the last collection after its Stop.
type session struct {
	ctx  context.Context // ends at Stop
	stop context.CancelFunc
	read chan struct{} // closed when the last exposition was read
	done chan struct{} // closed when the last collection was accepted
}

func newSession() *session {
	ctx, stop := context.WithCancel(context.Background())
	return &session{ctx: ctx, stop: stop, read: make(chan struct{}), done: make(chan struct{})}
}

// New returns a Manager that has started nothing. The caller closes it. It is
// an error if a required field of cfg is missing or Config.Instruments fails.
func New(cfg Config) (*Manager, error) {
	c, err := newCycle(cfg)
	if err != nil {
		return nil, err
	}
	none := newSession()
	none.stop()
	close(none.read)
	close(none.done)
	return &Manager{
		cfg: c.cfg, cycle: c, stale: make(chan struct{}),
		current: none, unwatch: func() {}, release: sync.OnceValue(c.close),
	}, nil
}

// Start starts collecting, unless that was started before, and returns at once.
// While the last collection after a Stop is under way, the first one waits for
// it. After Close it does nothing.
func (m *Manager) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.watch()
	before := m.current
	if before.ctx.Err() == nil {
		return
	}
	m.current = newSession()
	go m.run(m.current, before)
}

// Stop stops collecting. It returns when the last exposition was read, after a
// second at most; what is left to do of the last collection goes on, see
// [Manager.Close].
func (m *Manager) Stop() {
	m.mu.Lock()
	m.unwatch()
	s := m.current
	s.stop()
	m.mu.Unlock()

	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-s.read:
	case <-s.done:
	case <-timeout.C:
	}
}

// Close stops collecting for good, and returns when the last collection was
// accepted. If ctx ends before, that is the error, and Close may be called
// again.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.Stop()
	m.watches.Wait()
	m.mu.Lock()
	s := m.current
	m.mu.Unlock()
	select {
	case <-s.done:
		return m.release()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run runs one session after the one before is done.
func (m *Manager) run(s, before *session) {
	defer close(s.done)
	select {
	case <-before.done:
	default:
		select {
		case <-before.done:
		case <-s.ctx.Done():
			// Stopped before it began: the session before makes the last
			// collection. A storm of Start and Stop leaves one of each.
			<-before.done
			return
		}
	}

	m.spread(s)
	ticker := time.NewTicker(m.cfg.Interval) // drops the ticks that a slow cycle misses
	defer ticker.Stop()
	for s.ctx.Err() == nil {
		m.collect(func() ([]byte, error) { return m.scrape(s) })
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
		}
	}
	m.collect(func() ([]byte, error) { return m.lastScrape(s) })
}

// spread waits until the first collection is due, or for Stop.
func (m *Manager) spread(s *session) {
	if m.cfg.Spread <= 0 {
		return
	}
	due := time.NewTimer(rand.N(m.cfg.Spread))
	defer due.Stop()
	select {
	case <-due.C:
	case <-s.ctx.Done():
	}
}

// scrape scrapes until Stop. A scrape that Stop cut off says nothing of the
// target: its cycle is abandoned before anything is taken from the translator
// or the instruments, so the last collection misses nothing.
func (m *Manager) scrape(s *session) ([]byte, error) {
	exposition, err := m.cfg.Scrape(s.ctx)
	if s.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = abandonedError{err}
	}
	return exposition, err
}

// lastScrape is the scrape after Stop.
func (m *Manager) lastScrape(s *session) ([]byte, error) {
	defer close(s.read)
	ctx, cancel := context.WithTimeout(context.Background(), lastScrapeTimeout)
	defer cancel()
	return m.cfg.Scrape(ctx)
}

// collect runs a cycle and logs its error.
func (m *Manager) collect(scrape func() ([]byte, error)) {
	if err := m.cycle.run(scrape); err != nil && !isAbandoned(err) {
		m.cfg.Logger.Warn("a collection is incomplete", "error", err)
	}
}
