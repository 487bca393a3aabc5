package collector

import (
	"bytes"
	"context"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	_ "google.golang.org/grpc/encoding/proto" // the codec of the replies
)

// Request is an ExportMetricsServiceRequest in its wire format.
type Request struct {
	Body     Body
	Encoding string // the compression of Body: Uncompressed, Gzip or Zstd
}

// Body is the bytes of a request. gRPC may need them for longer than the call
// that sends them: after a timeout its transport may still be writing. Retain
// and Release say how long.
type Body interface {
	Bytes() []byte
	Retain()
	Release()
}

// Export sends r once and returns the Collector's reply. Without waitForReady
// it fails at once if the connection is known to be down; with it, it waits for
// the connection until ctx ends.
func Export(ctx context.Context, conn grpc.ClientConnInterface, r *Request, waitForReady bool) (*colmetricpb.ExportMetricsServiceResponse, error) {
	options := []grpc.CallOption{withCodec, grpc.WaitForReady(waitForReady)}
	if r.Encoding != Uncompressed {
		options = append(options, grpc.UseCompressor(r.Encoding))
	}
	reply := &colmetricpb.ExportMetricsServiceResponse{}
	err := conn.Invoke(ctx, colmetricpb.MetricsService_Export_FullMethodName, r, reply, options...)
	return reply, err
}

// codec sends the bytes of a [Request] as they are and leaves all else to
// gRPC's own codec.
type codec struct{ encoding.CodecV2 }

var withCodec = grpc.ForceCodecV2(codec{encoding.GetCodecV2("proto")})

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(*Request)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	body := lend(r.Body)
	if r.Encoding == Uncompressed {
		return mem.BufferSlice{body}, nil
	}
	return mem.BufferSlice{mem.SliceBuffer(readyMark), body}, nil
}

// lend returns a buffer with the bytes of b that releases b when gRPC has
// finished with it.
func lend(b Body) mem.Buffer {
	data := b.Bytes()
	if mem.IsBelowBufferPoolingThreshold(cap(data)) {
		return mem.SliceBuffer(bytes.Clone(data)) // gRPC does not count the users of a small buffer
	}
	b.Retain()
	return mem.NewBuffer(&data, loan{b})
}

// loan is the end of a [Body]'s use by gRPC, in the form of the pool to which
// its buffer returns.
type loan struct{ body Body }

func (l loan) Put(*[]byte) { l.body.Release() }

// Get is not called: nothing is allocated from a loan.
func (loan) Get(n int) *[]byte { return new(make([]byte, n)) }
