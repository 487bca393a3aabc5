package lifecycle

import (
	"context"
	"errors"
	"syscall"
	"time"
)

const (
	// staleGrace is how long after StartMetrics the metrics socket may refuse
	// connections before it counts as stale; dialRetry is the time between two
	// attempts.
	staleGrace = 5 * time.Second
	dialRetry  = 250 * time.Millisecond
)

// ErrStale says that the engine started the metrics and left the plugin with a
// socket that nobody listens on: after a restart with live-restore the plugin's
// mount still shows the file of the engine before. Nothing inside the plugin
// can fix it; the engine mounts the new file when the process has ended.
var ErrStale = errors.New("the metrics socket is stale: the engine started the metrics, and nobody listens on the socket that it mounted; a restart of the plugin's process mounts the new one")

// Stale returns a channel that is closed when the metrics socket was found
// stale, see [ErrStale].
func (m *Manager) Stale() <-chan struct{} { return m.stale }

// watch looks whether anyone listens on the metrics socket. It takes the place
// of the watch before. The caller holds m.mu.
func (m *Manager) watch() {
	m.unwatch()
	if m.cfg.Dial == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.unwatch = cancel
	m.watches.Go(func() {
		defer cancel()
		deadline := time.After(staleGrace)
		retry := time.NewTicker(dialRetry)
		defer retry.Stop()
		for {
			dialCtx, cancelDial := context.WithTimeout(ctx, dialRetry)
			err := m.cfg.Dial(dialCtx)
			cancelDial()
			if !errors.Is(err, syscall.ECONNREFUSED) {
				return // alive, or failing in a way that a restart does not cure
			}
			select {
			case <-retry.C:
			case <-deadline:
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
