package delivery

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"time"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	_ "google.golang.org/grpc/encoding/proto" // the codec of the replies
)

// serialised is an ExportMetricsServiceRequest in its wire format.
type serialised []byte

// codec sends a serialised request as it is and leaves the rest to gRPC's own.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(serialised); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

var sendSerialised = grpc.ForceCodecV2(codec{encoding.GetCodecV2("proto")})

// deliver is the sender: it delivers one item after the other until Close.
func (q *Queue) deliver() {
	defer close(q.done)
	var (
		failures int       // in a row
		next     time.Time // of an item that waited: not before
		unread   *item     // whose file could not be read
		reads    int       // of it, in a row
	)
	for {
		it := q.take()
		if it == nil {
			return
		}
		data, waited, err := q.load(it)
		if err != nil {
			if it != unread {
				unread, reads = it, 0
			}
			if reads++; heals(err, reads) {
				if !q.unreadable(err) || !q.backOff(reads, 0) {
					return
				}
			} else {
				q.damaged(it, err)
			}
			continue
		}
		unread = nil
		if waited && !q.pause(time.Until(next)) {
			q.release()
			return
		}
		next = time.Now().Add(q.cfg.Pace)
		limit, wait := q.sendable(failures)
		if len(data) > limit && it.points > 1 {
			q.halve(it, data, limit) // before the Collector has to refuse it
			continue
		}

		reply, err := q.attempt(data, wait)
		what, delay := judge(err)
		if q.ctx.Err() != nil {
			q.release() // the end of ctx in Close, not the Collector's answer
			return
		}
		if what != retry {
			failures = 0
			q.answered(it, data, what, reply, err)
			continue
		}
		failures++
		if !q.failed(err) || !q.backOff(failures, delay) {
			return
		}
	}
}

// take waits for the oldest item and marks it as being sent. It returns nil
// when Close was called and nothing is left, or its ctx ended.
func (q *Queue) take() *item {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			q.sending = q.items[0]
			q.mu.Unlock()
			return q.sending
		}
		ended := q.ended
		q.mu.Unlock()
		if ended {
			return nil
		}
		select {
		case <-q.wake:
		case <-q.closing:
		}
	}
}

// release is the end of what take began, without a result.
func (q *Queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sending = nil
}

// load returns the serialised request of it, and whether it had to wait.
func (q *Queue) load(it *item) (data []byte, waited bool, err error) {
	q.mu.Lock()
	spooled := !it.inMemory()
	data, waited = it.data, it.packed || spooled
	if spooled {
		data, err = q.spool.read(it)
	}
	q.mu.Unlock()
	if err == nil && waited {
		data, err = unpack(data)
	}
	if err == nil && spooled {
		q.mu.Lock()
		defer q.mu.Unlock()
		points, damaged := q.states.damaged.end()
		if _, unread := q.states.unread.end(); damaged || unread {
			q.log.Info("the spool can be read again", "dropped_points", points)
		}
	}
	return data, waited, err
}

// maxReads is how often in a row a file is read that cannot be read, which is
// over two minutes with the default pauses.
const maxReads = 10

// heals reports whether a file that could not be read so many times in a row is
// worth another try. What the whole process or machine lacks is not the file's
// fault; a disk that fails may be.
func heals(err error, reads int) bool {
	switch {
	case errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist):
		return false
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM):
		return true
	}
	return reads < maxReads
}

// unreadable notes that the spool could not be read and will be tried again. It
// reports false when it will not be: the queue is closing, and the next start
// goes on from the disk.
func (q *Queue) unreadable(err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sending = nil
	q.settle()
	if q.states.unread.begin(0) {
		q.log.Warn("the spool cannot be read: what waits there is delivered later", "dir", q.cfg.Dir, "error", err,
			"remedy", "look at the disk and at the limit of open files; it is tried again")
	}
	return !q.ended || q.held > 0
}

// damaged gives up a request that cannot be read back.
func (q *Queue) damaged(it *item, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sending = nil
	q.drop(DroppedDamaged, it.points)
	if q.states.damaged.begin(it.points) {
		q.log.Warn("a spooled request cannot be read: it is set aside", "dir", q.cfg.Dir, "file", it.name()+asideSuffix, "points", it.points, "error", err)
	}
	if it.inMemory() { // cannot be: nothing touched it
		q.finish(it)
		return
	}
	q.pop(it)
	q.spool.setAside(it)
}

// sendable returns the most bytes that the Collector may be sent, and whether
// the next attempt waits for the connection.
func (q *Queue) sendable(failures int) (limit int, wait bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// In Close nothing is gained by waiting for what is on the disk.
	return q.limit, failures > 0 && (!q.ended || q.held > 0)
}

// attempt sends data once. Without wait it fails at once on what is known of
// the connection; with it, the connection may come back until the time is over.
func (q *Queue) attempt(data []byte, wait bool) (*colmetricpb.ExportMetricsServiceResponse, error) {
	spill := time.AfterFunc(spillAfter, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.settle()
	})
	defer spill.Stop()
	ctx, cancel := context.WithTimeout(q.ctx, q.cfg.Timeout)
	defer cancel()
	if wait {
		defer q.cutShort(cancel)()
	}
	if c, ok := q.cfg.Conn.(interface{ ResetConnectBackoff() }); ok && wait {
		c.ResetConnectBackoff() // the pauses are this package's, the connection's would come on top
	}
	reply := &colmetricpb.ExportMetricsServiceResponse{}
	err := q.cfg.Conn.Invoke(ctx, colmetricpb.MetricsService_Export_FullMethodName, serialised(data), reply,
		sendSerialised, grpc.WaitForReady(wait))
	return reply, err
}

// cutShort calls cancel if Close is called while the connection is not there and
// all that waits is on the disk: nothing is gained by waiting for it. It watches
// until the function that it returns is called.
func (q *Queue) cutShort(cancel func()) (done func()) {
	over := make(chan struct{})
	go func() {
		select {
		case <-q.closing:
		case <-over:
			return
		}
		q.mu.Lock()
		saved := q.held == 0
		q.mu.Unlock()
		c, ok := q.cfg.Conn.(interface{ GetState() connectivity.State })
		if saved && ok && c.GetState() != connectivity.Ready {
			cancel()
		}
	}()
	return func() { close(over) }
}

// answered does what the Collector's final answer to it asks for.
func (q *Queue) answered(it *item, data []byte, what verdict, reply *colmetricpb.ExportMetricsServiceResponse, err error) {
	message := status.Convert(err).Message()
	q.mu.Lock()
	q.well = true
	if was, ended := q.states.away.end(); ended {
		q.log.Info("the Collector answers again", "after", time.Since(was.since).Round(time.Millisecond),
			"retries", was.retries, "requests", len(q.items))
	}
	if what == tooLarge && it.points > 1 {
		if limit := max(len(data)/2, minLimit); limit < min(q.limit, len(data)) {
			q.limit = limit
			q.log.Info("the Collector refuses a request for its size: smaller ones are sent", "bytes", len(data), "max_bytes", limit, "message", q.quote(message))
		}
		limit := min(len(data)/2, q.limit)
		q.mu.Unlock()
		q.halve(it, data, limit)
		return
	}
	defer q.mu.Unlock()
	q.sending = nil
	switch what {
	case delivered:
		p := reply.GetPartialSuccess()
		refused := int(min(max(p.GetRejectedDataPoints(), 0), int64(it.points)))
		q.count.DeliveredRequests++
		q.count.DeliveredPoints += int64(it.points - refused)
		q.count.LastSuccess = time.Now()
		if refused > 0 {
			q.refused(DroppedPartialSuccess, refused, "partial success", p.GetErrorMessage())
		} else if points, ended := q.states.refusal.end(); ended {
			q.log.Info("the Collector accepts all data points again", "dropped_points", points)
		}
		if refused == 0 && p.GetErrorMessage() != "" {
			if q.states.warning.begin("", 0) {
				q.log.Warn("the Collector warns: it accepts all data points", "message", q.quote(p.GetErrorMessage()))
			}
		} else if _, ended := q.states.warning.end(); ended {
			q.log.Info("the Collector warns no more")
		}
	case tooLarge:
		q.refused(DroppedTooLarge, it.points, tooLargeAnswer, message)
	case rejected:
		q.refused(DroppedRejected, it.points, status.Code(err).String(), message)
	}
	q.finish(it)
}

// refused counts what the Collector refused for good.
func (q *Queue) refused(reason string, points int, answer, message string) {
	q.drop(reason, points)
	if q.states.refusal.begin(answer, points) {
		q.log.Warn("the Collector refuses data points: they are dropped", "answer", answer, "message", q.quote(message),
			"remedy", mend(answer, message), "points", points)
	}
}

// failed notes an attempt that will be repeated. It reports false when it will
// not be: the queue is closing, and the next start goes on from the disk.
func (q *Queue) failed(err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sending = nil
	q.well = false
	q.settle()
	reason, remedy := explain(err)
	if q.states.away.begin(reason) {
		q.log.Warn("the Collector does not take requests: they wait", "reason", reason, "remedy", remedy,
			"error", q.quote(err.Error()), "requests", len(q.items))
	}
	q.count.Retries++
	return !q.ended || q.held > 0
}

// backOff pauses after the given number of failures in a row. It returns early
// when Close is called, for one more attempt, and reports false when the ctx of
// Close ended.
func (q *Queue) backOff(failures int, asked time.Duration) bool {
	limit := q.cfg.MaxBackoff
	if doublings := failures - 1; doublings < 32 {
		limit = min(limit, q.cfg.MinBackoff<<doublings)
	}
	// At least a tenth: no chance of the random draw makes a busy loop.
	d := max(rand.N(limit), limit/10)
	if asked > 0 {
		d = asked + rand.N(q.cfg.MinBackoff) // not all clients at once
	}
	closing := q.closing
	select {
	case <-closing:
		closing = nil // known: pause as before
	default:
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-closing:
		return true
	case <-q.ctx.Done():
		return false
	}
}

// pause waits. It reports false when the ctx of Close ended first.
func (q *Queue) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-q.ctx.Done():
		return false
	}
}
