package delivery

import (
	"context"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// swallow is a server whose codec leaves requests as they are, so that the
// benchmark measures the client.
type swallow struct{ encoding.CodecV2 }

func (s swallow) Unmarshal(mem.BufferSlice, any) error { return nil }

func swallowing(b testing.TB) *grpc.ClientConn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	newReceiver().serve(b, l, grpc.ForceServerCodecV2(swallow{encoding.GetCodecV2("proto")}))
	return dial(b, l.Addr().String())
}

// BenchmarkDeliver is one export, from Accept to the Collector's answer, with
// a healthy Collector: the real page, and one of 30,000 series.
func BenchmarkDeliver(b *testing.B) {
	for _, req := range []*request{realPage(b), page(1, 30_000)} {
		for _, compression := range compressions {
			b.Run(fmt.Sprintf("points=%d/compression=%s", countPoints(req), compression), func(b *testing.B) {
				q := open(b, Config{Conn: swallowing(b), Dir: b.TempDir(), Compression: compression})
				accept(b, q, nil, page(1, 1))
				await(q, func(s Stats) bool { return s.QueuedRequests == 0 })
				request, points := encode(req), countPoints(req)
				b.SetBytes(int64(len(request)))
				b.ReportAllocs()
				var before, after unix.Rusage
				_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
				for b.Loop() {
					if err := q.Accept(request, points); err != nil {
						b.Fatal(err)
					}
					await(q, func(s Stats) bool { return s.QueuedRequests == 0 })
				}
				_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
				cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
				b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// BenchmarkSpool is one export to the disk, with the Collector away.
func BenchmarkSpool(b *testing.B) {
	for _, req := range []*request{realPage(b), page(1, 100_000)} {
		b.Run(fmt.Sprintf("points=%d", countPoints(req)), func(b *testing.B) {
			q := open(b, Config{Conn: nowhere, Dir: b.TempDir()})
			b.SetBytes(int64(proto.Size(req)))
			b.ReportAllocs()
			request, points := encode(req), countPoints(req)
			for b.Loop() {
				if err := q.Accept(request, points); err != nil {
					b.Fatal(err)
				}
			}
			s := q.Stats()
			b.ReportMetric(float64(s.DiskBytes)/float64(s.QueuedRequests), "disk-B/request")
		})
	}
}

// BenchmarkDrain is what a thousand requests take from the disk to the
// Collector's answer, without the pace.
func BenchmarkDrain(b *testing.B) {
	req := realPage(b)
	conn := swallowing(b)
	b.SetBytes(1000 * int64(proto.Size(req)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		dir := b.TempDir()
		q := open(b, Config{Conn: nowhere, Dir: dir})
		for range 1000 {
			accept(b, q, nil, req)
		}
		if err := q.Close(ended()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		q = open(b, Config{Conn: conn, Dir: dir, Pace: 1})
		if err := q.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
