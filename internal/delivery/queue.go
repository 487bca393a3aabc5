// Package delivery carries OTLP metric requests to a Collector and loses none
// that fits its bound.
//
// In come the finished requests of an OTLP exporter, by [Queue.Accept]. Out go
// the same data points in the same order on [Config.Conn], at least once. A
// request is split to what a receiver takes, serialised once, kept in memory or
// in files until the Collector has answered for it, and dropped only for a
// reason that is counted.
//
// Accept never waits for the network, and the package never looks at what a
// data point says. docs/reliability.md states what is promised.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Config configures a [Queue]. Only Conn must be set.
type Config struct {
	// Conn is where requests go. TLS, metadata and compression are its dial
	// options. A *grpc.ClientConn should have keepalive with a Timeout (20s
	// say): on Linux that is also how long unacknowledged data keeps a dead
	// connection alive, which is 15 minutes without.
	Conn grpc.ClientConnInterface
	// Dir is the spool directory, made if it is absent. It must be this queue's
	// own. Empty keeps everything in memory, and what cannot be delivered
	// before Close is lost.
	Dir string
	// MaxBytes bounds what waits, as it takes space on the disk; without Dir,
	// compressed in memory. The oldest is dropped first. 0 is 64 MiB.
	MaxBytes int64
	// MaxMemory bounds what waits in memory while the disk fails, and the part
	// of one request that may be on its way to a Collector that is well
	// without being on the disk too. 0 is 16 MiB; without Dir, MaxBytes.
	MaxMemory int64
	// MaxMessage bounds the serialised bytes of one request to the Collector,
	// whose default limit is 4 MiB. 0 is 2 MiB; the most is 16 MiB.
	MaxMessage int
	// Timeout bounds one attempt, connecting included. 0 is 10s.
	Timeout time.Duration
	// MinBackoff and MaxBackoff bound the pause after an attempt that may be
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
	// it is logged: a server may quote a token. It is called with locks held.
	// What becomes of a request is judged by the text as it came. nil changes
	// nothing.
	Redact func(string) string
}

func (c *Config) setDefaults() error {
	var errs []error
	positive := func(name string, ok bool, value any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is %v: it must not be negative", name, value))
		}
	}
	positive("MaxBytes", c.MaxBytes >= 0, c.MaxBytes)
	positive("MaxMemory", c.MaxMemory >= 0, c.MaxMemory)
	positive("MaxMessage", c.MaxMessage >= 0, c.MaxMessage)
	positive("Timeout", c.Timeout >= 0, c.Timeout)
	positive("MinBackoff", c.MinBackoff >= 0, c.MinBackoff)
	positive("MaxBackoff", c.MaxBackoff >= 0, c.MaxBackoff)
	positive("Pace", c.Pace >= 0, c.Pace)
	if c.Conn == nil {
		errs = append(errs, errors.New("no Conn: there is nowhere to deliver to"))
	}
	if c.MaxMessage > maxInflated {
		errs = append(errs, fmt.Errorf("MaxMessage is %d: it must be at most %d", c.MaxMessage, maxInflated))
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

// spillAfter is how long a request may be on its way to a Collector that is
// well without being on the disk too.
const spillAfter = time.Second

// minLimit is the smallest size of a message that is learned for those to come.
const minLimit = 64 << 10

// ErrClosed is what [Queue.Accept] returns after [Queue.Close] was called.
var ErrClosed = errors.New("delivery: the queue is closed")

// item is one serialised request that waits.
type item struct {
	key    string // its place: items are in the order of their keys
	at     time.Time
	points int
	data   []byte // nil while it is on the disk
	packed bool   // data is as pack returns it
	size   int64  // bytes that it takes, on the disk or in memory
}

func (it *item) inMemory() bool { return it.data != nil }

// Queue takes requests and delivers them in order, by one goroutine of its own
// and one request at a time. Its methods may be called concurrently.
type Queue struct {
	cfg Config
	log *slog.Logger

	accepting sync.Mutex // one Accept at a time: the parts of a request stay together

	wake    chan struct{} // capacity 1: there may be something to send
	closing chan struct{} // closed by Close: drain and end
	done    chan struct{} // closed when the sender has ended
	ctx     context.Context
	cancel  context.CancelFunc
	close   sync.Once
	closed  error // what Close returned

	mu      sync.Mutex
	items   []*item
	seq     uint64 // the last key
	held    int    // items in memory
	memory  int64  // bytes of them
	points  int64  // in items
	sending *item  // is not dropped for want of space
	spool   *spool // nil without Dir
	packer  packer
	well    bool // the Collector answered the last attempt
	ended   bool // Close was called
	limit   int  // serialised bytes that a request may have
	count   Stats
	states  states

	registered metric.Registration // of the last Register; nil for none
	observed   Stats               // what its instruments were last given
	told       Stats               // what they were given for a request that was accepted
}

// Open returns a running Queue, with what an earlier one left in cfg.Dir. It
// fails only on a Config that is wrong: a directory that cannot be used is
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
	q := &Queue{
		cfg:     cfg,
		log:     cfg.Logger,
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		limit:   cfg.MaxMessage,
		count:   Stats{Dropped: map[string]int64{}},
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	if cfg.Dir != "" {
		q.spool = newSpool(cfg.Dir)
	}
	return q
}

func (q *Queue) start() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.diskReady()
	go q.deliver()
}

// Accept takes the data points of req. When it returns they are on the disk,
// or on their way to a Collector that answered the last request and has nothing
// else waiting, or dropped and counted. The only error is [ErrClosed].
//
// It does not heed ctx: what was collected is kept also when the time for its
// export is over. req must not change while it runs and is not kept.
func (q *Queue) Accept(_ context.Context, req *colmetricpb.ExportMetricsServiceRequest) error {
	q.accepting.Lock()
	defer q.accepting.Unlock()

	q.mu.Lock()
	if q.ended {
		q.mu.Unlock()
		return ErrClosed
	}
	q.told = q.observed
	q.diskReady() // what a disk that has recovered holds is older
	limit, idle := q.limit, q.well && len(q.items) == 0
	q.mu.Unlock()
	now := time.Now()
	var invalid, tooLarge int
	q.serialise(req, limit, func(data []byte, points int) {
		switch {
		case data == nil:
			invalid += points
			return
		case len(data) > q.cfg.MaxMessage:
			tooLarge += points
			return
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.seq++
		q.push(len(q.items), &item{key: key(q.seq), at: now, points: points, data: data})
		if !idle || !q.well || q.ended || q.memory > q.cfg.MaxMemory {
			idle = false
			q.settle()
		}
		q.signal()
	})

	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(DroppedInvalid, invalid)
	q.drop(DroppedTooLarge, tooLarge)
	if invalid+tooLarge > 0 {
		if q.states.unfit.begin(invalid + tooLarge) {
			q.log.Warn("data points that cannot be sent are dropped", "invalid", invalid, "too_large", tooLarge, "max_bytes", q.cfg.MaxMessage)
		}
	} else if dropped, ended := q.states.unfit.end(); ended {
		q.log.Info("all data points can be sent again", "dropped_points", dropped)
	}
	return nil
}

// serialise hands to emit the parts of req, of at most limit bytes unless it is
// a single point. What cannot be serialised (text that is not UTF-8) is narrowed
// down to the points that are to blame, which are handed over without data.
func (q *Queue) serialise(req *colmetricpb.ExportMetricsServiceRequest, limit int, emit func(data []byte, points int)) {
	split(req, limit, func(part *colmetricpb.ExportMetricsServiceRequest, points int) {
		size := cached.Size(part)
		data, err := cached.MarshalAppend(make([]byte, 0, size), part)
		switch {
		case err == nil:
			emit(data, points)
		case points > 1:
			q.serialise(part, size/2, emit)
		default:
			emit(nil, points)
		}
	})
}

func key(seq uint64) string { return fmt.Sprintf("%0*d", seqDigits, seq) }

// signal wakes the sender.
func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// push puts an item that is in memory at place i.
func (q *Queue) push(i int, it *item) {
	it.size = int64(len(it.data))
	q.items = slices.Insert(q.items, i, it)
	q.held++
	q.memory += it.size
	q.points += int64(it.points)
}

// pop takes it, wherever it is, out of the items and leaves its file alone.
func (q *Queue) pop(it *item) {
	i := slices.Index(q.items, it)
	if i == 0 {
		q.items[0] = nil // Delete would move all the others
		q.items = q.items[1:]
	} else {
		q.items = slices.Delete(q.items, i, i+1)
	}
	if it.inMemory() {
		q.held--
		q.memory -= it.size
	}
	q.points -= int64(it.points)
}

// bytes is what the items take, on the disk and in memory.
func (q *Queue) bytes() int64 {
	if q.spool == nil {
		return q.memory
	}
	return q.spool.used + q.memory
}

// finish takes out an item that is delivered or dropped for good.
func (q *Queue) finish(it *item) {
	q.pop(it)
	if !it.inMemory() && !q.spool.discard(it) {
		q.spool.discardLater(it)
	}
	if len(q.items) == 0 {
		q.packer = packer{} // not needed before the next failure
	}
	q.pressure()
}

// settle moves what is in memory to the disk, as far as that goes, and drops
// the oldest until the rest keeps its bound.
func (q *Queue) settle() {
	for {
		q.persist()
		if q.memory <= q.cfg.MaxMemory || !q.dropOldest() {
			break
		}
	}
	q.pressure()
}

// persist packs what is in memory and moves it to the disk until that fails.
func (q *Queue) persist() {
	if q.held == 0 {
		return
	}
	ready := q.diskReady()
	// The newest are at the end, and what the disk refused before them.
	held := make([]*item, 0, q.held)
	for i := len(q.items) - 1; len(held) < q.held; i-- {
		if q.items[i].inMemory() {
			held = append(held, q.items[i])
		}
	}
	for _, it := range slices.Backward(held) {
		if !it.packed {
			packed := q.packer.pack(it.data)
			q.memory += int64(len(packed)) - it.size
			it.data, it.packed, it.size = packed, true, int64(len(packed))
		}
		if ready {
			ready = q.store(it)
		}
	}
}

// diskReady reports whether there is a spool, and opens it if it is not yet.
func (q *Queue) diskReady() bool {
	if q.spool == nil {
		return false
	}
	if q.spool.lock != nil {
		return true
	}
	found, foreign, err := q.spool.open()
	if err != nil {
		q.diskFails(err)
		return false
	}
	q.diskWorks()
	if len(foreign) > 0 {
		q.log.Warn("files in the spool directory are not the spool's: they are left alone",
			"dir", q.cfg.Dir, "files", len(foreign), "first", foreign[0])
	}
	if len(found) > 0 {
		// What waited on the disk is older than all that is in memory.
		q.seq, _ = strconv.ParseUint(found[len(found)-1].key[:seqDigits], 10, 64) // digits, by fileName
		for _, it := range q.items {
			q.seq++
			it.key = key(q.seq)
		}
		q.items = append(found, q.items...)
		for _, it := range found {
			q.points += int64(it.points)
		}
		q.log.Info("requests wait in the spool", "dir", q.cfg.Dir, "requests", len(found), "bytes", q.spool.used)
	}
	return true
}

// store moves an item to the disk, and drops the oldest there to make room. It
// reports false when the disk fails.
func (q *Queue) store(it *item) bool {
	need := onDisk(it.size)
	if need > q.cfg.MaxBytes {
		return true // no room can be made: it waits in memory, if that has room
	}
	for q.spool.used+need > q.cfg.MaxBytes {
		if !q.dropOldestOnDisk() {
			return true // nothing there can go now: it waits in memory
		}
	}
	if err := q.spool.write(it); err != nil {
		q.diskFails(err)
		return false
	}
	q.diskWorks()
	q.held--
	q.memory -= it.size
	it.data, it.packed, it.size = nil, false, need
	return true
}

func (q *Queue) diskFails(err error) {
	if q.states.disk.begin(0) {
		q.log.Warn("the spool cannot be written: requests wait in memory, and a restart loses them", "dir", q.cfg.Dir,
			"error", err, "max_bytes", q.cfg.MaxMemory, "remedy", "free space on the disk, or correct SPOOL_DIR; it is tried again with each request")
	}
}

func (q *Queue) diskWorks() {
	if _, ended := q.states.disk.end(); ended {
		q.log.Info("the spool can be written again", "dir", q.cfg.Dir)
	}
}

// dropOldest drops the oldest item, or the oldest in memory when the disk lets
// nothing go. It reports false when there is nothing to drop.
func (q *Queue) dropOldest() bool {
	it := q.oldest(func(*item) bool { return true })
	if it != nil && !it.inMemory() && q.dropOldestOnDisk() {
		return true
	}
	it = q.oldest((*item).inMemory)
	if it == nil {
		return false
	}
	q.dropFull(it)
	q.finish(it)
	return true
}

func (q *Queue) dropOldestOnDisk() bool {
	if q.spool.dropAside() {
		return true
	}
	it := q.oldest(func(it *item) bool { return !it.inMemory() })
	if it == nil || !q.spool.discard(it) {
		return false
	}
	q.dropFull(it)
	q.pop(it)
	return true
}

// oldest returns the first item of a kind that is not being sent.
func (q *Queue) oldest(kind func(*item) bool) *item {
	for _, it := range q.items {
		if it != q.sending && kind(it) {
			return it
		}
	}
	return nil
}

// pressure notes the end of dropping once there is room to spare.
func (q *Queue) pressure() {
	if q.memory <= q.cfg.MaxMemory*3/4 && (q.spool == nil || q.spool.used <= q.cfg.MaxBytes*3/4) {
		if dropped, ended := q.states.full.end(); ended {
			q.log.Info("the queue has room again", "dropped_points", dropped)
		}
	}
}

// drop counts points that are not delivered.
func (q *Queue) drop(reason string, points int) { q.count.Dropped[reason] += int64(points) }

// dropFull drops an item for want of space.
func (q *Queue) dropFull(it *item) {
	q.drop(DroppedQueueFull, it.points)
	if q.states.full.begin(it.points) {
		q.log.Warn("the queue is full: the oldest data points are dropped", "requests", len(q.items),
			"bytes", q.bytes(), "remedy", "bring the Collector back, or raise SPOOL_MAX_BYTES")
	}
}

// Close refuses further requests and delivers what waits until ctx ends or the
// Collector fails; then everything else is in the spool. Only without a spool,
// or with a disk that fails, does it try on until ctx ends; what is lost then is
// the error. A second call returns what the first did.
func (q *Queue) Close(ctx context.Context) error {
	q.close.Do(func() { q.closed = q.shutdown(ctx) })
	return q.closed
}

func (q *Queue) shutdown(ctx context.Context) error {
	q.mu.Lock()
	q.ended = true
	q.settle()
	q.mu.Unlock()
	close(q.closing)
	select {
	case <-q.done:
	case <-ctx.Done():
	}
	q.cancel()
	<-q.done

	err := q.unregister(ctx)
	q.accepting.Lock() // an Accept that came before
	defer q.accepting.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle()
	lost, waits := 0, len(q.items)-q.held
	for q.held > 0 {
		it := q.oldest((*item).inMemory)
		lost += it.points
		q.drop(DroppedShutdown, it.points)
		q.finish(it)
	}
	if lost > 0 {
		err = errors.Join(err, fmt.Errorf("delivery: %d data points could be neither delivered nor written to the spool before the end", lost))
	}
	if waits > 0 {
		q.log.Info("requests wait in the spool for the next start", "dir", q.cfg.Dir, "requests", waits, "bytes", q.spool.used)
	}
	if q.spool != nil {
		err = errors.Join(err, q.spool.close())
	}
	return err
}

// halve replaces an item that is too large for the Collector by smaller ones
// in its place, none larger than limit but single points.
func (q *Queue) halve(it *item, data []byte, limit int) {
	var req colmetricpb.ExportMetricsServiceRequest
	var parts []*item
	err := proto.Unmarshal(data, &req)
	if err == nil {
		q.serialise(&req, limit, func(data []byte, points int) {
			if data == nil { // cannot be: it was read just now
				return
			}
			parts = append(parts, &item{at: it.at, points: points, data: data})
		})
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sending = nil
	i := slices.Index(q.items, it)
	q.finish(it)
	if err != nil {
		q.drop(DroppedInvalid, it.points)
		return
	}
	for n, part := range parts {
		part.key = fmt.Sprintf("%s.%06d", it.key, n)
		q.push(i+n, part)
	}
	q.settle()
}
