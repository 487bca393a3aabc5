package otlp

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMalformed says that bytes are not an encoded request.
var ErrMalformed = errors.New("not an encoded OTLP metrics request")

// Split cuts an encoded request into whole requests of at most limit bytes and
// hands each to emit with its number of data points, in their order. A point
// that is larger by itself is handed over alone. Metrics without points appear
// in no part, unless request fits whole. Parts are valid until emit returns.
func Split(request []byte, limit int, emit func(part []byte, points int)) error {
	if len(request) <= limit {
		points, err := CountPoints(request)
		if err == nil && points > 0 {
			emit(request, points)
		}
		return err
	}
	w := NewWriter(limit, emit)
	err := eachField(request, requestResourceMetrics, func(rm []byte) error {
		resource, rest, err := pick(rm, resourceMetricsResource, resourceMetricsScopeMetrics)
		if err != nil {
			return err
		}
		w.setResource(resource, rest)
		return w.appendScopes(rm)
	})
	if err == nil {
		w.Close()
	}
	return err
}

// Append appends the data points of an encoded request, with their scopes and
// metrics, under the resource of w.
func (w *Writer) Append(request []byte) error {
	return eachField(request, requestResourceMetrics, w.appendScopes)
}

// appendScopes appends the points of ResourceMetrics.
func (w *Writer) appendScopes(rm []byte) error {
	return eachField(rm, resourceMetricsScopeMetrics, func(sm []byte) error {
		scope, rest, err := pick(sm, scopeMetricsScope, scopeMetricsMetrics)
		if err != nil {
			return err
		}
		w.Scope(Scope{scope, rest})
		return eachField(sm, scopeMetricsMetrics, w.appendMetric)
	})
}

// appendMetric appends the points of a Metric.
func (w *Writer) appendMetric(metric []byte) error {
	var m Metric
	var data []byte
	at := 0
	err := walk(metric, func(n protowire.Number, field, value []byte) error {
		if isKind(n) && value != nil {
			m.kind, data = Kind(n), value
			m.head, m.metadata = metric[:at], metric[at+len(field):]
		}
		at += len(field)
		return nil
	})
	if err != nil || data == nil {
		return err
	}
	if _, m.tail, err = pick(data, 0, dataPoints); err != nil {
		return err
	}
	w.Metric(m)
	return eachField(data, dataPoints, func(point []byte) error {
		w.Point(Raw(point))
		return nil
	})
}

// CountPoints returns the number of data points in an encoded request.
func CountPoints(request []byte) (int, error) {
	points := 0
	err := eachField(request, requestResourceMetrics, func(rm []byte) error {
		return eachField(rm, resourceMetricsScopeMetrics, func(sm []byte) error {
			return eachField(sm, scopeMetricsMetrics, func(m []byte) error {
				return walk(m, func(n protowire.Number, _, data []byte) error {
					if !isKind(n) {
						return nil
					}
					return eachField(data, dataPoints, func([]byte) error {
						points++
						return nil
					})
				})
			})
		})
	})
	return points, err
}

// eachField calls f with the values of the messages that are the given field
// of a message.
func eachField(message []byte, field protowire.Number, f func(value []byte) error) error {
	return walk(message, func(n protowire.Number, _, value []byte) error {
		if n != field || value == nil {
			return nil
		}
		return f(value)
	})
}

// pick returns the value of one field, and all fields but that one and the
// repeated one, as they are encoded.
func pick(message []byte, one, repeated protowire.Number) (value, rest []byte, err error) {
	err = walk(message, func(n protowire.Number, field, v []byte) error {
		switch n {
		case one:
			value = v
		case repeated:
		default:
			rest = append(rest, field...)
		}
		return nil
	})
	return value, rest, err
}

// walk calls f with each field of a message: its number, all of its bytes, and
// its value if it is a message or a string, else nil.
func walk(message []byte, f func(n protowire.Number, field, value []byte) error) error {
	for len(message) > 0 {
		num, typ, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(tag))
		}
		n := protowire.ConsumeFieldValue(num, typ, message[tag:])
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		var value []byte
		if typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(message[tag:])
		}
		if err := f(num, message[:tag+n], value); err != nil {
			return err
		}
		message = message[tag+n:]
	}
	return nil
}
