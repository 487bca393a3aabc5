package delivery

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The spool is a directory with one file a request:
//
//	0000000000000042-1763912345678-1679.pb.gz
//	│                │             └ data points
//	│                └ accepted, milliseconds since 1970
//	└ place in the queue; what was split later has .000, .001, ... behind it
//
// Each is a gzip file of one ExportMetricsServiceRequest (`zcat` shows it),
// whose header's comment names the format and its version and whose trailer
// is the checksum. A file appears whole, by rename, and its removal is the
// record that the request was delivered or dropped: there is no index, no
// position and no compaction that could be out of step with the data, and what
// is delivered frees its space even on a full disk.
const (
	fileFormat   = "otelmetricsplugin spool 1"
	fileSuffix   = ".pb.gz"
	asideSuffix  = ".damaged" // behind the name of a file that could not be read
	partialName  = "partial"  // the file being written
	lockName     = "lock"     // flock: one process at a time
	blockSize    = 4096       // what a file takes on the disk is a multiple of it
	maxInflated  = 16 << 20   // no spooled request is larger
	maxPacked    = 17 << 20   // nor any file of one: what does not compress grows by less
	seqDigits    = 16
	maxSeq       = 1e15 // a tenth of what the digits can say; see renumber
	spoolDirMode = 0o700
	fileMode     = 0o600
)

var fileName = regexp.MustCompile(`^(\d{16}(?:\.\d{3})*)-(-?\d{1,15})-(\d{1,9})\.pb\.gz(\.damaged)?$`)

// onDisk is the space that n bytes take.
func onDisk(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// spool keeps requests in files. Its methods are called with the queue's lock
// held.
type spool struct {
	dir  string
	lock *os.File // nil until the directory is this process's own

	used    int64       // bytes on disk, set aside files and garbage included
	aside   []spoolFile // damaged files, oldest first
	garbage []spoolFile // delivered or dropped, and still to be removed

	// The file system, as far as tests break it.
	readFile  func(path string) ([]byte, error)
	writeFile func(path string, b []byte) error
	remove    func(path string) error
}

type spoolFile struct {
	name string
	size int64
}

func newSpool(dir string) *spool {
	return &spool{
		dir:       dir,
		readFile:  readFile,
		writeFile: writeFile,
		remove:    os.Remove,
	}
}

// readFile reads a file of the spool: not through a link, without waiting for
// the other end of a pipe, and no more than a request can have. That it is no
// such file is errDamaged.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) //nolint:gosec // a name in the spool directory
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {               // a link, a socket
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPacked {
		return nil, fmt.Errorf("%w: %s of %d bytes is no regular file of at most %d", errDamaged, info.Mode(), info.Size(), maxPacked)
	}
	b := make([]byte, info.Size())
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // it shrinks
		err = nil
	}
	return b[:n], err
}

// writeFile writes a file that was not there before: what may be in its place,
// a link to somewhere else say, is not written to.
func writeFile(path string, b []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // a name in the spool directory
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// open makes the directory this process's own and returns what is in it in
// order, and the names of the files that are not the spool's.
func (s *spool) open() (items []*item, foreign []string, err error) {
	if err := os.MkdirAll(s.dir, spoolDirMode); err != nil {
		return nil, nil, err
	}
	// flock needs no write access; O_RDONLY opens the file on a read-only disk.
	// A pipe is not waited for, and no file made where a link points to.
	lock, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, fileMode)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil, fmt.Errorf("%s is in use by another process: give each its own directory", s.dir)
		}
		return nil, nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	// From a directory that cannot be written nothing could be removed once it
	// is delivered, and a restart would deliver it again. A full disk is no
	// such case: removing is what empties it.
	partial := filepath.Join(s.dir, partialName)
	if err := s.writeFile(partial, []byte(fileFormat)); err != nil && !isFull(err) {
		return nil, nil, err
	}
	if err := s.remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	s.used, s.aside, s.garbage = 0, nil, nil
	for _, e := range entries {
		m := fileName.FindStringSubmatch(e.Name())
		info, infoErr := e.Info()
		switch {
		case e.Name() == lockName:
		case m == nil || infoErr != nil || !info.Mode().IsRegular() || info.Size() > maxPacked:
			foreign = append(foreign, e.Name())
		case m[4] != "":
			size := onDisk(info.Size())
			s.used += size
			s.aside = append(s.aside, spoolFile{e.Name(), size})
		default:
			ms, _ := strconv.ParseInt(m[2], 10, 64)
			points, _ := strconv.Atoi(m[3])
			it := &item{key: m[1], at: time.UnixMilli(ms), points: points, size: onDisk(info.Size())}
			if it.name() != e.Name() { // 007 where the spool writes 7
				foreign = append(foreign, e.Name())
				continue
			}
			s.used += it.size
			items = append(items, it)
		}
	}
	slices.SortFunc(items, func(a, b *item) int { return strings.Compare(a.key, b.key) })
	if err := s.renumber(items); err != nil {
		return nil, nil, err
	}
	s.lock = lock
	return items, foreign, nil
}

// renumber renames the files of all items from 0 when their last number leaves
// too little room above it. A request every millisecond takes 30,000 years to
// get there: somebody made up a name.
func (s *spool) renumber(items []*item) error {
	if len(items) == 0 || items[len(items)-1].key < key(maxSeq) {
		return nil
	}
	names := make(map[string]bool, len(items))
	for _, it := range items {
		names[it.name()] = true
	}
	var seq uint64
	for _, it := range items {
		from := s.path(it)
		delete(names, it.name())
		for it.key = key(seq); names[it.name()]; it.key = key(seq) {
			seq++ // another file has this name still
		}
		seq++
		if err := os.Rename(from, s.path(it)); err != nil {
			return err
		}
	}
	return nil
}

// isFull reports whether err says that the disk, or the user's part of it, is
// full.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (s *spool) close() error {
	if s.lock == nil {
		return nil
	}
	s.sweep()
	lock := s.lock
	s.lock = nil
	return lock.Close()
}

// name is the name of the file of it.
func (it *item) name() string {
	return fmt.Sprintf("%s-%d-%d%s", it.key, it.at.UnixMilli(), it.points, fileSuffix)
}

func (s *spool) path(it *item) string { return filepath.Join(s.dir, it.name()) }

// write writes the packed bytes of it. It does not wait for the disk: the file
// is in the page cache, which outlives the process and not the machine.
func (s *spool) write(it *item) error {
	s.sweep()
	partial, path := filepath.Join(s.dir, partialName), s.path(it)
	err := s.writeFile(partial, it.data)
	if errors.Is(err, fs.ErrNotExist) && os.MkdirAll(s.dir, spoolDirMode) == nil { // someone cleaned up
		err = s.writeFile(partial, it.data)
	}
	if err != nil {
		_ = s.remove(partial) // a full disk leaves half a file
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		_ = s.remove(partial)
		return err
	}
	s.used += onDisk(int64(len(it.data)))
	return nil
}

// read returns the packed bytes of it.
func (s *spool) read(it *item) ([]byte, error) { return s.readFile(s.path(it)) }

// discard removes the file of it and reports whether it could.
func (s *spool) discard(it *item) bool {
	if err := s.remove(s.path(it)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	s.used -= it.size
	return true
}

// discardLater removes the file of it as soon as the disk allows.
func (s *spool) discardLater(it *item) {
	s.garbage = append(s.garbage, spoolFile{it.name(), it.size})
}

// sweep removes what could not be removed when its time had come.
func (s *spool) sweep() {
	for len(s.garbage) > 0 {
		f := s.garbage[0]
		if err := s.remove(filepath.Join(s.dir, f.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return
		}
		s.used -= f.size
		s.garbage = s.garbage[1:]
	}
}

// setAside keeps a file that could not be read, for whoever wants to look,
// until the space is needed.
func (s *spool) setAside(it *item) {
	name := it.name()
	switch err := os.Rename(s.path(it), s.path(it)+asideSuffix); {
	case err == nil:
		s.aside = append(s.aside, spoolFile{name + asideSuffix, it.size})
	case errors.Is(err, fs.ErrNotExist):
		s.used -= it.size
	default:
		s.garbage = append(s.garbage, spoolFile{name, it.size})
	}
}

// dropAside removes the oldest damaged file. It reports whether there was one
// that it could remove.
func (s *spool) dropAside() bool {
	if len(s.aside) == 0 || s.remove(filepath.Join(s.dir, s.aside[0].name)) != nil {
		return false
	}
	s.used -= s.aside[0].size
	s.aside = s.aside[1:]
	return true
}

// packer compresses serialised requests. The zero value is ready; it keeps
// its tables, about 1 MB, between calls.
type packer struct {
	zw  *gzip.Writer
	buf bytes.Buffer
}

// pack returns b as the content of a spool file. Speed counts more than size:
// the pages are so repetitive that the fastest level makes them ten times
// smaller.
func (p *packer) pack(b []byte) []byte {
	p.buf.Reset()
	if p.zw == nil {
		p.zw, _ = gzip.NewWriterLevel(&p.buf, gzip.BestSpeed)
	} else {
		p.zw.Reset(&p.buf)
	}
	p.zw.Comment = fileFormat
	// A bytes.Buffer does not fail.
	_, _ = p.zw.Write(b)
	_ = p.zw.Close()
	return bytes.Clone(p.buf.Bytes())
}

// errDamaged is that a file is not what pack returned. It does not heal.
var errDamaged = errors.New("damaged")

// unpack is the inverse of pack. It returns what was packed or an error,
// whatever was done to the bytes in between.
func unpack(b []byte) ([]byte, error) {
	r := bytes.NewReader(b)
	zr, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%w: gzip header: %w", errDamaged, err)
	}
	zr.Multistream(false)
	if zr.Comment != fileFormat {
		return nil, fmt.Errorf("%w: format is %.40q, not %q", errDamaged, zr.Comment, fileFormat)
	}
	size := binary.LittleEndian.Uint32(b[len(b)-4:]) // RFC 1952, ISIZE
	if size > maxInflated {
		return nil, fmt.Errorf("%w: %d bytes, more than the %d that a request may have", errDamaged, size, maxInflated)
	}
	out := make([]byte, size)
	if _, err := io.ReadFull(zr, out); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	// The checksum is judged at the end of the stream, which must be the end
	// of the file.
	if n, err := io.CopyN(io.Discard, zr, 1); n != 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: length or checksum: %w", errDamaged, err)
	}
	if r.Len() != 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", errDamaged, r.Len())
	}
	return out, nil
}
