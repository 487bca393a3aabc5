package scrape

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/common/expfmt"
)

func page(t testing.TB, name string) []byte {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "testdata", "pages", name))
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestDecodingIsGivenUpWhenTheScrapeIs(t *testing.T) {
	timeout := errors.New("no whole page")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(timeout)
	for name, format := range map[string]expfmt.FormatType{"297-active.pb": expfmt.TypeProtoDelim, "297-active.txt": expfmt.TypeTextPlain} {
		families, err := decode(ctx, page(t, name), expfmt.NewFormat(format), Limits{})
		if families != nil || !errors.Is(err, timeout) {
			t.Errorf("%s: %d families, error %v", name, len(families), err)
		}
	}
}

// BenchmarkCheck is what the limits of a page cost, to be compared with
// BenchmarkDecode, which includes it.
func BenchmarkCheck(b *testing.B) {
	b.Run("protobuf", func(b *testing.B) {
		page := page(b, "297-active.pb")
		b.SetBytes(int64(len(page)))
		for b.Loop() {
			if _, err := checkProto(page, Limits{Samples: DefaultMaxSamples}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("text", func(b *testing.B) {
		page := page(b, "297-active.txt")
		b.SetBytes(int64(len(page)))
		for b.Loop() {
			if err := checkText(page, Limits{Samples: DefaultMaxSamples}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for name, test := range map[string]struct {
		file   string
		format expfmt.FormatType
	}{
		"protobuf": {"297-active.pb", expfmt.TypeProtoDelim},
		"text":     {"297-active.txt", expfmt.TypeTextPlain},
	} {
		b.Run(name, func(b *testing.B) {
			page := page(b, test.file)
			b.SetBytes(int64(len(page)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(page, expfmt.NewFormat(test.format), Limits{Samples: DefaultMaxSamples}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
