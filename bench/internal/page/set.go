package page

import (
	"bytes"
	"fmt"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protowire"
)

// Body is one exposition in one format, and the pieces in which promhttp hands it to the HTTP server: these decide how
// it is chunked on the wire.
type Body struct {
	Bytes []byte
	ends  []int
}

// Write appends a piece.
func (b *Body) Write(piece []byte) (int, error) {
	b.Bytes = append(b.Bytes, piece...)
	b.ends = append(b.ends, len(b.Bytes))
	return len(piece), nil
}

// writeTo writes the body piece by piece.
func (b *Body) writeTo(w http.ResponseWriter) error {
	start := 0
	for _, end := range b.ends {
		if _, err := w.Write(b.Bytes[start:end]); err != nil {
			return err
		}
		start = end
	}
	return nil
}

// Set is a row of expositions of one page, as consecutive scrapes see them.
type Set struct {
	Name            string
	Samples, Points int
	Protobuf, Text  []Body
}

// Encode returns so many consecutive expositions of a page of so many samples, in both formats.
func Encode(samples, expositions int) (*Set, error) {
	p := New(samples)
	s := &Set{Name: fmt.Sprint(samples), Samples: p.Samples, Points: p.Points}
	for range expositions {
		p.Move()
		protobuf, text, err := encode(p.Registry, len(s.last(s.Protobuf)), len(s.last(s.Text)))
		if err != nil {
			return nil, err
		}
		s.Protobuf = append(s.Protobuf, protobuf)
		s.Text = append(s.Text, text)
	}
	return s, nil
}

func (*Set) last(bodies []Body) []byte {
	if len(bodies) == 0 {
		return nil
	}
	return bodies[len(bodies)-1].Bytes
}

var (
	formatProtobuf = expfmt.NewFormat(expfmt.TypeProtoDelim)
	formatText     = expfmt.NewFormat(expfmt.TypeTextPlain)
)

// encode gathers once, so that both formats show the same moment. The sizes are estimates.
func encode(g prometheus.Gatherer, protobufSize, textSize int) (protobuf, text Body, err error) {
	families, err := g.Gather()
	if err != nil {
		return protobuf, text, err
	}
	protobuf.Bytes = make([]byte, 0, protobufSize*101/100)
	text.Bytes = make([]byte, 0, textSize*101/100)
	for _, family := range families {
		if err := expfmt.NewEncoder(&protobuf, formatProtobuf).Encode(family); err != nil {
			return protobuf, text, err
		}
		if err := expfmt.NewEncoder(&text, formatText).Encode(family); err != nil {
			return protobuf, text, err
		}
	}
	return protobuf, text, nil
}

// ReadFile returns a Set of the one exposition that a file holds as delimited protobuf, served as it is.
func ReadFile(name string) (*Set, error) {
	data, err := os.ReadFile(name) //nolint:gosec // the caller names it
	if err != nil {
		return nil, err
	}
	s := &Set{Name: "file"}
	var protobuf, text Body
	for rest := data; len(rest) > 0; {
		_, n := protowire.ConsumeBytes(rest)
		if n < 0 {
			return nil, fmt.Errorf("%s is not delimited protobuf: %w", name, protowire.ParseError(n))
		}
		_, _ = protobuf.Write(rest[:n])
		rest = rest[n:]
	}
	families, err := Decode(bytes.NewReader(data), formatProtobuf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, family := range families {
		if err := expfmt.NewEncoder(&text, formatText).Encode(family); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		s.Points += len(family.GetMetric())
	}
	for line := range bytes.Lines(text.Bytes) {
		if line[0] != '#' {
			s.Samples++
		}
	}
	s.Protobuf, s.Text = []Body{protobuf}, []Body{text}
	return s, nil
}
