package translate

import (
	"encoding/binary"
	"math"

	"otelmetricsplugin/internal/otlp"
)

// staleNaN is Prometheus' staleness marker (model/value): rule 24.
const staleNaN uint64 = 0x7ff0000000000002

func isStale(v float64) bool { return math.Float64bits(v) == staleNaN }

// readValue reads the value of a Gauge or Untyped message.
func readValue(b []byte) (v float64) {
	const valueTag = 1<<3 | 1
	if len(b) == 9 && b[0] == valueTag { // as nearly always
		return math.Float64frombits(binary.LittleEndian.Uint64(b[1:]))
	}
	for f := (fields{rest: b}); f.next(); {
		if f.isDouble(1) {
			v = f.double()
		}
	}
	return v
}

// gauge translates the value of a gauge or untyped metric: rules 8 and 10.
func (t *Translator) gauge(f *family, s *series, v float64, ts int64) {
	f.setKind(s, otlp.Gauge)
	if isStale(v) {
		t.writeStale(f, s, ts)
		return
	}
	s.live = true
	t.points.number = otlp.NumberPoint{Times: otlp.Times{Time: ts}, Attributes: f.attributesOf(s), Value: v}
	t.write(f, s, &t.points.number)
}
