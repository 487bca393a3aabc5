package collector

import (
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip" // registers before this package does
)

// The compressions of a request: the names are gRPC's, as in the header
// grpc-encoding.
const (
	Uncompressed = ""
	Gzip         = gzip.Name
	Zstd         = "zstd"
)

// gRPC finds its compressors in a registry of the process, by name. What is
// registered here compresses as these names say, for every connection and
// server of the process; only a request that [Export] marks as compressed is
// passed through as it is.
func init() {
	encoding.RegisterCompressor(passThrough{encoding.GetCompressor(Gzip)})
	encoding.RegisterCompressor(passThrough{&zstdCompressor{}})
}

// readyMark is the first piece of a message that is compressed already. It is
// recognized by its address and not sent.
var readyMark = []byte{0}

// passThrough is a compressor that leaves marked messages alone.
type passThrough struct{ encoding.Compressor }

func (p passThrough) Compress(w io.Writer) (io.WriteCloser, error) {
	return &passThroughWriter{compressor: p.Compressor, w: w}, nil
}

type passThroughWriter struct {
	compressor encoding.Compressor
	w          io.Writer
	ready      bool           // the message was marked
	z          io.WriteCloser // of a message that was not; nil before its first piece
}

func (p *passThroughWriter) Write(b []byte) (int, error) {
	switch {
	case p.ready:
		return p.w.Write(b)
	case p.z == nil && len(b) > 0 && &b[0] == &readyMark[0]:
		p.ready = true
		return len(b), nil
	case p.z == nil:
		var err error
		if p.z, err = p.compressor.Compress(p.w); err != nil {
			return 0, err
		}
	}
	return p.z.Write(b)
}

func (p *passThroughWriter) Close() error {
	if p.z == nil {
		return nil
	}
	return p.z.Close()
}

// maxWindow bounds the memory that a zstd frame makes its decoder take. 8 MiB
// is what RFC 8878 asks every decoder to support, and what encoders use up to
// their default levels.
const maxWindow = 8 << 20

// zstdCompressor is zstd for messages of others: a server's replies, and what
// other clients send to a server of this process. gRPC bounds what a message
// may have after decompression.
type zstdCompressor struct {
	encoders, decoders sync.Pool
}

func (*zstdCompressor) Name() string { return Zstd }

func (c *zstdCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	if z, ok := c.encoders.Get().(*zstdWriter); ok {
		z.Reset(w)
		return z, nil
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(256<<10))
	if err != nil {
		return nil, err
	}
	return &zstdWriter{z, &c.encoders}, nil
}

func (c *zstdCompressor) Decompress(r io.Reader) (io.Reader, error) {
	if z, ok := c.decoders.Get().(*zstdReader); ok {
		if err := z.Reset(r); err != nil {
			return nil, err
		}
		return z, nil
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return &zstdReader{z, &c.decoders}, nil
}

// zstdWriter returns to its pool when it is closed.
type zstdWriter struct {
	*zstd.Encoder
	pool *sync.Pool
}

func (w *zstdWriter) Close() error {
	err := w.Encoder.Close()
	w.pool.Put(w)
	return err
}

// zstdReader returns to its pool when it is closed, as gRPC does.
type zstdReader struct {
	*zstd.Decoder
	pool *sync.Pool
}

func (r *zstdReader) Close() error {
	_ = r.Reset(nil)
	r.pool.Put(r)
	return nil
}
