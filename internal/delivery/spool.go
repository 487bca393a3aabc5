package delivery

import (
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

	"otelmetricsplugin/internal/collector"
)

// The spool is a directory with one file a request:
//
//	0000000000000042-1763912345678-1679.pb.gz
//	│                │             │    └ compression: .pb.gz or .pb.zst
//	│                │             └ data points
//	│                └ accepted, milliseconds since 1970
//	└ place in the queue; what was split later has .000000, .000001, ... behind it
//
// Each is one compressed ExportMetricsServiceRequest (`zcat` or `zstdcat` shows
// it) with a checksum at its end. The comment of a gzip header names the format
// and its version. A file appears whole, by rename, and its removal is the
// record that the request was delivered or dropped: there is no index, no
// position and no compaction that could be out of step with the data, and what
// is delivered frees its space even on a full disk.
const (
	gzipSuffix   = ".pb.gz"
	zstdSuffix   = ".pb.zst"
	asideSuffix  = ".damaged" // behind the name of a file that could not be read
	partialName  = "partial"  // the file being written
	lockName     = "lock"     // flock: one process at a time
	blockSize    = 4096       // what a file takes on the disk is a multiple of it
	seqDigits    = 16
	spoolDirMode = 0o700
	fileMode     = 0o600
)

// fileName is a file of the spool. A place beyond those that begin with 0, where
// a request every millisecond takes 30,000 years to get, is a made-up one.
var fileName = regexp.MustCompile(`^(0\d{15}(?:\.\d{6})*)-(-?\d{1,15})-(\d{1,9})\.pb\.(gz|zst)(\.damaged)?$`)

// key returns the key of the item with the given place in the queue.
func key(seq uint64) string { return fmt.Sprintf("%0*d", seqDigits, seq) }

// name is the name of the item's file.
func (it *item) name() string {
	suffix := gzipSuffix
	if it.encoding == collector.Zstd {
		suffix = zstdSuffix
	}
	return fmt.Sprintf("%s-%d-%d%s", it.key, it.accepted.UnixMilli(), it.points, suffix)
}

// parseName returns the item whose file has the given name and size.
func parseName(name string, size int64) (it *item, aside, ok bool) {
	m := fileName.FindStringSubmatch(name)
	if m == nil || size > maxPacked {
		return nil, false, false
	}
	ms, _ := strconv.ParseInt(m[2], 10, 64) // digits, by fileName
	points, _ := strconv.Atoi(m[3])
	it = &item{key: m[1], accepted: time.UnixMilli(ms), points: points, encoding: collector.Gzip, size: onDisk(size)}
	if m[4] == "zst" {
		it.encoding = collector.Zstd
	}
	// Not 007 where the spool writes 7.
	return it, m[5] != "", it.name()+m[5] == name
}

// onDisk is the space that n bytes take.
func onDisk(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// spool keeps requests in files. Its methods are called with the store's lock
// held.
type spool struct {
	dir  string
	lock *os.File // nil until the directory is this process's own

	used    int64       // bytes on the disk, damaged files and garbage included
	aside   []spoolFile // damaged files, oldest first
	garbage []spoolFile // delivered or dropped, and still to be removed

	// The file system, as far as tests break it.
	readFile  func(path string, get func(n int) *buffer) (*buffer, error)
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

// readFile reads a file of the spool into a buffer from get: not through a link,
// without waiting for the other end of a pipe, and no more than a request can
// have. If it is not such a file, the error is errDamaged.
func readFile(path string, get func(n int) *buffer) (*buffer, error) {
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
		return nil, fmt.Errorf("%w: %s of %d bytes is not a regular file of at most %d", errDamaged, info.Mode(), info.Size(), maxPacked)
	}
	b := get(int(info.Size()))
	n, err := io.ReadFull(f, b.bytes)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) { // those: it shrinks
		b.Release()
		return nil, err
	}
	b.bytes = b.bytes[:n]
	return b, nil
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

// open locks the directory for this process and returns what is in it in order,
// and the names of the files that are not the spool's.
func (s *spool) open() (items []*item, foreign []string, err error) {
	if err := os.MkdirAll(s.dir, spoolDirMode); err != nil {
		return nil, nil, err
	}
	// flock needs no write access; O_RDONLY opens the file on a read-only disk.
	// It does not wait for a pipe, nor make a file where a link points to.
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
	// is delivered, and a restart would deliver it again. A full disk does not
	// count: removing is what empties it.
	partial := filepath.Join(s.dir, partialName)
	if err := s.writeFile(partial, []byte(spoolFormat)); err != nil && !isFull(err) {
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
		if e.Name() == lockName {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			foreign = append(foreign, e.Name())
			continue
		}
		switch it, aside, ok := parseName(e.Name(), info.Size()); {
		case !ok:
			foreign = append(foreign, e.Name())
		case aside:
			s.used += it.size
			s.aside = append(s.aside, spoolFile{e.Name(), it.size})
		default:
			s.used += it.size
			items = append(items, it)
		}
	}
	slices.SortFunc(items, func(a, b *item) int { return strings.Compare(a.key, b.key) })
	s.lock = lock
	return items, foreign, nil
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

func (s *spool) path(it *item) string { return filepath.Join(s.dir, it.name()) }

// write writes the item to its file. It does not wait for the disk: the file
// is in the page cache, which outlives the process and not the machine.
func (s *spool) write(it *item) error {
	s.sweep()
	partial, path := filepath.Join(s.dir, partialName), s.path(it)
	err := s.writeFile(partial, it.body.bytes)
	if errors.Is(err, fs.ErrNotExist) && os.MkdirAll(s.dir, spoolDirMode) == nil { // someone cleaned up
		err = s.writeFile(partial, it.body.bytes)
	}
	if err != nil {
		_ = s.remove(partial) // a full disk leaves half a file
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		_ = s.remove(partial)
		return err
	}
	s.used += onDisk(int64(len(it.body.bytes)))
	return nil
}

// read returns the content of the item's file.
func (s *spool) read(it *item, get func(n int) *buffer) (*buffer, error) {
	return s.readFile(s.path(it), get)
}

// discard removes the item's file and reports whether it could.
func (s *spool) discard(it *item) bool {
	if err := s.remove(s.path(it)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	s.used -= it.size
	return true
}

// discardLater removes the item's file as soon as the disk allows.
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
	if len(s.aside) == 0 {
		return false
	}
	err := s.remove(filepath.Join(s.dir, s.aside[0].name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	s.used -= s.aside[0].size
	s.aside = s.aside[1:]
	return true
}
