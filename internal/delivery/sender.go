package delivery

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc/connectivity"

	"otelmetricsplugin/internal/collector"
)

// minLimit is the smallest request size that is learned from a refusal.
const minLimit = 64 << 10

// sender delivers what waits in a store: in order, one request at a time, with
// a pause after each failure.
type sender struct {
	cfg    *Config
	store  *store
	counts *counts
	log    senderLog

	limit   atomic.Int64  // uncompressed bytes that a request may have
	closing chan struct{} // closed by stop: deliver what waits and end
	done    chan struct{} // closed when run has ended
	ctx     context.Context
	cancel  context.CancelFunc

	// Of run alone:
	failures   int       // attempts in a row
	unread     *item     // whose file could not be read
	reads      int       // of it, in a row
	nextWaited time.Time // when the next request that waited may start
}

func newSender(cfg *Config, store *store, counts *counts) *sender {
	s := &sender{
		cfg:     cfg,
		store:   store,
		counts:  counts,
		log:     senderLog{cfg: cfg},
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	s.limit.Store(int64(cfg.MaxMessage))
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// run delivers one item after the other until stop.
func (s *sender) run() {
	defer close(s.done)
	for {
		it := s.take()
		if it == nil || !s.deliver(it) {
			return
		}
	}
}

// stop makes run end: when nothing waits, the Collector fails or ctx ends. It
// returns when run has.
func (s *sender) stop(ctx context.Context) {
	close(s.closing)
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	s.cancel()
	<-s.done
}

// take waits for the oldest item. It returns nil if stop was called and nothing
// is left.
func (s *sender) take() *item {
	for {
		closing := isClosed(s.closing)
		if it := s.store.next(); it != nil || closing {
			return it
		}
		select {
		case <-s.store.wake:
		case <-s.closing:
		}
	}
}

// deliver makes one attempt to deliver it, and pauses if it failed. It reports
// false if run shall end.
func (s *sender) deliver(it *item) bool {
	out, err := s.store.load(it)
	if err != nil {
		return s.unreadable(it, err)
	}
	s.unread = nil
	delay, failure := s.send(it, out)
	out.body.Release() // it is not needed during the pause
	switch {
	case s.ctx.Err() != nil: // the end of Close's ctx, not the Collector's answer
		s.store.keep()
		return false
	case failure != nil:
		return s.failed(failure, delay)
	}
	return true
}

// send sends it once and does what a final answer asks for. Otherwise it
// returns the pause that the server asks for, and the failure.
func (s *sender) send(it *item, out outgoing) (delay time.Duration, failure error) {
	if out.waited && !s.pause(time.Until(s.nextWaited)) {
		return 0, nil
	}
	s.nextWaited = time.Now().Add(s.cfg.Pace)
	if limit := int(s.limit.Load()); out.unpacked > limit && it.points > 1 {
		s.store.split(it, out, limit) // before the Collector has to refuse it
		return 0, nil
	}
	reply, err := s.attempt(out)
	outcome, delay := collector.Classify(err)
	if s.ctx.Err() == nil && outcome == collector.Retry {
		return delay, err
	}
	if err == nil || s.ctx.Err() == nil { // an answer counts also where nobody waits for it any more
		s.answered(it, out, outcome, reply, err)
	}
	return 0, nil
}

// attempt sends a request once. After a failure it waits for the connection.
func (s *sender) attempt(out outgoing) (*colmetricpb.ExportMetricsServiceResponse, error) {
	spill := time.AfterFunc(directFor, s.store.settleNow)
	defer spill.Stop()
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeout)
	defer cancel()
	wait := s.failures > 0
	if wait {
		// In Close nothing is gained by waiting while what waits is on the disk.
		if _, volatile := s.store.waiting(); isClosed(s.closing) && !volatile {
			wait = false
		}
	}
	if wait {
		defer s.cutShort(cancel)()
		if c, ok := s.cfg.Conn.(interface{ ResetConnectBackoff() }); ok {
			c.ResetConnectBackoff() // the pauses are this package's; the connection's would be added
		}
	}
	return collector.Export(ctx, s.cfg.Conn, &collector.Request{Body: out.body, Encoding: out.encoding}, wait)
}

// cutShort calls cancel if stop is called while there is no connection and all
// that waits is on the disk: nothing is gained by waiting for it. It watches
// until the function that it returns is called.
func (s *sender) cutShort(cancel func()) (done func()) {
	over := make(chan struct{})
	go func() {
		select {
		case <-s.closing:
		case <-over:
			return
		}
		_, volatile := s.store.waiting()
		c, ok := s.cfg.Conn.(interface{ GetState() connectivity.State })
		if !volatile && ok && c.GetState() != connectivity.Ready {
			cancel()
		}
	}()
	return func() { close(over) }
}

// answered does what the Collector's final answer asks for.
func (s *sender) answered(it *item, out outgoing, outcome collector.Outcome, reply *colmetricpb.ExportMetricsServiceResponse, err error) {
	s.failures = 0
	requests, _ := s.store.waiting()
	s.log.answers(requests)
	switch {
	case outcome == collector.TooLarge && it.points > 1:
		s.split(it, out, err)
		return
	case outcome == collector.Delivered:
		rejected := s.accepted(it, reply)
		s.counts.deliver(it.points - rejected)
	case outcome == collector.TooLarge:
		s.refused(DroppedTooLarge, it.points, collector.AnswerTooLarge, err)
	default:
		s.refused(DroppedRejected, it.points, collector.Code(err), err)
	}
	s.store.finish(it)
}

// split halves a request that the Collector refuses for its size, and those to
// come.
func (s *sender) split(it *item, out outgoing, err error) {
	limit := int(s.limit.Load())
	if smaller := max(out.unpacked/2, minLimit); smaller < min(limit, out.unpacked) {
		limit = smaller
		s.limit.Store(int64(limit))
		s.log.smaller(out.unpacked, limit, err)
	}
	s.store.split(it, out, min(out.unpacked/2, limit))
}

// accepted counts what a partial success rejects, and returns it.
func (s *sender) accepted(it *item, reply *colmetricpb.ExportMetricsServiceResponse) (rejected int) {
	p := reply.GetPartialSuccess()
	rejected = int(min(max(p.GetRejectedDataPoints(), 0), int64(it.points)))
	if rejected > 0 {
		s.counts.drop(DroppedPartialSuccess, rejected)
		s.log.refused("partial success", p.GetErrorMessage(), rejected)
		s.log.warned("")
		return rejected
	}
	s.log.acceptsAll()
	s.log.warned(p.GetErrorMessage())
	return 0
}

// refused counts what the Collector refuses for good.
func (s *sender) refused(reason string, points int, answer string, err error) {
	s.counts.drop(reason, points)
	s.log.refused(answer, collector.Message(err), points)
}

// failed notes an attempt that is repeated, after a pause. It reports false if
// it is not: stop was called, and the next start continues from the disk.
func (s *sender) failed(err error, asked time.Duration) bool {
	s.failures++
	s.store.keep()
	requests, volatile := s.store.waiting()
	s.log.fails(err, requests)
	s.counts.retry()
	if isClosed(s.closing) && !volatile {
		return false
	}
	return s.backOff(s.failures, asked)
}

// maxReads is how often in a row a file is read that cannot be read, which is
// over two minutes with the default pauses.
const maxReads = 10

// unreadable tries the file of an item again, after a pause, or gives it up. It
// reports false if run shall end.
func (s *sender) unreadable(it *item, err error) bool {
	if it != s.unread {
		s.unread, s.reads = it, 0
	}
	s.reads++
	if !worthAnotherRead(err, s.reads) {
		s.store.setAside(it, err)
		return true
	}
	s.store.unreadable(err)
	if _, volatile := s.store.waiting(); isClosed(s.closing) && !volatile {
		return false
	}
	return s.backOff(s.reads, 0)
}

// worthAnotherRead reports whether a file that could not be read so many times
// in a row may be readable later. What the whole process or machine lacks is
// not the file's fault; a disk that fails may be.
func worthAnotherRead(err error, reads int) bool {
	switch {
	case errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist):
		return false
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM):
		return true
	}
	return reads < maxReads
}

// backOff pauses after the given number of failures in a row. It returns early
// when stop is called, for one more attempt, and reports false if the ctx of
// stop ended.
func (s *sender) backOff(failures int, asked time.Duration) bool {
	limit := s.cfg.MinBackoff
	for i := 1; i < failures && limit < s.cfg.MaxBackoff; i++ {
		limit *= 2
	}
	limit = min(limit, s.cfg.MaxBackoff)
	// At least a tenth: the random draw must not make a busy loop.
	d := max(rand.N(limit), limit/10)
	if asked > 0 {
		d = asked + rand.N(s.cfg.MinBackoff) // not all clients at once
	}
	closing := s.closing
	if isClosed(closing) {
		closing = nil // known: pause as before
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-closing:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// pause waits. It reports false if the ctx of stop ended first.
func (s *sender) pause(d time.Duration) bool {
	if d <= 0 {
		return s.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
