package translate

import (
	"encoding/binary"
	"math"

	"otelmetricsplugin/internal/otlp"
)

// counterValue is a Counter message.
type counterValue struct {
	value    float64
	exemplar message
	created  timestamp
}

func (c *counterValue) read(b []byte) {
	const valueTag = 1<<3 | 1
	*c = counterValue{}
	if len(b) >= 9 && b[0] == valueTag {
		c.value = math.Float64frombits(binary.LittleEndian.Uint64(b[1:]))
		b = b[9:]
	}
	for f := (fields{rest: b}); f.next(); {
		switch {
		case f.isDouble(1):
			c.value = f.double()
		case f.isBytes(2):
			c.exemplar.add(f.bytes)
		case f.isBytes(3):
			c.created.read(f.bytes)
		}
	}
}

// noise is how much of a sum of floats may be due to the order in which they
// were added: a source that adds up its parts anew for every exposition may seem to
// count backwards by as much. It is neither a reset nor negative growth.
const noise = 1e-12

// counter translates a counter: rule 7.
func (t *Translator) counter(f *family, s *series, c *counterValue, ts int64) (dropped string) {
	v, created := c.value, c.created.unixNano()
	f.setKind(s, otlp.Sum)
	if isStale(v) {
		t.writeStale(f, s, ts)
		return ""
	}
	var start int64
	switch {
	case v < 0:
		return DropNegativeCounter
	case math.IsNaN(v) || math.IsInf(v, 0):
		if t.sumDelta {
			return DropNotFinite
		}
		start = t.startFor(s, created)
	default:
		if v < s.value && s.value-v <= noise*s.value {
			v = s.value
		}
		change, since := t.observe(s, created, ts, v < s.value)
		last := s.value
		s.value = v
		start = s.start
		if t.sumDelta {
			switch change {
			case baseline:
				return DropBaseline
			case grown:
				v -= last
			}
			start = since
		}
	}
	s.live = true
	p := &t.points.number
	*p = otlp.NumberPoint{
		Times: otlp.Times{Start: startTime(start, ts), Time: ts}, Attributes: f.attributesOf(s), Value: v,
	}
	if c.exemplar.is {
		p.Exemplars = t.appendExemplar(t.scratch.exemplars[:0], otlp.Sum, c.exemplar.bytes, t.sumDelta, start)
		t.scratch.exemplars = p.Exemplars
	}
	t.write(f, s, p)
	return ""
}
