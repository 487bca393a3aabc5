package delivery

import (
	"maps"
	"sync"
	"time"
)

// Why data points are dropped: the values of the attribute "reason".
const (
	DroppedQueueFull      = "queue_full"      // the oldest, for want of space
	DroppedRejected       = "rejected"        // the Collector's answer was final
	DroppedPartialSuccess = "partial_success" // the Collector accepted the rest of the request
	DroppedTooLarge       = "too_large"       // one data point alone exceeds MaxMessage or what the Collector takes
	DroppedInvalid        = "invalid"         // of a request that is too large and cannot be split: it is malformed
	DroppedDamaged        = "damaged"         // the spool's file could not be read back
	DroppedShutdown       = "shutdown"        // waited in memory at the end
)

var reasons = []string{DroppedQueueFull, DroppedRejected, DroppedPartialSuccess, DroppedTooLarge, DroppedInvalid, DroppedDamaged, DroppedShutdown}

// Stats is the state of a [Queue] at one moment, counted since [Open].
type Stats struct {
	QueuedRequests int64
	QueuedPoints   int64
	DiskBytes      int64         // what the spool takes on the disk, damaged files included
	MemoryBytes    int64         // of requests that wait in memory
	OldestAge      time.Duration // of what waits; 0 when nothing does

	DeliveredRequests int64
	DeliveredPoints   int64            // without those that a partial success rejected
	Retries           int64            // attempts that failed and were, or will be, repeated
	Dropped           map[string]int64 // data points by reason
	LastSuccess       time.Time        // zero before the first
}

// Stats returns the present state.
func (q *Queue) Stats() Stats {
	// What waits first: what is delivered or dropped meanwhile is counted twice
	// rather than not at all.
	var waiting Stats
	q.store.stats(&waiting)
	return q.counts.stats(waiting)
}

func (s *store) stats(stats *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.QueuedRequests = int64(len(s.items))
	stats.QueuedPoints = s.points
	stats.MemoryBytes = s.memory
	if s.spool != nil {
		stats.DiskBytes = s.spool.used
	}
	if len(s.items) > 0 {
		stats.OldestAge = max(0, time.Since(s.items[0].accepted))
	}
}

// counts counts what became of the requests that wait no more. What is counted
// is counted before it leaves the store.
type counts struct {
	mu    sync.Mutex
	total Stats
}

func newCounts() *counts { return &counts{total: Stats{Dropped: map[string]int64{}}} }

func (c *counts) deliver(points int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.DeliveredRequests++
	c.total.DeliveredPoints += int64(points)
	c.total.LastSuccess = time.Now()
}

func (c *counts) retry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.Retries++
}

func (c *counts) drop(reason string, points int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.Dropped[reason] += int64(points)
}

// stats returns s with what is counted here.
func (c *counts) stats(s Stats) Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.DeliveredRequests = c.total.DeliveredRequests
	s.DeliveredPoints = c.total.DeliveredPoints
	s.Retries = c.total.Retries
	s.Dropped = maps.Clone(c.total.Dropped)
	s.LastSuccess = c.total.LastSuccess
	return s
}
