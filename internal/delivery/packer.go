package delivery

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"otelmetricsplugin/internal/collector"
)

const (
	// spoolFormat names the format of the spool and its version in the comment
	// of each gzip header.
	spoolFormat = "otelmetricsplugin spool 1"
	maxUnpacked = 16 << 20 // no request is larger
	maxPacked   = 17 << 20 // nor any packed one: what does not compress grows by less
)

// errDamaged is that bytes are not what pack returned. Trying again does not
// help.
var errDamaged = errors.New("damaged")

// packer compresses requests to encoding, and decompresses those of any
// encoding with a check of every byte. It keeps its tables, up to 1 MB, until
// rest is called.
type packer struct {
	encoding string // collector.Gzip or collector.Zstd
	buffers  *buffers

	mu      sync.Mutex
	out     bytes.Buffer
	gzip    *gzip.Writer
	zstd    *zstd.Encoder
	gunzip  *gzip.Reader
	zstdcat *zstd.Decoder
}

// pack returns the compressed request. Speed counts more than size: metrics are
// so repetitive that the fastest level makes them ten times smaller.
func (p *packer) pack(request []byte) *buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.encoding == collector.Zstd {
		if p.zstd == nil {
			p.zstd, _ = zstd.NewWriter(nil, zstdOptions...) // constants: it does not fail
		}
		packed := p.zstd.EncodeAll(request, p.out.AvailableBuffer())
		p.keep(packed)
		return p.buffers.copyOf(packed)
	}
	p.out.Reset()
	if p.gzip == nil {
		p.gzip, _ = gzip.NewWriterLevel(&p.out, gzip.BestSpeed)
	} else {
		p.gzip.Reset(&p.out)
	}
	p.gzip.Comment = spoolFormat
	// A bytes.Buffer does not fail.
	_, _ = p.gzip.Write(request)
	_ = p.gzip.Close()
	return p.buffers.copyOf(p.out.Bytes())
}

// keep makes the memory of b that of out, which is empty.
func (p *packer) keep(b []byte) { p.out = *bytes.NewBuffer(b[:0]) }

// A frame names the size of its content, which bounds what a damaged one can
// claim, and ends with a checksum.
var zstdOptions = []zstd.EOption{
	zstd.WithEncoderLevel(zstd.SpeedFastest),
	zstd.WithEncoderConcurrency(1),
	zstd.WithLowerEncoderMem(true),
	zstd.WithWindowSize(256 << 10),
	zstd.WithEncoderCRC(true),
	zstd.WithSingleSegment(true),
}

// maxIdleOutput is what the output of the last request may weigh while nothing
// waits.
const maxIdleOutput = 1 << 20

// rest gives up memory that is not needed while nothing waits. packs says that
// the next request will be packed all the same.
func (p *packer) rest(packs bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gunzip = nil
	if p.zstdcat != nil {
		p.zstdcat.Close()
		p.zstdcat = nil
	}
	if !packs {
		p.gzip, p.zstd = nil, nil
	}
	if !packs || p.out.Cap() > maxIdleOutput {
		p.out = bytes.Buffer{}
	}
}

// unpack returns the request that packed is, or an error that is errDamaged.
func (p *packer) unpack(packed []byte, encoding string) (*buffer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var request *buffer
	var err error
	if encoding == collector.Zstd {
		request, err = p.unpackZstd(packed)
	} else {
		request, err = p.unpackGzip(packed)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return request, nil
}

func (p *packer) unpackGzip(packed []byte) (*buffer, error) {
	r := bytes.NewReader(packed)
	if p.gunzip == nil {
		p.gunzip = new(gzip.Reader)
	}
	zr := p.gunzip
	if err := zr.Reset(r); err != nil {
		return nil, fmt.Errorf("gzip header: %w", err)
	}
	zr.Multistream(false)
	if zr.Comment != spoolFormat {
		return nil, fmt.Errorf("format is %.40q, not %q", zr.Comment, spoolFormat)
	}
	size := binary.LittleEndian.Uint32(packed[len(packed)-4:]) // RFC 1952, ISIZE
	if size > maxUnpacked {
		return nil, fmt.Errorf("%d bytes are more than the %d that a request may have", size, maxUnpacked)
	}
	request := p.buffers.get(int(size))
	_, err := io.ReadFull(zr, request.bytes)
	if err == nil {
		// The checksum is verified at the end of the stream, which must be the
		// end of the file.
		var n int64
		if n, err = io.CopyN(io.Discard, zr, 1); n == 0 && errors.Is(err, io.EOF) {
			err = nil
		} else {
			err = fmt.Errorf("length or checksum: %w", err)
		}
	}
	if err == nil && r.Len() != 0 {
		err = fmt.Errorf("%d bytes too many", r.Len())
	}
	if err != nil {
		request.Release()
		return nil, err
	}
	return request, nil
}

func (p *packer) unpackZstd(packed []byte) (*buffer, error) {
	var h zstd.Header
	switch err := h.Decode(packed); {
	case err != nil:
		return nil, fmt.Errorf("zstd header: %w", err)
	case h.Skippable || !h.HasFCS || !h.HasCheckSum:
		return nil, errors.New("zstd frame without content size or checksum")
	case h.FrameContentSize > maxUnpacked:
		return nil, fmt.Errorf("%d bytes are more than the %d that a request may have", h.FrameContentSize, maxUnpacked)
	}
	if p.zstdcat == nil {
		var err error
		p.zstdcat, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(maxUnpacked), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return nil, err
		}
	}
	request := p.buffers.get(int(h.FrameContentSize))
	b, err := p.zstdcat.DecodeAll(packed, request.bytes[:0])
	if err == nil && len(b) != len(request.bytes) {
		err = fmt.Errorf("%d bytes, not %d", len(b), len(request.bytes))
	}
	if err != nil {
		request.Release()
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return request, nil
}
