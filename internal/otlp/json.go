package otlp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// AppendJSON appends req to dst as OTLP JSON, in one line without a newline at
// its end, the same bytes for the same request. It follows the OTLP
// specification (section "JSON Protobuf Encoding") where that departs from
// protobuf's own JSON: enums are numbers, trace and span ids are hexadecimal.
// Control characters and everything else that a terminal would not print
// literally are escaped as \uXXXX.
func AppendJSON(dst []byte, req *colmetricpb.ExportMetricsServiceRequest) ([]byte, error) {
	req = proto.CloneOf(req)
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				for _, e := range exemplars(m) {
					e.TraceId, e.SpanId = asHex(e.GetTraceId()), asHex(e.GetSpanId())
				}
			}
		}
	}
	spaced, err := protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(req)
	if err != nil {
		return dst, fmt.Errorf("encoding a request of %d bytes as OTLP JSON: %w", proto.Size(req), err)
	}
	// protojson puts spaces in at random, so that nobody relies on its bytes.
	var compact bytes.Buffer
	compact.Grow(len(spaced))
	if err := json.Compact(&compact, spaced); err != nil {
		return dst, fmt.Errorf("compacting OTLP JSON: %w", err)
	}
	return appendPrintable(dst, compact.Bytes()), nil
}

func exemplars(m *metricpb.Metric) []*metricpb.Exemplar {
	var all []*metricpb.Exemplar
	for _, p := range m.GetGauge().GetDataPoints() {
		all = append(all, p.GetExemplars()...)
	}
	for _, p := range m.GetSum().GetDataPoints() {
		all = append(all, p.GetExemplars()...)
	}
	for _, p := range m.GetHistogram().GetDataPoints() {
		all = append(all, p.GetExemplars()...)
	}
	for _, p := range m.GetExponentialHistogram().GetDataPoints() {
		all = append(all, p.GetExemplars()...)
	}
	return all
}

// asHex returns the bytes whose base64 form, which protojson writes, is the
// hexadecimal form of id: every hexadecimal digit is a base64 digit too. An id
// that is not a multiple of 2 bytes long, which no valid one is, comes back as
// it is.
func asHex(id []byte) []byte {
	b, err := base64.StdEncoding.DecodeString(hex.EncodeToString(id))
	if err != nil {
		return id
	}
	return b
}

// appendPrintable appends JSON text to dst with each rune that is not printable
// escaped. JSON allows such runes only in strings, where an escape means the
// same.
func appendPrintable(dst, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case strconv.IsPrint(r):
			dst = append(dst, text[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, high, low)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
		text = text[size:]
	}
	return dst
}
