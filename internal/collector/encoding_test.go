package collector

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
)

func zstdOf(t testing.TB, b []byte, options ...zstd.EOption) []byte {
	t.Helper()
	zw, err := zstd.NewWriter(nil, append(options, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	return zw.EncodeAll(b, nil)
}

func gzipOf(b []byte) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	_, _ = zw.Write(b)
	_ = zw.Close()
	return out.Bytes()
}

// What others in the process send is compressed, also if it is the byte that
// marks what is compressed already.
func TestAMessageThatIsNotMarkedIsCompressed(t *testing.T) {
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		Gzip: func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		Zstd: func(r io.Reader) (io.Reader, error) {
			zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
			if err != nil {
				return nil, err
			}
			t.Cleanup(zr.Close)
			return zr, nil
		},
	} {
		for _, message := range []string{"", "\x00", "\x00\x00more", strings.Repeat("metric", 10_000)} {
			var out bytes.Buffer
			z, err := encoding.GetCompressor(name).Compress(&out)
			if err != nil {
				t.Fatal(err)
			}
			for _, piece := range []string{message[:len(message)/2], message[len(message)/2:]} {
				if _, err := z.Write([]byte(piece)); err != nil {
					t.Fatal(err)
				}
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := open(&out)
			if err != nil {
				t.Fatalf("%s of %d bytes: %v", name, len(message), err)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != message {
				t.Errorf("%s of %d bytes gives %d, %v", name, len(message), len(got), err)
			}
		}
	}
}

func TestDecompressionIsReal(t *testing.T) {
	message := []byte(strings.Repeat("metric", 10_000))
	for range 3 { // with decoders that were used
		for _, c := range []struct {
			name string
			b    []byte
		}{
			{Gzip, gzipOf(message)},
			{Zstd, zstdOf(t, message)},
			{Zstd, zstdOf(t, message, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(maxWindow))},
		} {
			r, err := encoding.GetCompressor(c.name).Decompress(bytes.NewReader(c.b))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, message) {
				t.Errorf("%s gives %d bytes, %v", c.name, len(got), err)
			}
			if err := r.(io.Closer).Close(); err != nil {
				t.Error(err)
			}
			if r, err = encoding.GetCompressor(c.name).Decompress(strings.NewReader("not compressed")); err == nil {
				if _, err = io.ReadAll(r); err == nil {
					t.Errorf("%s takes what is not compressed", c.name)
				}
			}
		}
	}
}

// service is a receiver that gives the same reply to each request, or none.
type service struct {
	colmetricpb.UnimplementedMetricsServiceServer
	reply *colmetricpb.ExportMetricsServiceResponse
	hang  atomic.Bool
}

func (s *service) Export(ctx context.Context, _ *colmetricpb.ExportMetricsServiceRequest) (*colmetricpb.ExportMetricsServiceResponse, error) {
	if s.hang.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.reply, nil
}

func (s *service) serve(t *testing.T) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	colmetricpb.RegisterMetricsServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// body counts its users.
type body struct {
	b     []byte
	users atomic.Int32
	ever  atomic.Int32
	idle  chan struct{}
}

func newBody(b []byte) *body { return &body{b: b, idle: make(chan struct{}, 100)} }

func (b *body) Bytes() []byte { return b.b }
func (b *body) Retain()       { b.users.Add(1); b.ever.Add(1) }
func (b *body) Release() {
	if b.users.Add(-1) == 0 {
		b.idle <- struct{}{}
	}
}

func someRequest(t *testing.T, points int) []byte {
	t.Helper()
	gauge := &metricpb.Gauge{}
	for i := range points {
		gauge.DataPoints = append(gauge.DataPoints, &metricpb.NumberDataPoint{TimeUnixNano: uint64(i) * 7919})
	}
	b, err := proto.Marshal(&colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{{
		ScopeMetrics: []*metricpb.ScopeMetrics{{Metrics: []*metricpb.Metric{{Name: "m", Data: &metricpb.Metric_Gauge{Gauge: gauge}}}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExportSendsEachCompressionAndUnderstandsCompressedReplies(t *testing.T) {
	s := &service{reply: &colmetricpb.ExportMetricsServiceResponse{PartialSuccess: &colmetricpb.ExportMetricsPartialSuccess{ErrorMessage: strings.Repeat("why ", 1000)}}}
	conn := s.serve(t)
	for _, points := range []int{1, 10_000} {
		request := someRequest(t, points)
		for encoding, b := range map[string][]byte{Uncompressed: request, Gzip: gzipOf(request), Zstd: zstdOf(t, request)} {
			// The server compresses its reply as the request was.
			reply, err := Export(t.Context(), conn, &Request{Body: newBody(b), Encoding: encoding}, false)
			if err != nil || !proto.Equal(reply, s.reply) {
				t.Errorf("%d points as %q: %v, %v", points, encoding, reply, err)
			}
		}
	}
	// Ordinary clients of the same process.
	for _, encoding := range []string{Gzip, Zstd} {
		reply, err := colmetricpb.NewMetricsServiceClient(conn).Export(t.Context(), &colmetricpb.ExportMetricsServiceRequest{
			ResourceMetrics: []*metricpb.ResourceMetrics{{SchemaUrl: "x"}}}, grpc.UseCompressor(encoding))
		if err != nil || !proto.Equal(reply, s.reply) {
			t.Errorf("an ordinary client with %s: %v, %v", encoding, reply, err)
		}
	}
}

func TestABodyIsReleasedWhenGRPCHasFinishedWithIt(t *testing.T) {
	s := &service{reply: &colmetricpb.ExportMetricsServiceResponse{}}
	conn := s.serve(t)
	request := someRequest(t, 100_000)
	for encoding, b := range map[string][]byte{Uncompressed: request, Gzip: gzipOf(request), Zstd: zstdOf(t, request)} {
		body := newBody(b)
		for range 3 {
			if _, err := Export(t.Context(), conn, &Request{Body: body, Encoding: encoding}, false); err != nil {
				t.Fatal(err)
			}
			<-body.idle
		}
		s.hang.Store(true)
		for timeout := range 10 { // before, while and after it is written
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(timeout+1)*300*time.Microsecond)
			ever := body.ever.Load()
			_, err := Export(ctx, conn, &Request{Body: body, Encoding: encoding}, false)
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("a hanging server: %v", err)
			}
			cancel()
			if body.ever.Load() > ever { // it was lent
				<-body.idle
			}
		}
		s.hang.Store(false)
		if n := body.users.Load(); n != 0 {
			t.Errorf("%q: %d users are left", encoding, n)
		}
	}
}

func TestAReplyThatIsABombIsBounded(t *testing.T) {
	zeros := make([]byte, 1<<20)
	var bomb, wide bytes.Buffer
	for out, window := range map[*bytes.Buffer]int{&bomb: 1 << 20, &wide: 512 << 20} {
		zw, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
		if err != nil {
			t.Fatal(err)
		}
		for range 256 {
			_, _ = zw.Write(zeros)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range map[string][]byte{"256 MiB of zeros": bomb.Bytes(), "a window of 512 MiB": wide.Bytes()} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := encoding.GetCompressor(Zstd).Decompress(bytes.NewReader(b))
		if err == nil {
			_, err = io.Copy(io.Discard, io.LimitReader(r, 4<<20+1)) // as gRPC does
			_ = r.(io.Closer).Close()
		}
		runtime.ReadMemStats(&after)
		if strings.HasPrefix(name, "a window") && !errors.Is(err, zstd.ErrWindowSizeExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 24<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}
