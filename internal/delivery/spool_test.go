package delivery

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/internal/collector"
)

// away is a connection to nowhere.
var nowhere = connFunc(func(context.Context, []byte) (*response, error) {
	return nil, status.Error(codes.Unavailable, "connection refused")
})

// fill leaves the given requests in dir, as a process that ended does.
func fill(t testing.TB, dir string, reqs ...*request) {
	t.Helper()
	q := open(t, Config{Conn: nowhere, Dir: dir})
	for _, r := range reqs {
		accept(t, q, nil, r)
	}
	if err := q.Close(ended()); err != nil {
		t.Fatal(err)
	}
}

func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockName {
			names = append(names, e.Name())
		}
	}
	return names
}

// deliverAll delivers what is in dir and returns it.
func deliverAll(t testing.TB, dir string, log *logs) (*receiver, Stats) {
	t.Helper()
	c := newReceiver()
	cfg := Config{Conn: to(c), Dir: dir, Pace: 1}
	if log != nil {
		cfg.Logger = log.logger()
	}
	q := open(t, cfg)
	if err := q.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c, q.Stats()
}

func TestSpoolSurvivesARestartInOrder(t *testing.T) {
	dir, want := t.TempDir(), ledger{}
	for scrape := 1; scrape <= 12; scrape += 3 {
		var reqs []*request
		for i := range 3 {
			reqs = append(reqs, page(scrape+i, 2))
			want.add(reqs[i])
		}
		fill(t, dir, reqs...)
	}
	c, s := deliverAll(t, dir, nil)
	if d := compare(t, want, c.held); d != 0 {
		t.Errorf("%d points twice", d)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	if s.DeliveredRequests != 12 || s.DeliveredPoints != 24 || len(dropped(s)) != 0 {
		t.Errorf("%+v", s)
	}
}

// damage runs a test of three requests in a spool, the last of which change
// has spoiled: the first two must arrive, and the third be set aside and
// counted, or arrive whole where harmless allows that.
func damage(t *testing.T, harmless bool, change func(t *testing.T, b []byte) []byte) {
	t.Helper()
	dir, want, whole := t.TempDir(), ledger{}, ledger{}
	reqs := []*request{page(1, 3), page(2, 3), page(3, 3)}
	fill(t, dir, reqs...)
	for i, r := range reqs {
		whole.add(r)
		if i < 2 {
			want.add(r)
		}
	}
	last := filepath.Join(dir, files(t, dir)[2])
	b, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(last, change(t, b), 0o600); err != nil {
		t.Fatal(err)
	}
	var log logs
	c, s := deliverAll(t, dir, &log)
	if harmless && len(dropped(s)) == 0 {
		compare(t, whole, c.held)
		return
	}
	compare(t, want, c.held)
	if got := dropped(s); !maps.Equal(got, map[string]int64{DroppedDamaged: 3}) {
		t.Errorf("dropped %v", got)
	}
	if got := files(t, dir); !slices.Equal(got, []string{filepath.Base(last) + asideSuffix}) {
		t.Errorf("in the directory: %v", got)
	}
	wantLog := []string{"requests wait in the spool", "a spooled request cannot be read: it is set aside"}
	if got := log.messages(); !slices.Equal(got, wantLog) {
		t.Errorf("log: %q", got)
	}
}

func TestSpoolTruncatedAtEveryOffsetOfTheLastRecordLosesThatRecord(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, page(3, 3))
	info, err := os.Stat(filepath.Join(dir, files(t, dir)[0]))
	if err != nil {
		t.Fatal(err)
	}
	for offset := range info.Size() {
		t.Run(fmt.Sprint(offset), func(t *testing.T) {
			damage(t, false, func(_ *testing.T, b []byte) []byte { return b[:offset] })
		})
	}
}

func TestSpoolWithAFlippedBitAnywhereLosesAtMostThatRecord(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, page(3, 3))
	b, err := os.ReadFile(filepath.Join(dir, files(t, dir)[0]))
	if err != nil {
		t.Fatal(err)
	}
	p := newPacker(collector.Gzip)
	whole, err := p.unpack(b, collector.Gzip)
	if err != nil {
		t.Fatal(err)
	}
	harmless := 0
	for i := range len(b) * 8 {
		flipped := slices.Clone(b)
		flipped[i/8] ^= 1 << (i % 8)
		if got, err := p.unpack(flipped, collector.Gzip); err == nil {
			harmless++
			if !bytes.Equal(got.bytes, whole.bytes) {
				t.Fatalf("bit %d: other bytes came back", i)
			}
			got.Release()
		}
		if i%8 != (i/8)%8 { // through a whole queue, one bit a byte
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			damage(t, true, func(_ *testing.T, b []byte) []byte {
				b[i/8] ^= 1 << (i % 8)
				return b
			})
		})
	}
	// Time, operating system, hints and some flags of the gzip header, and the
	// bits that fill the last byte of the data (RFC 1952), mean nothing here.
	if harmless > 8*6+4+7 {
		t.Errorf("%d flipped bits passed unnoticed", harmless)
	}
}

func TestSpoolSetsAsideWhatIsNotItsFormat(t *testing.T) {
	other := newPacker(collector.Gzip)
	for name, content := range map[string]func([]byte) []byte{
		"trailing bytes": func(b []byte) []byte { return append(b, 0) },
		"empty":          func([]byte) []byte { return nil },
		"text":           func([]byte) []byte { return []byte("hello") },
		"second stream":  func(b []byte) []byte { return append(b, b...) },
		"later version": func([]byte) []byte {
			b := other.pack([]byte("x"))
			return []byte(strings.Replace(string(b.bytes), spoolFormat, "otelmetricsplugin spool 2", 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			damage(t, false, func(_ *testing.T, b []byte) []byte { return content(b) })
		})
	}
}

func TestSpoolLeavesFilesThatAreNotItsOwnAlone(t *testing.T) {
	dir, want := t.TempDir(), ledger{}
	fill(t, dir, page(1, 1))
	want.add(page(1, 1))
	for _, name := range []string{"queue.db", "0000000000000001.pb.gz", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("someone's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "0000000000000009-1-1.pb.gz"), 0o700); err != nil {
		t.Fatal(err)
	}
	var log logs
	c, s := deliverAll(t, dir, &log)
	compare(t, want, c.held)
	if len(dropped(s)) != 0 {
		t.Errorf("dropped %v", dropped(s))
	}
	if got := files(t, dir); len(got) != 4 {
		t.Errorf("in the directory: %v", got)
	}
	wantLog := map[string]any{"level": "WARN", "msg": "files in the spool directory are not the spool's: they are left alone",
		"dir": dir, "files": 4.0, "first": "0000000000000001.pb.gz"}
	if got := log.records()[0]; !maps.Equal(got, wantLog) {
		t.Errorf("log: %v", got)
	}
}

func TestSpoolNeverExceedsItsBoundAndDropsTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 10 * blockSize
		dir, log := t.TempDir(), logs{}
		c := newReceiver()
		c.answer = func(int, *request) (*response, error) { return nil, status.Error(codes.Unavailable, "") }
		q := open(t, Config{Conn: to(c), Dir: dir, MaxBytes: bound, Logger: log.logger()})
		want := ledger{}
		for scrape := 1; scrape <= 25; scrape++ {
			req := page(scrape, 2)
			if scrape > 15 {
				want.add(req)
			}
			accept(t, q, nil, req)
			var used int64
			for _, name := range files(t, dir) {
				info, err := os.Stat(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				used += onDisk(info.Size())
			}
			if s := q.Stats(); used > bound || s.DiskBytes != used {
				t.Fatalf("%d bytes on the disk, %d counted, bound %d", used, s.DiskBytes, bound)
			}
			synctest.Wait() // the sender pauses, and nothing is being sent
		}
		if got := dropped(q.Stats()); !maps.Equal(got, map[string]int64{DroppedQueueFull: 30}) {
			t.Errorf("dropped %v", got)
		}
		c.script(nil)
		drained(t, q)
		compare(t, want, c.held)
		wantLog := []string{
			"the Collector does not take requests: they wait",
			"the queue is full: the oldest data points are dropped",
			"the Collector answers again",
			"the queue has room again",
		}
		if got := log.messages(); !slices.Equal(got, wantLog) {
			t.Errorf("log: %q", got)
		}
	})
}

func TestSpoolGivesUpDamagedFilesBeforeGoodOnes(t *testing.T) {
	dir, want := t.TempDir(), ledger{}
	for i := range 4 {
		name := fmt.Sprintf("%016d-1-7.pb.gz%s", i, asideSuffix)
		if err := os.WriteFile(filepath.Join(dir, name), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q := open(t, Config{Conn: nowhere, Dir: dir, MaxBytes: 5 * blockSize})
	if err := os.Remove(filepath.Join(dir, fmt.Sprintf("%016d-1-7.pb.gz%s", 0, asideSuffix))); err != nil {
		t.Fatal(err) // somebody has looked at it and deleted it
	}
	for scrape := 1; scrape <= 5; scrape++ {
		accept(t, q, want, page(scrape, 1))
	}
	if err := q.Close(ended()); err != nil {
		t.Fatal(err)
	}
	if s := q.Stats(); s.QueuedPoints != 5 || s.DiskBytes != 5*blockSize || len(dropped(s)) != 0 {
		t.Errorf("%+v", s)
	}
	c, _ := deliverAll(t, dir, nil)
	compare(t, want, c.held)
}

func TestSpoolInUseByAnotherProcessIsWaitedForInMemory(t *testing.T) {
	dir, want := t.TempDir(), ledger{}
	want.add(page(1, 2))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=open", "DELIVERY_TEST_DIR="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}

	var log logs
	c := newReceiver()
	c.answer = func(int, *request) (*response, error) { return nil, status.Error(codes.Unavailable, "") }
	q := open(t, Config{Conn: to(c), Dir: dir, Logger: log.logger(), MinBackoff: time.Hour})
	accept(t, q, want, page(2, 2))
	await(q, func(s Stats) bool { return s.Retries == 1 }) // and the next is in Close
	if s := q.Stats(); s.MemoryBytes == 0 || s.DiskBytes != 0 || s.QueuedPoints != 2 {
		t.Errorf("%+v", s)
	}

	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	accept(t, q, want, page(3, 2))
	// What the other process left is older, and comes first.
	if s := q.Stats(); s.MemoryBytes != 0 || s.QueuedPoints != 6 || len(files(t, dir)) != 3 {
		t.Errorf("%+v, %v", s, files(t, dir))
	}
	c.script(nil)
	drained(t, q)
	compare(t, want, c.held)
	warned := slices.ContainsFunc(log.records(), func(r map[string]any) bool {
		return r["error"] == dir+" is in use by another process: give each its own directory"
	})
	if !warned {
		t.Errorf("log: %v", log.records())
	}
}

// roleOpen holds the spool until stdin ends, with one request in it.
func roleOpen() {
	q, err := Open(Config{Conn: nowhere, Dir: os.Getenv("DELIVERY_TEST_DIR")})
	if err == nil {
		err = q.Accept(encode(page(1, 2)), 2)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := q.Close(ended()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// diskFault is how the disk fails at the moment; nil is that it does not.
type diskFault struct{ err atomic.Pointer[syscall.Errno] }

func (f *diskFault) set(err syscall.Errno) { f.err.Store(&err) }
func (f *diskFault) heal()                 { f.err.Store(nil) }

// brokenDisk returns a Queue whose disk fails as broken says.
func brokenDisk(t *testing.T, cfg Config, broken *diskFault) *Queue {
	t.Helper()
	if e := cfg.setDefaults(); e != nil {
		t.Fatal(e)
	}
	q := newQueue(cfg)
	write, remove := q.store.spool.writeFile, q.store.spool.remove
	q.store.spool.writeFile = func(path string, b []byte) error {
		if err := broken.err.Load(); err != nil {
			_ = write(path, b[:len(b)/2])
			return &os.PathError{Op: "write", Path: path, Err: *err}
		}
		return write(path, b)
	}
	q.store.spool.remove = func(path string) error {
		if err := broken.err.Load(); err != nil && *err == syscall.EROFS {
			return &os.PathError{Op: "remove", Path: path, Err: *err}
		}
		return remove(path)
	}
	q.start()
	t.Cleanup(func() { _ = q.Close(ended()) })
	return q
}

func TestDiskThatFailsIsBridgedByMemoryAndRecovers(t *testing.T) {
	for _, fault := range []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
		t.Run(fault.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken diskFault
				dir, log, want := t.TempDir(), logs{}, ledger{}
				c := newReceiver()
				down := func(int, *request) (*response, error) { return nil, status.Error(codes.Unavailable, "") }
				c.answer = down
				q := brokenDisk(t, Config{Conn: to(c), Dir: dir, Logger: log.logger()}, &broken)
				scrape := 0
				some := func() {
					for range 5 {
						scrape++
						accept(t, q, want, page(scrape, 2))
						synctest.Wait()
					}
				}
				some()
				broken.set(fault)
				some()
				if s := q.Stats(); s.DiskBytes != 5*blockSize || s.MemoryBytes == 0 || s.QueuedPoints != 20 {
					t.Errorf("while it fails: %+v", s)
				}
				broken.heal()
				some()
				if s := q.Stats(); s.DiskBytes != 15*blockSize || s.MemoryBytes != 0 || s.QueuedPoints != 30 {
					t.Errorf("when it works: %+v", s)
				}
				// Delivered while the disk fails: nothing is sent again later.
				broken.set(fault)
				c.script(nil)
				time.Sleep(time.Hour)
				if s := q.Stats(); s.QueuedRequests != 0 {
					t.Errorf("delivered: %+v", s)
				}
				broken.heal()
				drained(t, q)
				if got := files(t, dir); len(got) != 0 {
					t.Errorf("left behind: %v", got)
				}
				if d := compare(t, want, c.held); d != 0 {
					t.Errorf("%d points twice", d)
				}
				wantLog := []string{
					"the Collector does not take requests: they wait",
					"the spool cannot be written: requests wait in memory, and a restart loses them",
					"the spool can be written again",
					"the Collector answers again",
				}
				if got := log.messages(); !slices.Equal(got, wantLog) {
					t.Errorf("log: %q", got)
				}
			})
		})
	}
}

func TestDiskThatFailsForLongKeepsTheNewestInTheBoundOfMemory(t *testing.T) {
	for _, fault := range []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
		t.Run(fault.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken diskFault
				c, total := newReceiver(), ledger{}
				c.answer = func(int, *request) (*response, error) { return nil, status.Error(codes.Unavailable, "") }
				const bound = 20_000
				q := brokenDisk(t, Config{Conn: to(c), Dir: t.TempDir(), MaxMemory: bound}, &broken)
				for scrape := 1; scrape <= 500; scrape++ {
					if scrape == 10 {
						broken.set(fault)
					}
					accept(t, q, total, page(scrape, 20))
					synctest.Wait()
					if s := q.Stats(); s.MemoryBytes > bound {
						t.Fatalf("%d bytes in memory", s.MemoryBytes)
					}
				}
				broken.heal()
				c.script(nil)
				s := drained(t, q)
				if got := s.Dropped[DroppedQueueFull] + int64(c.held.points()); got != 500*20 {
					t.Errorf("%d points dropped and %d held of %d", s.Dropped[DroppedQueueFull], c.held.points(), 500*20)
				}
				// On a full disk what it holds is the oldest and makes room; on
				// one that fails otherwise, to drop it would help nothing.
				want := ledger{}
				for series, points := range total {
					n := len(c.held[series])
					if fault != syscall.ENOSPC {
						want[series] = append(slices.Clone(points[:9]), points[500-(n-9):]...)
					} else {
						want[series] = points[500-n:]
					}
				}
				compare(t, want, c.held)
			})
		})
	}
}

// TestRealDisk runs itself again in a mount namespace, with a disk of 1 MiB.
// unreadableDisk returns a Queue that cannot read the files whose name fails
// says so of. The reads are counted.
func unreadableDisk(t *testing.T, cfg Config, fails func(name string) error) (q *Queue, reads func() int) {
	t.Helper()
	if err := cfg.setDefaults(); err != nil {
		t.Fatal(err)
	}
	q = newQueue(cfg)
	n, read := 0, q.store.spool.readFile
	q.store.spool.readFile = func(path string, get func(int) *buffer) (*buffer, error) {
		n++
		if err := fails(filepath.Base(path)); err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		return read(path, get)
	}
	q.start()
	t.Cleanup(func() { _ = q.Close(ended()) })
	return q, func() int {
		q.store.mu.Lock()
		defer q.store.mu.Unlock()
		return n
	}
}

func TestSpoolThatCannotBeReadForAMomentLosesNothing(t *testing.T) {
	for _, fault := range []syscall.Errno{syscall.EIO, syscall.ESTALE, syscall.EACCES, syscall.EMFILE} {
		t.Run(fault.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, log, want, c := t.TempDir(), logs{}, ledger{}, newReceiver()
				var reqs []*request
				for scrape := range 50 {
					reqs = append(reqs, page(scrape, 2))
					want.add(reqs[scrape])
				}
				fill(t, dir, reqs...)
				begin := time.Now()
				q, _ := unreadableDisk(t, Config{Conn: to(c), Dir: dir, Logger: log.logger()}, func(string) error {
					if time.Since(begin) < 20*time.Second {
						return fault
					}
					return nil
				})
				time.Sleep(2 * time.Minute)
				s := drained(t, q)
				if d := compare(t, want, c.held); d != 0 || len(dropped(s)) != 0 || s.Retries != 0 {
					t.Errorf("%d points twice, %+v", d, s)
				}
				wantLog := []string{"requests wait in the spool", "the spool cannot be read: what waits there is delivered later", "the spool can be read again"}
				if got := log.messages(); !slices.Equal(got, wantLog) {
					t.Errorf("log: %q", got)
				}
			})
		})
	}
}

func TestAFileThatCanNeverBeReadIsSetAsideAndWhatIsBehindItArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, log, want, c := t.TempDir(), logs{}, ledger{}, newReceiver()
		fill(t, dir, page(1, 3), page(2, 2))
		want.add(page(2, 2))
		bad := files(t, dir)[0]
		q, reads := unreadableDisk(t, Config{Conn: to(c), Dir: dir, Logger: log.logger()}, func(name string) error {
			if name == bad {
				return syscall.EIO
			}
			return nil
		})
		time.Sleep(10 * time.Minute)
		s := q.Stats()
		if got := dropped(s); !maps.Equal(got, map[string]int64{DroppedDamaged: 3}) || s.QueuedPoints != 0 || reads() != maxReads+1 {
			t.Errorf("dropped %v after %d reads, %+v", got, reads(), s)
		}
		compare(t, want, c.held)
		if got := files(t, dir); !slices.Equal(got, []string{bad + asideSuffix}) {
			t.Errorf("in the directory: %v", got)
		}
		wantLog := []string{"requests wait in the spool", "the spool cannot be read: what waits there is delivered later",
			"a spooled request cannot be read: it is set aside", "the spool can be read again"}
		if got := log.messages(); !slices.Equal(got, wantLog) {
			t.Errorf("log: %q", got)
		}
	})
}

func TestCloseLeavesWhatCannotBeReadForTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, want := t.TempDir(), ledger{}
		fill(t, dir, page(1, 3))
		want.add(page(1, 3))
		q, _ := unreadableDisk(t, Config{Conn: nowhere, Dir: dir}, func(string) error { return syscall.EIO })
		synctest.Wait()
		if err := q.Close(context.Background()); err != nil || q.Stats().QueuedPoints != 3 {
			t.Errorf("%v, %+v", err, q.Stats())
		}
		c, _ := deliverAll(t, dir, nil)
		compare(t, want, c.held)
	})
}

func TestSpoolWithMadeUpNamesKeepsItsOrderAndLeavesTheRestAlone(t *testing.T) {
	dir, want := t.TempDir(), ledger{}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("not the spool's"), 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, dir, page(1, 2), page(2, 2))
	own := files(t, dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// No queue has ever been so long.
	absurd := "9999999999999999" + own[1][seqDigits:]
	must(os.Rename(at(own[1]), at(absurd)))
	for _, scrape := range []int{1, 3, 4} {
		want.add(page(scrape, 2))
	}
	// What is not a file of the spool.
	must(os.Symlink(outside, at("0000000000000000-1-1.pb.gz")))
	must(os.Symlink(outside, at(partialName)))
	must(syscall.Mkfifo(at("0000000000000003-1-1.pb.gz"), 0o600))
	must(os.WriteFile(at("0000000000000004-01-007.pb.gz"), nil, 0o600))
	for _, name := range []string{"0000000000000005-1-1.pb.gz", "0000000000000006-1-1.pb.gz.damaged"} {
		must(os.WriteFile(at(name), nil, 0o600))
		must(os.Truncate(at(name), 1<<40)) // takes no space
	}

	for scrape := 3; scrape <= 4; scrape++ { // in two processes
		fill(t, dir, page(scrape, 2))
	}
	c, s := deliverAll(t, dir, nil)
	if d := compare(t, want, c.held); d != 0 || len(dropped(s)) != 0 {
		t.Errorf("%d points twice, %+v", d, s)
	}
	wantFiles := []string{"0000000000000000-1-1.pb.gz", "0000000000000003-1-1.pb.gz", "0000000000000004-01-007.pb.gz",
		"0000000000000005-1-1.pb.gz", "0000000000000006-1-1.pb.gz.damaged", absurd}
	if got := files(t, dir); !slices.Equal(got, wantFiles) {
		t.Errorf("in the directory: %v", got)
	}
	if b, err := os.ReadFile(outside); string(b) != "not the spool's" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
}

// What takes the place of a file of the spool while it waits is not opened, or
// not read.
func TestReadFileTakesOnlyARegularFileOfARequestsSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for name, make := range map[string]func() error{
		"a link":              func() error { return os.Symlink("/dev/zero", path) },
		"a pipe":              func() error { return syscall.Mkfifo(path, 0o600) },
		"a directory":         func() error { return os.Mkdir(path, 0o700) },
		"a sparse file":       func() error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
		"a socket's own file": func() error { return syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if b, err := readFile(path, new(buffers).get); !errors.Is(err, errDamaged) || b != nil {
			t.Errorf("%s gives %v and %v", name, b, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A pipe in the place of the lock is not waited for.
func TestSpoolWhoseLockIsNotAFile(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link": func(path string) error { return os.Symlink("elsewhere", path) },
	} {
		dir, want, c := t.TempDir(), ledger{}, newReceiver()
		if err := make(filepath.Join(dir, lockName)); err != nil {
			t.Fatal(err)
		}
		q := open(t, Config{Conn: to(c), Dir: dir, Pace: 1})
		accept(t, q, want, page(1, 2))
		drained(t, q)
		compare(t, want, c.held)
		if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("with %s in its place the lock made another file: %v", name, err)
		}
	}
}

func TestSpoolOfThousandsOfBrokenFilesIsWorkedOff(t *testing.T) {
	const n = 5000
	dir, want, log := t.TempDir(), ledger{}, logs{}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, key(uint64(i))+"-1-2.pb.gz"), []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := newReceiver()
	q := open(t, Config{Conn: to(c), Dir: dir, Logger: log.logger(), Pace: 1, MaxBytes: (n + 1) * blockSize})
	accept(t, q, want, page(1, 2))
	if err := q.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	compare(t, want, c.held)
	if got := dropped(q.Stats()); !maps.Equal(got, map[string]int64{DroppedDamaged: 2 * n}) {
		t.Errorf("dropped %v", got)
	}
	if got := log.messages(); len(got) != 3 {
		t.Errorf("log: %q", got)
	}
}

func TestRealDiskThatIsFullOrReadOnly(t *testing.T) {
	if os.Getenv(roleEnv) != "tmpfs" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), roleEnv+"=tmpfs")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir, want := t.TempDir(), ledger{}
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	spool := filepath.Join(dir, "spool")
	c := newReceiver()
	c.answer = func(int, *request) (*response, error) { return nil, status.Error(codes.Unavailable, "") }
	q := open(t, Config{Conn: to(c), Dir: spool, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond})
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	scrape := 0
	for q.Stats().MemoryBytes == 0 { // until the disk is full
		scrape++
		accept(t, q, want, page(scrape, 50))
	}
	for range 20 {
		scrape++
		accept(t, q, want, page(scrape, 50))
	}
	full := q.Stats()
	if full.QueuedRequests != int64(scrape) || full.DiskBytes == 0 {
		t.Errorf("full: %+v", full)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	scrape++
	accept(t, q, want, page(scrape, 50))
	if s := q.Stats(); s.MemoryBytes != 0 || s.DiskBytes <= full.DiskBytes {
		t.Errorf("with room again: %+v", s)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		scrape++
		accept(t, q, want, page(scrape, 50))
	}
	if s := q.Stats(); s.MemoryBytes == 0 {
		t.Errorf("read-only: %+v", s)
	}
	if err := q.Close(ended()); err == nil || !strings.Contains(err.Error(), "150 data points could be neither delivered nor written") {
		t.Errorf("Close on a read-only disk: %v", err)
	}

	// A start on a read-only disk does not fail, leaves what is there until it
	// can be removed, and delivers it when the disk has recovered.
	held := newReceiver()
	late := ledger{}
	q = open(t, Config{Conn: to(held), Dir: spool, Pace: 1})
	accept(t, q, late, page(scrape+1, 50))
	held.attempts(1)
	compare(t, late, held.held)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	accept(t, q, nil, page(scrape+2, 50))
	s := drained(t, q)
	if want := int64(scrape-3)*50 + 2*50; s.DeliveredPoints != want {
		t.Errorf("%d points delivered of %d", s.DeliveredPoints, want)
	}
}

func newPacker(encoding string) *packer { return &packer{encoding: encoding, buffers: new(buffers)} }

func TestRecordsOfAnotherHourAreDeliveredAsTheyAre(t *testing.T) {
	// The clock was stepped between the two processes, forward and back.
	dir, want := t.TempDir(), ledger{}
	p := newPacker(collector.Gzip)
	for i, at := range []time.Time{time.Now().Add(time.Hour), time.Now().Add(-time.Hour), time.Unix(-5, 0)} {
		req := page(i+1, 2)
		want.add(req)
		b, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		it := &item{key: key(uint64(i + 1)), accepted: at, points: 2, encoding: collector.Gzip}
		if err := os.WriteFile(filepath.Join(dir, it.name()), p.pack(b).bytes, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q := open(t, Config{Conn: nowhere, Dir: dir})
	if s := q.Stats(); s.QueuedPoints != 6 || s.OldestAge != 0 {
		t.Errorf("%+v", s)
	}
	if err := q.Close(ended()); err != nil {
		t.Fatal(err)
	}
	c, _ := deliverAll(t, dir, nil)
	compare(t, want, c.held)
}
