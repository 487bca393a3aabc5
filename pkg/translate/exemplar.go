package translate

import (
	"encoding/hex"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// appendExemplar appends e, translated by rule 17, to list. For a delta, one that
// was measured before it began belongs to an earlier point.
func appendExemplar(list []metricdata.Exemplar[float64], e *dto.Exemplar, delta bool, start int64) []metricdata.Exemplar[float64] {
	if e == nil {
		return list
	}
	x := metricdata.Exemplar[float64]{Value: e.GetValue()}
	if at := nanos(e.GetTimestamp()); at != 0 {
		if delta && at < start {
			return list
		}
		x.Time = unix(at)
	}
	for _, l := range e.GetLabel() {
		name, value := validUTF8(l.GetName()), validUTF8(l.GetValue())
		switch {
		case name == "" || value == "":
			continue
		case name == "trace_id" && x.TraceID == nil:
			x.TraceID = decodeID(value, 16)
			if x.TraceID != nil {
				continue
			}
		case name == "span_id" && x.SpanID == nil:
			x.SpanID = decodeID(value, 8)
			if x.SpanID != nil {
				continue
			}
		}
		x.FilteredAttributes = append(x.FilteredAttributes, attribute.String(name, value))
	}
	return append(list, x)
}

// decodeID decodes a trace or span id of n bytes from hex. It returns nil if it
// is invalid: of another length, not hex, or all zero.
func decodeID(s string, n int) []byte {
	if len(s) != 2*n {
		return nil
	}
	id, err := hex.DecodeString(s)
	if err != nil {
		return nil
	}
	for _, b := range id {
		if b != 0 {
			return id
		}
	}
	return nil
}
