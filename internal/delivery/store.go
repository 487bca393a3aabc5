package delivery

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"otelmetricsplugin/internal/collector"
	"otelmetricsplugin/internal/otlp"
)

// item is one request that waits.
type item struct {
	key      string // its place: items are in the order of their keys
	accepted time.Time
	points   int
	encoding string  // the compression of body, or of the file
	body     *buffer // nil while it is on the disk
	unpacked int     // bytes of the uncompressed request; 0 is unknown
	size     int64   // bytes that it takes, on the disk or in memory
	waited   bool    // it did not go out at once
}

func (it *item) inMemory() bool { return it.body != nil }

// store keeps the requests that wait, in order and within the bounds, in memory
// and on the disk. A Queue adds to it, and one sender at a time works it off:
// it takes the oldest with next and load, and reports what became of it with
// keep, finish, split or setAside.
type store struct {
	cfg     *Config
	counts  *counts
	buffers *buffers
	packer  *packer
	wake    chan struct{} // capacity 1: there may be something to send

	mu       sync.Mutex
	log      storeLog
	items    []*item
	seq      uint64 // the last key
	memory   int64  // bytes of the items in memory
	resident int    // number of the items in memory
	points   int64  // in items
	sending  *item  // the sender has it: it is not dropped for want of space
	spool    *spool // nil without Dir
	diskFull bool   // the last write failed for want of space
	healthy  bool   // the Collector answered the last attempt
	sealed   bool   // nothing is added any more
}

func newStore(cfg *Config, counts *counts) *store {
	buffers := &buffers{}
	s := &store{
		cfg:     cfg,
		counts:  counts,
		buffers: buffers,
		packer:  &packer{encoding: collector.Gzip, buffers: buffers},
		wake:    make(chan struct{}, 1),
		log:     storeLog{cfg: cfg},
	}
	if cfg.Compression != collector.Uncompressed {
		s.packer.encoding = cfg.Compression
	}
	if cfg.Dir != "" {
		s.spool = newSpool(cfg.Dir)
	}
	return s
}

// open reads what an earlier process left on the disk.
func (s *store) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.diskReady()
}

// add appends a request, which it copies.
func (s *store) add(request []byte, points int) {
	it := s.newItem(request, points, time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.diskReady() // what a disk that has recovered holds is older
	s.seq++
	it.key = key(s.seq)
	s.insert(len(s.items), it)
	if !s.mayStayInMemory(it.accepted) {
		s.settle()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// newItem returns an item of its own memory.
func (s *store) newItem(request []byte, points int, accepted time.Time) *item {
	it := &item{accepted: accepted, points: points, unpacked: len(request)}
	if s.cfg.Compression == collector.Uncompressed {
		it.body = s.buffers.copyOf(request)
	} else {
		it.body, it.encoding = s.packer.pack(request), s.packer.encoding
	}
	it.size = int64(len(it.body.bytes))
	return it
}

// directFor is for how long a request may be on its way to a healthy Collector
// without being on the disk as well.
const directFor = time.Second

// mayStayInMemory reports whether all that waits goes out directly: nothing is
// on the disk, and the oldest has not waited for long.
func (s *store) mayStayInMemory(now time.Time) bool {
	return s.healthy && !s.sealed && s.resident == len(s.items) && s.memory <= s.cfg.MaxMemory &&
		now.Sub(s.items[0].accepted) < directFor
}

// next returns the oldest item and marks it as being sent, or nil if there is
// none.
func (s *store) next() *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.items) == 0 {
		return nil
	}
	s.sending = s.items[0]
	return s.sending
}

// outgoing is a request that is ready to be sent.
type outgoing struct {
	body     *buffer
	encoding string
	unpacked int  // bytes of the uncompressed request
	waited   bool // it did not go out at once
}

// load returns the request of an item from next in the compression that is
// configured. The caller releases its body. What comes from the disk has been
// checked.
func (s *store) load(it *item) (outgoing, error) {
	s.mu.Lock()
	spooled := !it.inMemory()
	out := outgoing{it.body, it.encoding, it.unpacked, it.waited || spooled}
	var err error
	if spooled {
		out.body, err = s.spool.read(it, s.buffers.get)
	} else {
		out.body.Retain()
	}
	s.mu.Unlock()
	if err != nil {
		return outgoing{}, err
	}
	if spooled || out.encoding != s.cfg.Compression {
		if out, err = s.convert(out); err != nil {
			return outgoing{}, err
		}
	}
	if spooled {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log.readable()
	}
	return out, nil
}

// convert checks a request that was packed and returns it in the compression
// that is configured: the same bytes, if that is theirs.
func (s *store) convert(out outgoing) (outgoing, error) {
	request, err := s.packer.unpack(out.body.bytes, out.encoding)
	if err != nil {
		out.body.Release()
		return outgoing{}, err
	}
	out.unpacked = len(request.bytes)
	switch s.cfg.Compression {
	case out.encoding:
		request.Release()
	case collector.Uncompressed:
		out.body.Release()
		out.body, out.encoding = request, collector.Uncompressed
	default:
		out.body.Release()
		out.body, out.encoding = s.packer.pack(request.bytes), s.packer.encoding
		request.Release()
	}
	return out, nil
}

// keep ends an attempt after which the item still waits. The Collector does not
// count as healthy before it has answered another.
func (s *store) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = nil
	s.healthy = false
	s.settle()
}

// finish removes an item that the Collector has answered for.
func (s *store) finish(it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = nil
	s.healthy = true
	s.remove(it)
}

// split replaces an item by smaller ones in its place, none larger than limit
// but single points.
func (s *store) split(it *item, out outgoing, limit int) {
	var parts []*item
	rest := it.points
	emit := func(part []byte, points int) {
		rest -= points
		parts = append(parts, s.newItem(part, points, it.accepted))
	}
	request, err := out.body, error(nil)
	if out.encoding == collector.Uncompressed {
		request.Retain()
	} else {
		request, err = s.packer.unpack(request.bytes, out.encoding)
	}
	if err == nil {
		err = otlp.Split(request.bytes, limit, emit)
		request.Release()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = nil
	i := slices.Index(s.items, it)
	if err != nil {
		s.counts.drop(DroppedInvalid, rest)
	}
	s.remove(it)
	for n, part := range parts {
		part.key = fmt.Sprintf("%s.%06d", it.key, n)
		s.insert(i+n, part)
	}
	s.settle()
}

// setAside gives up an item whose file cannot be read.
func (s *store) setAside(it *item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = nil
	s.counts.drop(DroppedDamaged, it.points)
	s.log.damaged(it, err)
	s.forget(it)
	s.spool.setAside(it)
}

// unreadable notes that a file cannot be read at the moment.
func (s *store) unreadable(err error) {
	s.keep()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.unreadable(err)
}

// waiting returns how many requests wait, and whether a restart would lose one
// of them.
func (s *store) waiting() (requests int, volatile bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.items), s.resident > 0
}

// settleNow moves what is in memory to the disk.
func (s *store) settleNow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
}

// seal ends the adding, and moves what is in memory to the disk.
func (s *store) seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = true
	s.settle()
}

// close gives up what is still in memory and ends the use of the disk. What is
// lost is the error.
func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	lost, spooled := 0, len(s.items)-s.resident
	for it := s.oldest((*item).inMemory); it != nil; it = s.oldest((*item).inMemory) {
		lost += it.points
		s.counts.drop(DroppedShutdown, it.points)
		s.remove(it)
	}
	s.packer.rest(false)
	var err error
	if lost > 0 {
		err = fmt.Errorf("delivery: %d data points could be neither delivered nor written to the spool before the end", lost)
	}
	if s.spool == nil {
		return err
	}
	if spooled > 0 {
		s.log.left(spooled, s.spool.used)
	}
	if closeErr := s.spool.close(); err == nil {
		err = closeErr
	}
	return err
}

// insert puts an item that is in memory at place i.
func (s *store) insert(i int, it *item) {
	s.items = slices.Insert(s.items, i, it)
	s.resident++
	s.memory += it.size
	s.points += int64(it.points)
}

// remove takes an item out and gives up its memory, or its file.
func (s *store) remove(it *item) {
	s.forget(it)
	if !it.inMemory() && !s.spool.discard(it) {
		s.spool.discardLater(it)
	}
	if len(s.items) == 0 {
		s.packer.rest(s.cfg.Compression != collector.Uncompressed)
	}
	s.log.room(s)
}

// forget takes an item out and leaves its file alone. It must not be used again.
func (s *store) forget(it *item) {
	i := slices.Index(s.items, it)
	if i == 0 {
		s.items[0] = nil // Delete would move all the others
		s.items = s.items[1:]
	} else {
		s.items = slices.Delete(s.items, i, i+1)
	}
	if it.inMemory() {
		s.resident--
		s.memory -= it.size
		it.body.Release()
	}
	s.points -= int64(it.points)
}

// oldest returns the first item of a kind that is not being sent.
func (s *store) oldest(kind func(*item) bool) *item {
	for _, it := range s.items {
		if it != s.sending && kind(it) {
			return it
		}
	}
	return nil
}

// bytes is what the items take, on the disk and in memory.
func (s *store) bytes() int64 {
	if s.spool == nil {
		return s.memory
	}
	return s.spool.used + s.memory
}

// diskReady reports whether there is a spool, and opens it if it is not yet.
func (s *store) diskReady() bool {
	if s.spool == nil {
		return false
	}
	if s.spool.lock != nil {
		return true
	}
	found, foreign, err := s.spool.open()
	if err != nil {
		s.log.diskFails(err)
		return false
	}
	s.log.diskWorks()
	if len(foreign) > 0 {
		s.log.foreign(foreign)
	}
	if len(found) > 0 {
		// What waited on the disk is older than all that is in memory.
		s.seq, _ = strconv.ParseUint(found[len(found)-1].key[:seqDigits], 10, 64) // digits, by fileName
		for _, it := range s.items {
			s.seq++
			it.key = key(s.seq)
		}
		s.items = append(found, s.items...)
		for _, it := range found {
			s.points += int64(it.points)
		}
		s.log.found(len(found), s.spool.used)
	}
	return true
}
