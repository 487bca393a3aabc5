package scrape

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protowire"
)

// Limits bound a page beyond its bytes; 0 is no limit.
type Limits struct {
	Samples    int
	LabelBytes int
}

// Decode decodes a whole page of the given format, delimited protobuf or text
// 0.0.4, into its families, sorted by name. A page with an error anywhere gives
// no families: half a page would look like series that vanished.
func Decode(page []byte, format expfmt.Format, limits Limits) ([]*dto.MetricFamily, error) {
	var families []*dto.MetricFamily
	var err error
	switch format.FormatType() {
	case expfmt.TypeProtoDelim:
		families, err = decodeProto(page, limits)
	case expfmt.TypeTextPlain:
		families, err = decodeText(page, limits)
	default:
		return nil, fmt.Errorf("cannot decode format %q", format)
	}
	if err != nil {
		return nil, err
	}
	if err := checkLabels(families, limits.LabelBytes); err != nil {
		return nil, err
	}
	// The text parser returns families in random order.
	slices.SortStableFunc(families, func(a, b *dto.MetricFamily) int {
		return cmp.Compare(a.GetName(), b.GetName())
	})
	return families, nil
}

func decodeText(page []byte, limits Limits) ([]*dto.MetricFamily, error) {
	if limits.Samples > 0 && textSamples(page, limits.Samples) > limits.Samples {
		return nil, &LimitError{What: "samples", Limit: int64(limits.Samples)}
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	byName, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		return nil, err
	}
	families := make([]*dto.MetricFamily, 0, len(byName))
	for _, f := range byName {
		families = append(families, f)
	}
	return families, nil
}

// textSamples counts the lines that are neither blank nor comments, up to one
// more than limit.
func textSamples(page []byte, limit int) int {
	n := 0
	for line := range bytes.Lines(page) {
		line = bytes.TrimLeft(line, " \t\r\n")
		if len(line) > 0 && line[0] != '#' {
			if n++; n > limit {
				break
			}
		}
	}
	return n
}

func decodeProto(page []byte, limits Limits) ([]*dto.MetricFamily, error) {
	n, err := checkProto(page, limits.Samples)
	if err != nil {
		return nil, err
	}
	families := make([]*dto.MetricFamily, 0, n)
	// UTF-8 names are the translation's business, not the decoder's.
	decoder := expfmt.NewDecoder(bytes.NewReader(page), expfmt.FmtProtoDelim+";escaping=allow-utf-8")
	for {
		family := new(dto.MetricFamily)
		switch err := decoder.Decode(family); {
		case err == nil:
			families = append(families, family)
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return families, nil
		default:
			return nil, fmt.Errorf("family %d of the page: %w", len(families)+1, err)
		}
	}
}

// Field numbers of io.prometheus.client (metrics.proto).
const (
	familyMetric    = 4
	metricSummary   = 4
	metricHistogram = 7
	summaryQuantile = 3
	histogramBucket = 3
)

// checkProto walks the frames of a delimited protobuf page before anything is
// allocated for it, and returns how many there are. The decoder would believe a
// frame's length, whatever it is, and make room for it; and a page of empty
// messages is a hundred times its size when decoded.
func checkProto(page []byte, maxSamples int) (frames int, err error) {
	samples := 0
	for rest := page; len(rest) > 0; frames++ {
		family, n := protowire.ConsumeBytes(rest)
		if n < 0 {
			return 0, fmt.Errorf("frame %d at byte %d of %d is cut short or no frame", frames+1, len(page)-len(rest), len(page))
		}
		rest = rest[n:]
		if maxSamples == 0 {
			continue
		}
		if samples += countMetrics(family); samples > maxSamples {
			return 0, &LimitError{What: "samples", Limit: int64(maxSamples)}
		}
	}
	return frames, nil
}

// countMetrics counts the samples of one encoded family. What does not parse is
// counted as nothing: the decoder will refuse it.
func countMetrics(family []byte) (samples int) {
	eachMessage(family, func(field protowire.Number, metric []byte) {
		if field != familyMetric {
			return
		}
		samples++
		eachMessage(metric, func(field protowire.Number, value []byte) {
			switch field {
			case metricSummary:
				samples += 1 + countField(value, summaryQuantile)
			case metricHistogram:
				samples += 1 + countField(value, histogramBucket)
			}
		})
	})
	return samples
}

func countField(message []byte, field protowire.Number) (n int) {
	eachMessage(message, func(f protowire.Number, _ []byte) {
		if f == field {
			n++
		}
	})
	return n
}

// eachMessage calls f with every length-delimited field of an encoded message.
func eachMessage(message []byte, f func(protowire.Number, []byte)) {
	for len(message) > 0 {
		field, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		if typ == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return
			}
			f(field, value)
			message = message[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(field, typ, message); n < 0 {
			return
		}
		message = message[n:]
	}
}

func checkLabels(families []*dto.MetricFamily, limit int) error {
	if limit <= 0 {
		return nil
	}
	for _, f := range families {
		if len(f.GetName()) > limit {
			return &LimitError{What: "label bytes in one label", Limit: int64(limit)}
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if len(l.GetName())+len(l.GetValue()) > limit {
					return fmt.Errorf("family %q: %w", f.GetName(), &LimitError{What: "label bytes in one label", Limit: int64(limit)})
				}
			}
		}
	}
	return nil
}
