package sink

import (
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/encoding"
)

func init() {
	encoding.RegisterCompressor(&decompressor{name: "gzip", reset: func(old, r io.Reader) (io.Reader, error) {
		if z, ok := old.(*gzip.Reader); ok {
			return z, z.Reset(r)
		}
		return gzip.NewReader(r)
	}})
	encoding.RegisterCompressor(&decompressor{name: "zstd", reset: func(old, r io.Reader) (io.Reader, error) {
		if z, ok := old.(*zstd.Decoder); ok {
			return z, z.Reset(r)
		}
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	}})
}

// decompressor reads what is compressed; the sink compresses nothing, since its responses are empty.
type decompressor struct {
	name  string
	reset func(old, r io.Reader) (io.Reader, error)
	pool  sync.Pool
}

// Name is what grpc-encoding says.
func (d *decompressor) Name() string { return d.name }

// Compress is never used.
func (*decompressor) Compress(io.Writer) (io.WriteCloser, error) {
	return nil, errors.New("the sink compresses nothing")
}

// Decompress takes a reader from the pool, which gets it back at the end of the message.
func (d *decompressor) Decompress(r io.Reader) (io.Reader, error) {
	old, _ := d.pool.Get().(io.Reader)
	z, err := d.reset(old, r)
	if err != nil {
		return nil, err
	}
	return &pooled{Reader: z, pool: &d.pool}, nil
}

type pooled struct {
	io.Reader
	pool *sync.Pool
}

// Read returns the reader to the pool after the last byte.
func (p *pooled) Read(b []byte) (int, error) {
	if p.pool == nil {
		return 0, io.EOF
	}
	n, err := p.Reader.Read(b)
	if errors.Is(err, io.EOF) {
		p.pool.Put(p.Reader)
		p.pool = nil
	}
	return n, err
}
