package scrape

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protodelim"
)

// encodeText writes an exposition in text format 0.0.4 to b as delimited
// protobuf, its families sorted by name. An error anywhere is an error of the
// whole: half an exposition would look like series that vanished.
func encodeText(ctx context.Context, b *buffer, exposition []byte, limits limits) error {
	if err := checkText(exposition, limits); err != nil {
		return err
	}
	families, err := parseText(&reader{ctx, bytes.NewReader(exposition)})
	if err != nil {
		return err
	}
	b.data = b.data[:0]
	for _, family := range slices.SortedFunc(maps.Values(families), byName) { // in random order, and each name once
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// What expfmt's encoder does for that format. It would link those of
		// all other formats too.
		if _, err := protodelim.MarshalTo(b, family); err != nil {
			return err
		}
	}
	limits.samples = math.MaxInt // they are counted, and a family without _sum and _count has fewer lines
	return checkProtobuf(ctx, b.data, limits)
}

// parseText is expfmt's parser. A panic of it is an error: it reads what
// strangers wrote.
func parseText(r io.Reader) (families map[string]*dto.MetricFamily, err error) {
	defer func() {
		if p := recover(); p != nil {
			families, err = nil, fmt.Errorf("the text parser failed: %v", p)
		}
	}()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(r)
}

func byName(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) }

// reader fails once ctx is done.
type reader struct {
	ctx context.Context // of the one call that reads
	io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// What expfmt's parser allocates for a line, as measured.
const (
	textComment = 256 // a family
	textSample  = 512 // a metric and its value
	textLabel   = 240 // a pair, and for a histogram or summary its copy
	// Looking for duplicates the parser makes a map of all labels so far for
	// each label: up to eight fit without an allocation.
	textLabelPairs = 32
)

// maxTypeLine bounds what is looked at of a comment; of a longer one it is assumed
// that it declares a summary or histogram.
const maxTypeLine = 4 << 10

// checkText counts the samples of an exposition, the lines that are neither
// blank nor comments, and estimates what parsing them allocates: 8 MiB and 32
// times the exposition's bytes are allowed, where real ones take 7 to 16 times.
// Strings are left out: they are at most eight times their bytes. An equals sign
// counts as a label: a value may contain some, but there are never fewer.
//
// It also refuses what the parser (v0.73.1) gets wrong: where a line names its
// metric in braces, it goes by the type of the line before, and writes the
// numbers of one summary or histogram into another's, or panics.
func checkText(exposition []byte, limits limits) error {
	room := 8<<20 + 32*len(exposition)
	var samples, allocated int
	var compound bool // a summary or histogram may have been declared
	for line := range bytes.Lines(exposition) {
		line = bytes.TrimLeft(line, " \t\r\n")
		switch {
		case len(line) == 0:
			continue
		case line[0] == '#':
			if len(line) > len("# TYPE a") {
				allocated += textComment
			}
			lower := bytes.ToLower(line[:min(len(line), maxTypeLine)])
			compound = compound || len(line) > maxTypeLine ||
				bytes.Contains(lower, []byte("summary")) || bytes.Contains(lower, []byte("histogram"))
		case line[0] == '{' && compound:
			return errors.New("a metric name in braces in an exposition with summaries or histograms is not supported")
		default:
			labels := bytes.Count(line, []byte{'='})
			samples++
			allocated += textSample + textLabel*labels
			if labels > 8 {
				allocated += textLabelPairs * labels * labels
			}
		}
		switch {
		case samples > limits.samples:
			return &LimitError{Limit: LimitSamples, Max: int64(limits.samples)}
		case allocated > room:
			return &LimitError{Limit: LimitMemory, Max: int64(room)}
		}
	}
	return nil
}
