package delivery

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/http2"

	"otelmetricsplugin/internal/collector"
)

// capture is a server that hands on the gRPC message of each stream and never
// answers.
func capture(messages chan<- []byte) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		var message []byte
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				message = nil
			case *http2.DataFrame:
				message = append(message, frame.Data()...)
				_ = f.WriteWindowUpdate(0, uint32(len(frame.Data()))+1)
				_ = f.WriteWindowUpdate(frame.StreamID, uint32(len(frame.Data()))+1)
				if frame.StreamEnded() {
					messages <- message
				}
			}
		}
	}
}

func TestTheBytesOnTheDiskAreTheBytesOnTheWire(t *testing.T) {
	const flag = 1 // compressed
	for _, compression := range []string{collector.Gzip, collector.Zstd} {
		t.Run(compression, func(t *testing.T) {
			messages := make(chan []byte, 100)
			l := listen(t, "127.0.0.1:0")
			defer l.Close()
			p := newProxy(t, l.Addr().String())
			p.breaks(func(_ int, c net.Conn) bool {
				capture(messages)(c)
				return true
			})
			cfg := quick(t, dial(t, p.addr()))
			cfg.Compression, cfg.Timeout = compression, time.Minute
			q := open(t, cfg)
			accept(t, q, nil, realPage(t))
			message := <-messages // it is on the disk, as the first of a process
			names := files(t, cfg.Dir)
			if len(names) != 1 {
				t.Fatalf("in the spool: %v", names)
			}
			file, err := os.ReadFile(filepath.Join(cfg.Dir, names[0]))
			if err != nil {
				t.Fatal(err)
			}
			if message[0] != flag || int(binary.BigEndian.Uint32(message[1:])) != len(file) || !bytes.Equal(message[5:], file) {
				t.Errorf("%d bytes on the wire with flag %d, %d other bytes on the disk", len(message)-5, message[0], len(file))
			}
			if err := q.Close(ended()); err != nil {
				t.Fatal(err)
			}

			// So they are when another process sends them.
			q = open(t, cfg)
			if again := <-messages; !bytes.Equal(again, message) {
				t.Errorf("sent from the disk they are %d other bytes", len(again))
			}
			if err := q.Close(ended()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// firstEdition writes a file of the spool as the first edition did.
func firstEdition(t *testing.T, dir string, seq uint64, req *request) {
	t.Helper()
	var b bytes.Buffer
	zw, err := stdgzip.NewWriterLevel(&b, stdgzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	zw.Comment = "otelmetricsplugin spool 1"
	if _, err := zw.Write(encode(req)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	it := &item{key: key(seq), accepted: time.Now(), points: countPoints(req)}
	name := it.name()
	if !strings.HasSuffix(name, ".pb.gz") {
		t.Fatal(name)
	}
	if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesOfEveryCompressionAreDeliveredUnderEveryCompression(t *testing.T) {
	for _, compression := range compressions {
		t.Run("compression="+compression, func(t *testing.T) {
			dir, want, c := t.TempDir(), ledger{}, newReceiver()
			for seq := range 3 {
				req := page(seq, 100)
				want.add(req)
				firstEdition(t, dir, uint64(seq), req)
			}
			for n, other := range compressions {
				req := page(3+n, 100)
				want.add(req)
				q := open(t, Config{Conn: nowhere, Dir: dir, Compression: other})
				accept(t, q, nil, req)
				if err := q.Close(ended()); err != nil {
					t.Fatal(err)
				}
			}
			var encodings []string
			straight := to(c)
			q := open(t, Config{Conn: rawConn(func(ctx context.Context, r *collector.Request) (*response, error) {
				encodings = append(encodings, r.Encoding)
				data, err := decompress(r)
				if err != nil {
					return nil, err
				}
				return straight(ctx, data)
			}), Dir: dir, Compression: compression, Pace: 1})
			drained(t, q)
			if d := compare(t, want, c.held); d != 0 {
				t.Errorf("%d points twice", d)
			}
			if len(encodings) != 6 || slices.ContainsFunc(encodings, func(e string) bool { return e != compression }) {
				t.Errorf("sent as %q", encodings)
			}
		})
	}
}

// The older program must read the newer one's files after a downgrade.
func TestAGzipFileIsThatOfTheFirstEdition(t *testing.T) {
	for _, compression := range []string{collector.Uncompressed, collector.Gzip} {
		dir, req := t.TempDir(), page(1, 3)
		q := open(t, Config{Conn: nowhere, Dir: dir, Compression: compression})
		accept(t, q, nil, req)
		if err := q.Close(ended()); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(dir, files(t, dir)[0]))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		zr, err := stdgzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(zr)
		if err != nil || zr.Comment != "otelmetricsplugin spool 1" || !bytes.Equal(b, encode(req)) {
			t.Errorf("%d bytes, comment %q, %v", len(b), zr.Comment, err)
		}
	}
}

func TestZstdFileWithAFlippedBitOrCutShortLosesAtMostThatRecord(t *testing.T) {
	p := newPacker(collector.Zstd)
	request := encode(page(3, 30))
	packed := p.pack(request).bytes
	unpack := func(what string, i int, b []byte) {
		t.Helper()
		got, err := p.unpack(b, collector.Zstd)
		switch {
		case err != nil && !errors.Is(err, errDamaged):
			t.Errorf("%s %d: %v", what, i, err)
		case err == nil && !bytes.Equal(got.bytes, request):
			t.Fatalf("%s %d: other bytes came back", what, i)
		case err == nil && what != "bit":
			t.Errorf("%s %d: unnoticed", what, i)
		}
	}
	for i := range len(packed) * 8 {
		flipped := slices.Clone(packed)
		flipped[i/8] ^= 1 << (i % 8)
		unpack("bit", i, flipped)
	}
	for i := range packed {
		unpack("cut at", i, packed[:i])
	}
	for i := range 6 {
		unpack("bytes too many:", i+1, append(slices.Clone(packed), make([]byte, i+1)...))
	}
	unpack("second frame", 0, append(slices.Clone(packed), packed...))

	// Through a whole queue.
	dir, want, c := t.TempDir(), ledger{}, newReceiver()
	q := open(t, Config{Conn: nowhere, Dir: dir, Compression: collector.Zstd})
	for scrape := range 3 {
		accept(t, q, nil, page(scrape, 7))
	}
	if err := q.Close(ended()); err != nil {
		t.Fatal(err)
	}
	want.add(page(0, 7))
	want.add(page(2, 7))
	second := filepath.Join(dir, files(t, dir)[1])
	b, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(second, b, 0o600); err != nil {
		t.Fatal(err)
	}
	q = open(t, Config{Conn: to(c), Dir: dir, Compression: collector.Zstd, Pace: 1})
	if err := q.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	compare(t, want, c.held)
	if s := q.Stats(); s.Dropped[DroppedDamaged] != 7 {
		t.Errorf("%+v", s)
	}
	if got := files(t, dir); !slices.Equal(got, []string{filepath.Base(second) + asideSuffix}) {
		t.Errorf("in the directory: %v", got)
	}
}

func TestABombInTheSpoolTakesNoMoreThanARequest(t *testing.T) {
	zeros := make([]byte, 1<<20)
	zstdBomb := func(options ...zstd.EOption) []byte {
		var b bytes.Buffer
		zw, err := zstd.NewWriter(&b, append(options, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		for range 64 { // four times what a request may have
			_, _ = zw.Write(zeros)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	honest := newPacker(collector.Zstd).pack(make([]byte, 4096)).bytes
	lying := slices.Clone(honest) // of a content size that is not its own
	var h zstd.Header
	if err := h.Decode(lying); err != nil || h.FrameContentSize != 4096 {
		t.Fatal(h, err)
	}
	i := bytes.Index(lying, binary.LittleEndian.AppendUint16(nil, 4096-256)) // RFC 8878, 3.1.1.1.4
	binary.LittleEndian.PutUint16(lying[i:], 100-44)
	for name, b := range map[string][]byte{
		"without content size": zstdBomb(),
		"with a large window":  zstdBomb(zstd.WithWindowSize(64 << 20)),
		"with a small size":    lying,
		"behind a request":     append(slices.Clone(honest), zstdBomb()...),
	} {
		p := newPacker(collector.Zstd)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := p.unpack(b, collector.Zstd)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 2*maxUnpacked {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}
