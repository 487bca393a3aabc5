package otlp

import (
	"encoding/binary"
	"math"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/encoding/protowire"
)

func appendFixed64(b []byte, field protowire.Number, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(protowire.AppendTag(b, field, protowire.Fixed64Type), v)
}

func appendDouble(b []byte, field protowire.Number, v float64) []byte {
	return appendFixed64(b, field, math.Float64bits(v))
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// appendLength appends the head of a field of n bytes.
func appendLength(b []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(n))
}

// sizeBytes is the size of a field of n bytes.
func sizeBytes(field protowire.Number, n int) int {
	return protowire.SizeTag(field) + protowire.SizeBytes(n)
}

// appendStringPair appends a KeyValue with a string value as the given field.
func appendStringPair(b []byte, field protowire.Number, key, value []byte) []byte {
	inner := sizeBytes(anyValueString, len(value))
	b = appendLength(b, field, sizeBytes(keyValueKey, len(key))+sizeBytes(keyValueValue, inner))
	b = appendBytes(b, keyValueKey, key)
	b = appendLength(b, keyValueValue, inner)
	return appendBytes(b, anyValueString, value)
}

// appendPair appends kv as the given field. A value that is not a scalar in OTLP is
// written as the string that it emits.
func appendPair(b []byte, field protowire.Number, kv attribute.KeyValue) []byte {
	var value []byte
	switch kv.Value.Type() {
	case attribute.BOOL:
		value = appendVarint(nil, anyValueBool, protowire.EncodeBool(kv.Value.AsBool()))
	case attribute.INT64:
		value = appendVarint(nil, anyValueInt, uint64(kv.Value.AsInt64()))
	case attribute.FLOAT64:
		value = appendDouble(nil, anyValueDouble, kv.Value.AsFloat64())
	default:
		value = appendString(nil, anyValueString, kv.Value.String())
	}
	b = appendLength(b, field, sizeBytes(keyValueKey, len(kv.Key))+sizeBytes(keyValueValue, len(value)))
	b = appendString(b, keyValueKey, string(kv.Key))
	return appendBytes(b, keyValueValue, value)
}

// AppendAttribute appends an attribute of a data point of kind k; kind 0 is any,
// see [MoveAttributes].
func AppendAttribute(b []byte, k Kind, key, value []byte) []byte {
	return appendStringPair(b, k.attributesField(), key, value)
}

// MoveAttributes changes encoded attributes, of a data point of whatever kind,
// in place to those of one of kind k.
func MoveAttributes(attributes []byte, k Kind) {
	tag := byte(protowire.EncodeTag(k.attributesField(), protowire.BytesType)) // below 16: a byte
	for len(attributes) > 0 {
		attributes[0] = tag
		_, n := protowire.ConsumeBytes(attributes[1:])
		if n < 0 {
			return
		}
		attributes = attributes[1+n:]
	}
}

// EachAttribute calls f with each of the encoded attributes, which do not say
// what kind of data point they are of.
func EachAttribute(attributes []byte, f func(attribute []byte)) {
	for len(attributes) > 0 {
		_, n := protowire.ConsumeBytes(attributes[1:])
		if n < 0 {
			return
		}
		f(attributes[1 : 1+n])
		attributes = attributes[1+n:]
	}
}

// Resource returns an encoded Resource.
func Resource(attributes []attribute.KeyValue) []byte {
	var b []byte
	for _, kv := range attributes {
		b = appendPair(b, resourceAttributes, kv)
	}
	return b
}

// Scope is an encoded instrumentation scope.
type Scope struct {
	scope []byte // InstrumentationScope
	rest  []byte // the other fields of ScopeMetrics: the schema URL
}

// NewScope encodes an instrumentation scope.
func NewScope(name, version, schemaURL string, attributes []attribute.KeyValue) Scope {
	var s Scope
	if name != "" {
		s.scope = appendString(s.scope, scopeName, name)
	}
	if version != "" {
		s.scope = appendString(s.scope, scopeVersion, version)
	}
	for _, kv := range attributes {
		s.scope = appendPair(s.scope, scopeAttributes, kv)
	}
	if schemaURL != "" {
		s.rest = appendString(s.rest, scopeMetricsSchemaURL, schemaURL)
	}
	return s
}

// Key distinguishes scopes.
func (s Scope) Key() string { return string(s.scope) + "\x00" + string(s.rest) }

// Metric is an encoded metric without its data points.
type Metric struct {
	kind     Kind
	head     []byte // name, description, unit
	tail     []byte // temporality and monotonicity, fields of the data
	metadata []byte // fields of the metric behind the data
}

// Head encodes what metrics of any kind begin with.
func Head(name, description, unit string) []byte {
	head := appendString(nil, metricName, name)
	if description != "" {
		head = appendString(head, metricDescription, description)
	}
	if unit != "" {
		head = appendString(head, metricUnit, unit)
	}
	return head
}

// Metadata encodes an entry of a metric's metadata.
func Metadata(key, value string) []byte {
	return appendStringPair(nil, metricMetadata, []byte(key), []byte(value))
}

// The tails of data that has a temporality, which are encoded once.
var (
	cumulative          = appendVarint(nil, dataTemporality, 2)
	delta               = appendVarint(nil, dataTemporality, 1)
	cumulativeMonotonic = appendVarint(cumulative[:len(cumulative):len(cumulative)], dataIsMonotonic, 1)
	deltaMonotonic      = appendVarint(delta[:len(delta):len(delta)], dataIsMonotonic, 1)
)

// NewMetric returns a metric of kind k, of parts that [Head] and [Metadata]
// encoded. Sums are monotonic; isDelta matters to sums and histograms.
func NewMetric(k Kind, isDelta bool, head, metadata []byte) Metric {
	m := Metric{kind: k, head: head, metadata: metadata}
	switch k {
	case Sum:
		m.tail = cumulativeMonotonic
		if isDelta {
			m.tail = deltaMonotonic
		}
	case Histogram, ExponentialHistogram:
		m.tail = cumulative
		if isDelta {
			m.tail = delta
		}
	}
	return m
}
