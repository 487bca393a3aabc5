package delivery

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"otelmetricsplugin/internal/collector"
)

// buffer is the memory of one request. It has a user when it is made, and is
// recycled when it has none left: the store and gRPC's transport may both
// be using it.
type buffer struct {
	bytes []byte
	users atomic.Int32
	home  *buffers
}

var _ collector.Body = (*buffer)(nil)

func (b *buffer) Bytes() []byte { return b.bytes }

// Retain adds a user.
func (b *buffer) Retain() { b.users.Add(1) }

// Release removes a user, who must not touch the buffer any more.
func (b *buffer) Release() {
	if b.users.Add(-1) == 0 {
		b.home.put(b)
	}
}

// recyclePeriod is for how long, and at most twice as long, buffers are kept
// for a peak to come again.
const recyclePeriod = 10 * time.Second

// buffers recycles buffers, so that a steady flow of requests gives the
// garbage collector nothing to do. What is free and in use together never exceeds what
// was in use at once in this period or the one before.
type buffers struct {
	mu         sync.Mutex
	free       []*buffer // the last one used at the end
	freeBytes  int
	inUse      int // bytes
	peak, last int // of inUse, in this period and the one before
	began      time.Time
}

// get returns a buffer of n bytes with any content.
func (s *buffers) get(n int) *buffer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.began) >= recyclePeriod {
		s.last, s.peak, s.began = s.peak, s.inUse, now
		s.trim()
	}
	b := s.take(n)
	if b == nil {
		b = &buffer{bytes: make([]byte, roundUp(n)), home: s}
	}
	b.bytes = b.bytes[:n]
	b.users.Store(1)
	s.inUse += cap(b.bytes)
	s.peak = max(s.peak, s.inUse)
	return b
}

// take returns the smallest free buffer of at least n bytes, unless it would be
// a waste of it.
func (s *buffers) take(n int) *buffer {
	best := -1
	for i, b := range s.free {
		if c := cap(b.bytes); c >= n && c <= n+n/2+1024 && (best < 0 || c < cap(s.free[best].bytes)) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	b := s.free[best]
	s.remove(best)
	return b
}

func (s *buffers) put(b *buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse -= cap(b.bytes)
	s.free = append(s.free, b)
	s.freeBytes += cap(b.bytes)
	s.trim()
}

// trim gives up free buffers that the peaks do not justify, the oldest first.
func (s *buffers) trim() {
	for len(s.free) > 0 && s.inUse+s.freeBytes > max(s.peak, s.last) {
		s.remove(0)
	}
}

func (s *buffers) remove(i int) {
	s.freeBytes -= cap(s.free[i].bytes)
	copy(s.free[i:], s.free[i+1:])
	s.free[len(s.free)-1] = nil
	s.free = s.free[:len(s.free)-1]
}

// roundUp returns a size of at least n, so that requests of nearly the same
// size fit into each other's buffers. It is at most an eighth more.
func roundUp(n int) int {
	step := max(64, 1<<max(0, bits.Len(uint(n))-4))
	return (n + step - 1) / step * step
}

// copyOf returns a buffer with the bytes of b.
func (s *buffers) copyOf(b []byte) *buffer {
	c := s.get(len(b))
	copy(c.bytes, b)
	return c
}
