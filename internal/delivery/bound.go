package delivery

import (
	"slices"

	"otelmetricsplugin/internal/collector"
)

// The bounds of a store: what moves to the disk, and what is dropped. All
// methods are called with the store's lock held.

// settle moves what is in memory to the disk, as far as that works, and drops
// the oldest until the rest is within its bound.
func (s *store) settle() {
	for {
		s.persist()
		if s.memory <= s.cfg.MaxMemory || !s.dropOldest() {
			break
		}
	}
	s.log.room(s)
}

// persist packs what is in memory and moves it to the disk until that fails.
func (s *store) persist() {
	if s.resident == 0 {
		return
	}
	ready := s.diskReady()
	// The newest are at the end, and what the disk refused before them.
	resident := make([]*item, 0, s.resident)
	for i := len(s.items) - 1; len(resident) < s.resident; i-- {
		if s.items[i].inMemory() {
			resident = append(resident, s.items[i])
		}
	}
	for _, it := range slices.Backward(resident) {
		it.waited = true
		if it.encoding == collector.Uncompressed {
			s.pack(it)
		}
		if ready {
			ready = s.write(it)
		}
	}
}

func (s *store) pack(it *item) {
	packed := s.packer.pack(it.body.bytes)
	it.body.Release()
	size := int64(len(packed.bytes))
	s.memory += size - it.size
	it.body, it.encoding, it.size = packed, s.packer.encoding, size
}

// write moves an item to the disk, and drops the oldest there to make room. It
// reports false if the disk fails.
func (s *store) write(it *item) bool {
	need := onDisk(it.size)
	if need > s.cfg.MaxBytes {
		return true // no room can be made: it waits in memory, if that has room
	}
	for s.spool.used+need > s.cfg.MaxBytes {
		if !s.dropOldestOnDisk() {
			return true // nothing there can go now: it waits in memory
		}
	}
	err := s.spool.write(it)
	s.diskFull = isFull(err)
	if err != nil {
		s.log.diskFails(err)
		return false
	}
	s.log.diskWorks()
	s.resident--
	s.memory -= it.size
	it.body.Release()
	it.body, it.size = nil, need
	return true
}

// dropOldest drops the oldest item so that less is in memory: one on the disk if
// that is full, because its space lets another be written, else the oldest in
// memory. It reports false if there is nothing to drop.
func (s *store) dropOldest() bool {
	it := s.oldest(func(*item) bool { return true })
	if it != nil && !it.inMemory() && s.diskFull && s.dropOldestOnDisk() {
		return true
	}
	it = s.oldest((*item).inMemory)
	if it == nil {
		return false
	}
	s.dropFull(it)
	s.remove(it)
	return true
}

func (s *store) dropOldestOnDisk() bool {
	if s.spool.dropAside() {
		return true
	}
	it := s.oldest(func(it *item) bool { return !it.inMemory() })
	if it == nil || !s.spool.discard(it) {
		return false
	}
	s.dropFull(it)
	s.forget(it)
	return true
}

// dropFull counts an item that is dropped for want of space.
func (s *store) dropFull(it *item) {
	s.counts.drop(DroppedQueueFull, it.points)
	s.log.full(it, len(s.items), s.bytes())
}
