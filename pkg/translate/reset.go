package translate

import (
	"cmp"
	"math"
	"time"
)

// page is what holds for an exposition as a whole. Times are Unix nanoseconds;
// 0 is unknown.
type page struct {
	number       uint64    // from 1; 0 is none
	at           time.Time // of the scrape, with its monotonic reading
	now          int64     // at
	processStart int64
	restarted    bool // the process began after the last exposition
	gaps         int  // empty native buckets that may still be filled in
}

// processStartTime is the family that says when the process began.
const processStartTime = "process_start_time_seconds"

// readProcessStart reads when the process began from a family of that name.
func (t *Translator) readProcessStart(f frame) {
	if f.metrics != 1 {
		return
	}
	var seconds float64
	for family := (fields{rest: t.bytes(f.body)}); family.next(); {
		if !family.isBytes(familyMetric) {
			continue
		}
		var m metric
		if m.read(family.bytes, gauge, &t.scratch.gathered); !m.value.is {
			m.read(family.bytes, untyped, &t.scratch.gathered)
		}
		seconds = readValue(m.value.bytes)
	}
	// Prometheus' own resolution is a millisecond, and so is that of what a
	// float can say of this century.
	ms := math.Round(seconds * 1e3)
	if ms > 0 && ms <= float64(t.page.now/int64(time.Millisecond)) {
		t.page.processStart = int64(ms) * int64(time.Millisecond)
	}
}

// findRestart finds out whether the process began after the last exposition.
func (p *page) findRestart(last page) {
	if p.processStart == 0 || last.number == 0 {
		return
	}
	// Compare ages, not times: the kernel counts a start from the boot, and
	// gives the time of the boot by the clock of today, so that both move with
	// every step of that clock; Sub does not.
	age, elapsed := time.Duration(p.now-p.processStart), p.at.Sub(last.at)
	if last.processStart == 0 {
		p.restarted = age < elapsed
		return
	}
	// It also cuts that time to the second: a process may seem to be as much
	// older than it is, and to have moved that far without a restart.
	const tick = time.Second
	lastAge := time.Duration(last.now - last.processStart)
	p.restarted = age < elapsed+tick && age < lastAge+elapsed-tick
}

// change is how an observation of a series continues the one before.
type change uint8

const (
	// baseline: what was counted since the last exposition is not known.
	baseline change = iota
	// grown: by the difference to the last observation.
	grown
	// fromZero: by all that is counted now.
	fromZero
)

// createdJitter is by how much a created timestamp may move without a reset: a
// source may work it out anew for every exposition. To take a reset for growth costs
// what a series counted in a life that was shorter than this; to take growth
// for a reset would count all that it ever counted once more.
const createdJitter = int64(time.Second)

// observe notes an observation of s at ts, with its created timestamp (0 is
// none) and whether its value is less than the last one: rule 5. It sets s.start
// and returns how, and since when, the value changed.
//
// A created timestamp is compared with the one before, as both are of the
// target's clock; lastTime is of this one's, or of the samples' own.
func (t *Translator) observe(s *series, created, ts int64, decreased bool) (c change, since int64) {
	p := &t.page
	lastCreated, lastTime := s.created, s.time
	first := !s.observed
	s.observed, s.created, s.time = true, created, ts
	if created != 0 && (first || lastCreated == 0 || max(created-s.start, s.start-created) > createdJitter) {
		s.start = created
	}
	moved := created-lastCreated > createdJitter
	if lastCreated == 0 {
		moved = created >= lastTime
	}
	switch {
	case first:
		if created == 0 {
			s.start = p.processStart
		}
		inside := p.restarted
		if created != 0 {
			inside = created >= t.last.now
		}
		if t.last.number != 0 && inside && s.start <= ts {
			return fromZero, s.start
		}
		return baseline, 0
	case created != 0 && moved:
		s.start = created
		if created < lastTime || created > ts {
			return fromZero, lastTime // the clocks differ; deltas do not overlap
		}
		return fromZero, created
	case created == 0 && p.restarted:
		s.start = max(p.processStart, lastTime)
		return fromZero, s.start
	case decreased:
		if created == 0 {
			s.start = lastTime
		}
		return fromZero, lastTime
	default:
		return grown, lastTime
	}
}

// startFor returns the start in effect for a value that observe cannot tell
// anything of.
func (t *Translator) startFor(s *series, created int64) int64 {
	if s.observed {
		return cmp.Or(created, s.start)
	}
	return cmp.Or(created, t.page.processStart)
}

// startTime returns the start time of a point at ts: none if it is unknown or
// later than the point.
func startTime(start, ts int64) int64 {
	if start > ts {
		return 0
	}
	return start
}
