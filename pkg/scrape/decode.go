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
	"reflect"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Limits bound a page beyond its bytes; 0 is no limit.
type Limits struct {
	Samples    int
	LabelBytes int
}

// Decode decodes a whole page of the given format, delimited protobuf or text
// 0.0.4, into its families, sorted by name. A page with an error anywhere gives
// no families: half a page would look like series that vanished.
//
// What a page takes in memory is judged before any of it is allocated: 8 MiB
// and 32 times its bytes are allowed, where pages of metrics take 7 to 16 times.
func Decode(page []byte, format expfmt.Format, limits Limits) ([]*dto.MetricFamily, error) {
	return decode(context.Background(), page, format, limits)
}

// decode is Decode, given up when ctx ends.
func decode(ctx context.Context, page []byte, format expfmt.Format, limits Limits) ([]*dto.MetricFamily, error) {
	if limits.Samples <= 0 {
		limits.Samples = math.MaxInt
	}
	var families []*dto.MetricFamily
	var err error
	switch format.FormatType() {
	case expfmt.TypeProtoDelim:
		families, err = decodeProto(ctx, page, limits)
	case expfmt.TypeTextPlain:
		families, err = decodeText(ctx, page, limits)
	default:
		return nil, fmt.Errorf("cannot decode format %q", format)
	}
	if err != nil {
		return nil, err
	}
	if err := checkLabels(families, limits.LabelBytes); err != nil {
		return nil, err
	}
	return families, nil
}

func byName(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) }

// cost adds up what a page will take when it is decoded, before it is.
type cost struct {
	limits  Limits
	samples int
	// decoded is the bytes that decoding allocates, garbage included, and room
	// the bytes that it may. Strings and numbers are left out: they are at most
	// eight times their bytes on the page.
	decoded, room int
}

func newCost(page []byte, limits Limits) *cost {
	return &cost{limits: limits, room: 8<<20 + 32*len(page)}
}

// err is a [LimitError] once the page costs too much.
func (c *cost) err() error {
	switch {
	case c.samples > c.limits.Samples:
		return &LimitError{Problem: fmt.Sprintf("the page has more than %d samples", c.limits.Samples), Setting: "SCRAPE_MAX_SAMPLES"}
	case c.decoded > c.room:
		return &LimitError{Problem: fmt.Sprintf("the page takes more than %d bytes when decoded, as no page of metrics of its size does", c.room)}
	}
	return nil
}

func decodeText(ctx context.Context, page []byte, limits Limits) ([]*dto.MetricFamily, error) {
	if err := checkText(page, limits); err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(&reader{ctx, bytes.NewReader(page)})
	if err != nil {
		return nil, err
	}
	// In random order, and each name once.
	return slices.SortedFunc(maps.Values(parsed), byName), nil
}

// reader ends with ctx.
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

// What expfmt's parser allocates for a line, measured.
const (
	textComment = 256 // a family
	textSample  = 512 // a metric and its value
	textLabel   = 240 // a pair, and for a histogram or summary its copy
	// Looking for duplicates the parser makes a map of all labels so far for
	// each label: up to eight fit where nothing is allocated.
	textLabelPairs = 32
)

// checkText counts the samples of a page, the lines that are neither blank nor
// comments, and what they cost. A label is an equals sign: a value may hold
// more, but there are no fewer.
func checkText(page []byte, limits Limits) error {
	c := newCost(page, limits)
	for line := range bytes.Lines(page) {
		line = bytes.TrimLeft(line, " \t\r\n")
		switch {
		case len(line) == 0:
			continue
		case line[0] == '#':
			if len(line) > len("# TYPE a") {
				c.decoded += textComment
			}
		default:
			labels := bytes.Count(line, []byte{'='})
			c.samples++
			c.decoded += textSample + textLabel*labels
			if labels > 8 {
				c.decoded += textLabelPairs * labels * labels
			}
		}
		if err := c.err(); err != nil {
			return err
		}
	}
	return nil
}

func decodeProto(ctx context.Context, page []byte, limits Limits) ([]*dto.MetricFamily, error) {
	n, err := checkProto(page, limits)
	if err != nil {
		return nil, err
	}
	families := make([]*dto.MetricFamily, 0, n)
	// UTF-8 names are the translation's business, not the decoder's.
	decoder := expfmt.NewDecoder(bytes.NewReader(page), expfmt.FmtProtoDelim+";escaping=allow-utf-8")
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		family := new(dto.MetricFamily)
		switch err := decoder.Decode(family); {
		case err == nil:
			families = append(families, family)
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			// Sorted already on every honest page; a name may be there twice.
			slices.SortStableFunc(families, byName)
			return families, nil
		default:
			return nil, fmt.Errorf("family %d of the page: %w", len(families)+1, err)
		}
	}
}

// checkProto walks a delimited protobuf page and counts its frames, its samples
// and what it costs. The decoder would believe a frame's length, whatever it is,
// and make room for it; a page of empty messages is a hundred times its size when
// decoded; and each packed run of numbers copies the runs before it.
func checkProto(page []byte, limits Limits) (frames int, err error) {
	c := newCost(page, limits)
	for rest := page; len(rest) > 0; frames++ {
		family, n := protowire.ConsumeBytes(rest)
		if n < 0 {
			return 0, fmt.Errorf("frame %d at byte %d of %d is cut short or no frame", frames+1, len(page)-len(rest), len(page))
		}
		rest = rest[n:]
		c.decoded += familyMessage.size
		c.add(family, familyMessage)
		if err := c.err(); err != nil {
			return 0, err
		}
	}
	return frames, nil
}

// message says what decoding a kind of message allocates.
type message struct {
	size    int  // of the struct
	samples int  // what the message counts for, as lines of the text format
	deep    bool // whether any field is a message or a list
	fields  [32]struct {
		message *message // of its value; nil for a number or a string
		list    bool
	}
}

// pointer and number are what an element of a list takes in the list, which
// grows and grows again.
const pointer, number = 40, 40

var familyMessage = newMessage((*dto.MetricFamily)(nil).ProtoReflect())

// newMessage reads a kind of message, and those in its fields, off a message.
func newMessage(m protoreflect.Message) *message {
	kind := &message{size: int(reflect.TypeOf(m.Interface()).Elem().Size()) + pointer}
	switch m.Interface().(type) {
	case *dto.Metric, *dto.Summary, *dto.Quantile, *dto.Histogram, *dto.Bucket:
		kind.samples = 1
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		field := &kind.fields[f.Number()]
		field.list = f.IsList()
		kind.deep = kind.deep || f.IsList() || f.Message() != nil
		switch {
		case f.Message() == nil:
		case f.IsList():
			field.message = newMessage(m.NewField(f).List().NewElement().Message())
		default:
			field.message = newMessage(m.NewField(f).Message())
		}
	}
	return kind
}

// add adds what an encoded message of that kind costs beside its struct, and
// stops early where that is too much. What does not parse costs nothing: the
// decoder will refuse it.
func (c *cost) add(encoded []byte, kind *message) {
	numbers := 0 // in lists, at most
	for len(encoded) > 0 && c.decoded <= c.room {
		tag, typ, n := protowire.ConsumeTag(encoded)
		if n < 0 {
			return
		}
		encoded = encoded[n:]
		var value []byte
		if typ == protowire.BytesType {
			value, n = protowire.ConsumeBytes(encoded)
		} else {
			n = protowire.ConsumeFieldValue(tag, typ, encoded)
		}
		if n < 0 {
			return
		}
		encoded = encoded[n:]
		if int(tag) >= len(kind.fields) {
			continue
		}
		switch f := &kind.fields[tag]; {
		case f.message != nil && typ == protowire.BytesType:
			c.samples += f.message.samples
			c.decoded += f.message.size
			if f.message.deep {
				c.add(value, f.message)
			}
		case !f.list:
		case typ == protowire.BytesType: // packed: the list so far is copied
			numbers += len(value)
			c.decoded += 8 * numbers
		default:
			numbers++
			c.decoded += number
		}
	}
}

func checkLabels(families []*dto.MetricFamily, limit int) error {
	if limit <= 0 {
		return nil
	}
	const setting = "SCRAPE_MAX_LABEL_BYTES"
	for _, f := range families {
		if len(f.GetName()) > limit {
			return &LimitError{Problem: fmt.Sprintf("the name of a family has more than %d bytes", limit), Setting: setting}
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if len(l.GetName())+len(l.GetValue()) > limit {
					return &LimitError{Problem: fmt.Sprintf("a label of family %q has more than %d bytes, name and value", f.GetName(), limit), Setting: setting}
				}
			}
		}
	}
	return nil
}
