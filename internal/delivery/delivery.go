// Package delivery carries encoded OTLP metrics requests to a Collector and
// loses none that fits its bound.
//
// A request is kept, in memory or in a file, until the Collector has answered
// for it, and is delivered at least once and in order. What is dropped is
// counted by reason. Accept never waits for the network, and the package never
// looks at what a data point says. docs/reliability.md states what is promised.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"otelmetricsplugin/internal/collector"
	"otelmetricsplugin/internal/otlp"
)

// Config configures a [Queue]. Only Conn is required.
type Config struct {
	// Conn is the connection to the Collector. TLS and metadata are its dial
	// options. A *grpc.ClientConn should have keepalive with a Timeout (20s
	// say): on Linux that is also how long unacknowledged data keeps a dead
	// connection alive, which is 15 minutes without.
	Conn grpc.ClientConnInterface
	// Compression is that of the requests on the wire: "gzip", "zstd" or ""
	// for none. A request is compressed once; the same bytes wait in memory,
	// are written to the disk and are sent. With none, what has to wait is
	// compressed by gzip and decompressed to be sent.
	Compression string
	// Dir is the spool directory, made if it is missing. It must belong to this
	// queue alone. Empty keeps everything in memory, and what cannot be
	// delivered before Close is lost.
	Dir string
	// MaxBytes bounds what waits, as it takes space on the disk; without Dir,
	// compressed in memory. The oldest is dropped first. 0 is 64 MiB.
	MaxBytes int64
	// MaxMemory bounds what waits in memory while the disk fails, and what may
	// be on its way to a healthy Collector without being on the disk as well.
	// 0 is 16 MiB; without Dir, MaxBytes.
	MaxMemory int64
	// MaxMessage bounds the uncompressed bytes of one request to the Collector,
	// whose default limit is 4 MiB. 0 is 2 MiB; the maximum is 16 MiB.
	MaxMessage int
	// Timeout bounds one attempt, connecting included. 0 is 10s.
	Timeout time.Duration
	// MinBackoff and MaxBackoff bound the pause after an attempt that is
	// repeated: random up to a limit that starts at MinBackoff and doubles up
	// to MaxBackoff. 0 is 1s and 30s.
	MinBackoff, MaxBackoff time.Duration
	// Pace is the least time between the starts of two requests that waited,
	// so that a Collector that is back is not flooded. 0 is 50ms, 20 requests
	// a second.
	Pace time.Duration
	// Logger gets one line at each change of state. It should not block:
	// nothing is accepted or delivered while it does. nil is slog.Default().
	Logger *slog.Logger
	// Redact takes secrets out of a text of the server or the connection before
	// it is logged: a server may quote a token. What becomes of a request is
	// decided by the original text. nil changes nothing.
	Redact func(string) string
}

func (c *Config) setDefaults() error {
	var errs []error
	check := func(name string, ok bool, value any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is %v: it must not be negative", name, value))
		}
	}
	check("MaxBytes", c.MaxBytes >= 0, c.MaxBytes)
	check("MaxMemory", c.MaxMemory >= 0, c.MaxMemory)
	check("MaxMessage", c.MaxMessage >= 0, c.MaxMessage)
	check("Timeout", c.Timeout >= 0, c.Timeout)
	check("MinBackoff", c.MinBackoff >= 0, c.MinBackoff)
	check("MaxBackoff", c.MaxBackoff >= 0, c.MaxBackoff)
	check("Pace", c.Pace >= 0, c.Pace)
	if c.Conn == nil {
		errs = append(errs, errors.New("the Conn is missing"))
	}
	if c.MaxMessage > maxUnpacked {
		errs = append(errs, fmt.Errorf("MaxMessage is %d: it must be at most %d", c.MaxMessage, maxUnpacked))
	}
	switch c.Compression {
	case collector.Uncompressed, collector.Gzip, collector.Zstd:
	default:
		errs = append(errs, fmt.Errorf("the Compression is %q: it must be gzip, zstd or empty", c.Compression))
	}
	setDefault(&c.MaxBytes, 64<<20)
	if c.Dir == "" {
		c.MaxMemory = c.MaxBytes
	}
	setDefault(&c.MaxMemory, min(16<<20, c.MaxBytes))
	setDefault(&c.MaxMessage, 2<<20)
	setDefault(&c.Timeout, 10*time.Second)
	setDefault(&c.MinBackoff, time.Second)
	setDefault(&c.MaxBackoff, max(30*time.Second, c.MinBackoff))
	setDefault(&c.Pace, 50*time.Millisecond)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// ErrClosed is what [Queue.Accept] returns after [Queue.Close] was called.
var ErrClosed = errors.New("delivery: the queue is closed")

// Queue accepts requests and delivers them in order, one at a time: a store of
// what waits, and a sender that works it off. Its methods may be called
// concurrently.
type Queue struct {
	cfg    Config
	counts *counts
	store  *store
	sender *sender

	accepting sync.Mutex // one Accept at a time: the parts of a request stay together
	unfit     condition  // data points are dropped because they cannot be sent

	close  sync.Once
	closed error // what Close returned
}

// Open returns a running Queue, with what an earlier one left in cfg.Dir. It
// fails only if the Config is invalid: a directory that cannot be used is
// logged and tried again, and requests wait in memory meanwhile.
func Open(cfg Config) (*Queue, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, fmt.Errorf("delivery: %w", err)
	}
	q := newQueue(cfg)
	q.start()
	return q, nil
}

func newQueue(cfg Config) *Queue {
	q := &Queue{cfg: cfg, counts: newCounts()}
	q.store = newStore(&q.cfg, q.counts)
	q.sender = newSender(&q.cfg, q.store, q.counts)
	return q
}

func (q *Queue) start() {
	q.store.open()
	go q.sender.run()
}

// MaxRequest returns how many bytes a request should have at most: MaxMessage,
// or less if the Collector has refused smaller requests for their size.
func (q *Queue) MaxRequest() int { return int(q.sender.limit.Load()) }

// Accept takes an encoded ExportMetricsServiceRequest with the given number of
// data points. When it returns, the request is on the disk, or on its way to a
// Collector that answered the last one with nothing before it that waited for
// long, or dropped and counted. A request larger than MaxRequest is split. The
// request may be reused when Accept returns. The only error is [ErrClosed].
func (q *Queue) Accept(request []byte, points int) error {
	q.accepting.Lock()
	defer q.accepting.Unlock()
	if isClosed(q.sender.closing) {
		return ErrClosed
	}
	if points <= 0 {
		return nil // there is nothing to deliver
	}
	rest, tooLarge, invalid := points, 0, 0
	add := func(part []byte, points int) {
		rest -= points
		if len(part) > q.cfg.MaxMessage {
			tooLarge += points
			return
		}
		q.store.add(part, points)
	}
	if limit := q.MaxRequest(); len(request) <= limit {
		add(request, points)
	} else if err := otlp.Split(request, limit, add); err != nil {
		invalid = rest
	}
	q.dropUnfit(tooLarge, invalid)
	return nil
}

func (q *Queue) dropUnfit(tooLarge, invalid int) {
	q.counts.drop(DroppedTooLarge, tooLarge)
	q.counts.drop(DroppedInvalid, invalid)
	if dropped := tooLarge + invalid; dropped > 0 {
		if q.unfit.begin(dropped) {
			q.cfg.Logger.Warn("data points that cannot be sent are dropped", "invalid", invalid, "too_large", tooLarge, "max_bytes", q.cfg.MaxMessage)
		}
	} else if dropped, ended := q.unfit.end(); ended {
		q.cfg.Logger.Info("all data points can be sent again", "dropped_points", dropped)
	}
}

// Close refuses further requests and delivers what waits until ctx ends or the
// Collector fails; then everything else is in the spool. Only without a spool,
// or with a disk that fails, does it keep trying until ctx ends; what is lost
// then is the error. A second call returns what the first did.
func (q *Queue) Close(ctx context.Context) error {
	q.close.Do(func() {
		q.store.seal()
		q.sender.stop(ctx)
		q.accepting.Lock() // an Accept that began before
		defer q.accepting.Unlock()
		q.closed = q.store.close()
	})
	return q.closed
}
