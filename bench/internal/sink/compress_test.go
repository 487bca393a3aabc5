package sink

import (
	"bytes"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/encoding"
)

// TestDecompress reads several messages one after the other, as a connection does.
func TestDecompress(t *testing.T) {
	compress := map[string]func(io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	}
	for name, writer := range compress {
		for i := range 3 {
			want := bytes.Repeat([]byte{byte(i), 1, 2, 3}, 10_000)
			var b bytes.Buffer
			w := writer(&b)
			if _, err := w.Write(want); err != nil {
				t.Fatal(err)
			}
			w.Close()
			r, err := encoding.GetCompressor(name).Decompress(&b)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); !bytes.Equal(got, want) || err != nil {
				t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
			}
		}
	}
}
