package scrape

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

const mib = 1 << 20

// zeros reads n bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return len(p), nil }

// allocated is how many bytes f allocates.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

func TestABufferHasWhatWasRead(t *testing.T) {
	var b buffer
	for _, size := range []int{100_000, 0, 1, 32 << 10, 32<<10 + 1, 300_000} {
		want := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
		for _, length := range []int64{-1, 0, 7, int64(size), 1 << 40} {
			for name, r := range map[string]io.Reader{
				"whole": bytes.NewReader(want), "halves": iotest.HalfReader(bytes.NewReader(want)), "end with data": iotest.DataErrReader(bytes.NewReader(want)),
			} {
				if err := b.readFrom(r, length, int64(size)); err != nil || !bytes.Equal(b.data, want) {
					t.Errorf("%d bytes, length %d, %s: %d bytes, error %v", size, length, name, len(b.data), err)
				}
			}
		}
		if err := b.readFrom(bytes.NewReader(append(want, 'x')), -1, int64(size)); !errors.Is(err, errTooLarge) {
			t.Errorf("more than %d bytes: error %v", size, err)
		}
	}
	broken := errors.New("broken")
	if err := b.readFrom(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), -1, 10); !errors.Is(err, broken) || string(b.data) != "abc" {
		t.Errorf("%q, error %v", b.data, err)
	}
}

func TestABufferDoesNotBelieveALength(t *testing.T) {
	var b buffer
	if n := allocated(func() {
		if err := b.readFrom(strings.NewReader("abc"), 1<<40, 1<<50); err != nil {
			t.Error(err)
		}
	}); n > 9*mib {
		t.Errorf("%d bytes allocated for three, which said they would be many", n)
	}
}

func TestALargeBodyLeavesLittleRoom(t *testing.T) {
	const size = 24 * mib
	for length, most := range map[int64]int{-1: size * 5 / 4, size: size * 17 / 16} {
		var b buffer
		if err := b.readFrom(zeros(size), length, 128*mib); err != nil {
			t.Fatal(err)
		}
		if cap(b.data) > most+mib {
			t.Errorf("with length %d: room for %d bytes, %d were read", length, cap(b.data), size)
		}
	}
}

func TestASteadyBodyAllocatesNothing(t *testing.T) {
	for _, length := range []int64{-1, 3 * mib} {
		var b buffer
		read := func() {
			if err := b.readFrom(zeros(3*mib), length, 128*mib); err != nil {
				t.Fatal(err)
			}
			b.fit()
		}
		read()
		if n := allocated(func() { read(); read(); read() }); n > 8<<10 {
			t.Errorf("with length %d: %d bytes allocated", length, n)
		}
	}
}

func TestAHugeBodyIsNotKeptForever(t *testing.T) {
	huge := func() (b buffer) {
		if err := b.readFrom(zeros(90*mib), -1, 128*mib); err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := huge()
	if err := b.readFrom(strings.NewReader("small"), -1, 128*mib); err != nil {
		t.Fatal(err)
	}
	if b.fit(); cap(b.data) > mib || string(b.data) != "small" {
		t.Errorf("after a small body: %q in room for %d bytes", b.data, cap(b.data))
	}
	b = huge()
	if b.fit(); cap(b.data) < 90*mib {
		t.Errorf("the body itself moved to room for %d bytes", cap(b.data))
	}
	if b.release(); cap(b.data) > mib {
		t.Errorf("after a failure: room for %d bytes", cap(b.data))
	}
}

func TestABufferIsWrittenTo(t *testing.T) {
	var b buffer
	var want []byte
	for i := range 100 {
		p := bytes.Repeat([]byte{byte(i)}, i*1000)
		want = append(want, p...)
		if n, err := b.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if !bytes.Equal(b.data, want) {
		t.Errorf("%d bytes, want %d", len(b.data), len(want))
	}
}
