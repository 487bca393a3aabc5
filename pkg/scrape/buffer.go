package scrape

import (
	"errors"
	"io"
)

const (
	// smallBuffer is kept in any case.
	smallBuffer = 1 << 20
	// largeBuffer and more grow by a quarter instead of doubling, and are made
	// for at most so much more than has arrived, whatever a length promises.
	largeBuffer = 8 << 20
)

// buffer is memory that one exposition after another is written to.
type buffer struct{ data []byte }

// errTooLarge says that a reader has more bytes than are wanted.
var errTooLarge = errors.New("too large")

// readFrom reads r to its end; more than limit bytes are errTooLarge. The length
// is what r has been said to have, or -1.
func (b *buffer) readFrom(r io.Reader, length, limit int64) error {
	b.data = b.data[:0]
	for {
		if len(b.data) == cap(b.data) {
			b.grow(1, length)
		}
		n, err := r.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		switch {
		case int64(len(b.data)) > limit:
			return errTooLarge
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// Write appends p.
func (b *buffer) Write(p []byte) (int, error) {
	if len(p) > cap(b.data)-len(b.data) {
		b.grow(len(p), -1)
	}
	b.data = append(b.data, p...)
	return len(p), nil
}

// grow makes room for at least n more bytes, and if it can for length in all.
func (b *buffer) grow(n int, length int64) {
	have := cap(b.data)
	size := max(2*have, 32<<10)
	if have >= largeBuffer {
		size = have + have/4
	}
	if length >= int64(have) {
		// A little more, as expositions grow.
		size = int(min(length+length/16, int64(max(size, have+largeBuffer))))
	}
	grown := make([]byte, len(b.data), max(size, len(b.data)+n))
	copy(grown, b.data)
	b.data = grown
}

// fit moves what has been written to less memory if it needs only a small part
// of what the buffer has: one huge exposition does not stay in memory forever.
func (b *buffer) fit() {
	if n := len(b.data); cap(b.data) > max(smallBuffer, 3*n) {
		fitted := make([]byte, n, n+n/4)
		copy(fitted, b.data)
		b.data = fitted
	}
}

// release empties the buffer and gives its memory back unless it is small.
func (b *buffer) release() {
	b.data = b.data[:0]
	if cap(b.data) > smallBuffer {
		b.data = nil
	}
}
