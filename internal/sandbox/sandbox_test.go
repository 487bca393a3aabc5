//go:build linux

package sandbox_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"go.uber.org/goleak"
	_ "golang.org/x/crypto/x509roots/fallback"
	"golang.org/x/sys/unix"

	"otelmetricsplugin/internal/sandbox"
)

// asInmate in the environment makes the test's binary one that enters the
// sandbox, which nothing leaves.
const asInmate = "OTELMETRICSPLUGIN_TEST_INMATE"

func TestMain(m *testing.M) {
	if os.Getenv(asInmate) != "" {
		serveInmate()
		return
	}
	goleak.VerifyTestMain(m)
}

// command is what an inmate is told to try.
type command struct {
	Do, Path string
	Paths    sandbox.Paths
}

// answer is how that went.
type answer struct {
	Report   sandbox.Report
	Got, Err string
}

// serveInmate does what stdin says, a command a line, until it is closed.
func serveInmate() {
	// Threads that exist before the sandbox is entered, and live on.
	for range 8 {
		ready := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(ready)
			select {}
		}()
		<-ready
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var c command
		if err := in.Decode(&c); err != nil {
			return
		}
		var a answer
		var err error
		switch c.Do {
		case "enter":
			a.Report, err = sandbox.Enter(c.Paths)
		case "read":
			var content []byte
			content, err = os.ReadFile(c.Path)
			a.Got = string(content)
		case "list":
			_, err = os.ReadDir(c.Path)
		case "spool":
			err = spool(c.Path)
		case "write":
			err = os.WriteFile(c.Path, []byte("x"), 0o600)
		case "append":
			var f *os.File
			if f, err = os.OpenFile(c.Path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
				err = f.Close()
			}
		case "remove":
			err = os.Remove(c.Path)
		case "exec":
			// Not by os/exec, which would fail to open /dev/null first.
			var process *os.Process
			if process, err = os.StartProcess(c.Path, []string{c.Path}, &os.ProcAttr{}); err == nil {
				_, err = process.Wait()
			}
		case "dial":
			var conn net.Conn
			if conn, err = net.Dial("unix", c.Path); err == nil {
				err = conn.Close()
			}
		case "listen":
			var listener net.Listener
			if listener, err = net.Listen("unix", c.Path); err == nil {
				err = listener.Close()
			}
		case "lookup":
			var addresses []string
			resolver := net.Resolver{PreferGo: true} // as in a build without cgo
			addresses, err = resolver.LookupHost(context.Background(), c.Path)
			slices.Sort(addresses)
			a.Got = strings.Join(addresses, " ")
		case "roots":
			var roots *x509.CertPool
			if roots, err = x509.SystemCertPool(); err == nil {
				a.Got = strconv.FormatBool(!roots.Equal(x509.NewCertPool()))
			}
		case "zone":
			a.Got, _ = time.Now().Zone()
		case "dumpable":
			var n int
			n, err = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
			a.Got = strconv.Itoa(n)
		default:
			err = fmt.Errorf("do what: %q", c.Do)
		}
		if err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return
		}
	}
}

// spool does in a directory what a spool does.
func spool(dir string) error {
	for _, step := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(dir, "sub"), 0o700) },
		func() error { return os.WriteFile(filepath.Join(dir, "a"), []byte("123"), 0o600) },
		func() error { return os.Truncate(filepath.Join(dir, "a"), 1) },
		func() error { return os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")) },
		func() error { _, err := os.ReadFile(filepath.Join(dir, "b")); return err },
		func() error { _, err := os.ReadDir(dir); return err },
		func() error { return os.Remove(filepath.Join(dir, "b")) },
		func() error { return os.Remove(filepath.Join(dir, "sub")) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// inmate is such a process.
type inmate struct {
	*exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

func start(t *testing.T, env ...string) *inmate {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), append(env, asInmate+"=1", "GORACE=atexit_sleep_ms=0")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("the process ended: %v\n%s", err, &stderr)
		}
	})
	return &inmate{cmd, json.NewEncoder(stdin), json.NewDecoder(bufio.NewReader(stdout))}
}

func (i *inmate) do(t *testing.T, c command) answer {
	t.Helper()
	if err := i.in.Encode(c); err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := i.out.Decode(&a); err != nil {
		t.Fatal(err)
	}
	return a
}

// enter makes the process enter, and fails the test if it could not in full.
func (i *inmate) enter(t *testing.T, paths sandbox.Paths) sandbox.Report {
	t.Helper()
	a := i.do(t, command{Do: "enter", Paths: paths})
	if a.Err != "" {
		t.Fatalf("entering: %s", a.Err)
	}
	return a.Report
}

// try tells the process to do something with a path and compares its error.
func (i *inmate) try(t *testing.T, do, path, want string) {
	t.Helper()
	if got := i.do(t, command{Do: do, Path: path}).Err; (want == "") != (got == "") || !strings.HasSuffix(got, want) {
		t.Errorf("%s %s: error %q, want %q", do, path, got, want)
	}
}

// get tells the process to do something with a path and compares what it got.
func (i *inmate) get(t *testing.T, do, path, want string) {
	t.Helper()
	if a := i.do(t, command{Do: do, Path: path}); a.Err != "" || a.Got != want {
		t.Errorf("%s %s: %q and error %q, want %q", do, path, a.Got, a.Err, want)
	}
}

const denied = "permission denied"

// needLandlock skips the test on a kernel without landlock, where there is
// nothing to test; the machine that checks every change has one with.
func needLandlock(t *testing.T) {
	t.Helper()
	version, err := ll.LandlockGetABIVersion()
	switch {
	case err == nil && version > 0:
	case os.Getenv("CI") == "true":
		t.Fatalf("this kernel has no landlock: %v", err)
	default:
		t.Skipf("this kernel has no landlock: %v", err)
	}
}

// tempDir is a directory whose path is short enough for a socket.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// threads returns, for each thread of the process, the fields of its status
// that tell of privilege.
func (i *inmate) threads(t *testing.T) []map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", i.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var threads []map[string]string
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that ended
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			if strings.HasPrefix(name, "Cap") || name == "NoNewPrivs" {
				fields[name] = value
			}
		}
		threads = append(threads, fields)
	}
	return threads
}

func TestEveryThreadLosesEveryCapabilityAndCannotGainOne(t *testing.T) {
	inmate := start(t)
	inmate.get(t, "dumpable", "", "1")
	before := inmate.threads(t)
	if len(before) < 8 {
		t.Fatalf("%d threads before", len(before))
	}
	const zero = "0000000000000000"
	want := map[string]string{"CapInh": zero, "CapPrm": zero, "CapEff": zero, "CapBnd": zero, "CapAmb": zero, "NoNewPrivs": "1"}
	wantReport := sandbox.Report{NoNewPrivs: true}
	if os.Getuid() != 0 {
		// Only CAP_SETPCAP empties the bounding set.
		want["CapBnd"], wantReport.Bounding = before[0]["CapBnd"], true
	} else if before[0]["CapEff"] == zero {
		t.Fatal("root without a capability has none to drop")
	}

	report := inmate.enter(t, sandbox.Paths{})
	report.Landlock, report.Readable = 0, nil
	if fmt.Sprint(report) != fmt.Sprint(wantReport) {
		t.Errorf("the report is %+v, want %+v", report, wantReport)
	}
	after := inmate.threads(t)
	if len(after) < len(before) {
		t.Errorf("%d threads after, %d before", len(after), len(before))
	}
	for _, thread := range after {
		if fmt.Sprint(thread) != fmt.Sprint(want) {
			t.Errorf("a thread has %v, want %v", thread, want)
		}
	}

	inmate.get(t, "dumpable", "", "0")
	var limit unix.Rlimit
	if err := unix.Prlimit(inmate.Process.Pid, unix.RLIMIT_CORE, nil, &limit); err != nil || limit != (unix.Rlimit{}) {
		t.Errorf("the limit of a core dump is %+v, %v, want 0", limit, err)
	}
}

func TestTheSpoolIsWrittenAndNothingElse(t *testing.T) {
	needLandlock(t)
	dir := tempDir(t)
	other := write(t, filepath.Join(dir, "other", "file"), "secret")
	spoolDir := filepath.Join(dir, "var", "lib", "spool") // is not there yet
	socket := filepath.Join(dir, "plugins", "p.sock")
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	abstract, err := net.Listen("unix", "@"+filepath.Base(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()

	inmate := start(t)
	// What is refused inside works outside.
	inmate.get(t, "read", other, "secret")
	inmate.try(t, "append", other, "")
	inmate.try(t, "exec", program, "")
	inmate.try(t, "dial", abstract.Addr().String(), "")

	report := inmate.enter(t, sandbox.Paths{Spool: spoolDir, Socket: socket})
	if want := []string{spoolDir, filepath.Dir(socket)}; !slices.Equal(report.Writable, want) {
		t.Errorf("writable is %q, want %q", report.Writable, want)
	}

	inmate.try(t, "spool", spoolDir, "")
	inmate.try(t, "listen", socket, "")
	inmate.try(t, "listen", socket, "") // the first one was removed

	inmate.try(t, "read", "/etc/passwd", denied)
	inmate.try(t, "read", "/proc/self/environ", denied)
	inmate.try(t, "read", other, denied)
	inmate.try(t, "append", other, denied)
	inmate.try(t, "remove", other, denied)
	inmate.try(t, "write", filepath.Join(dir, "new"), denied)
	inmate.try(t, "write", filepath.Join(filepath.Dir(socket), "new"), denied)
	inmate.try(t, "list", "/", denied)
	inmate.try(t, "list", filepath.Dir(socket), denied)
	inmate.try(t, "listen", filepath.Join(spoolDir, "s"), denied)
	inmate.try(t, "exec", program, denied)
	inmate.try(t, "read", "/dev/null", denied)
	inmate.try(t, "dial", abstract.Addr().String(), "operation not permitted")

	// Nor can it execute what it wrote.
	inmate.try(t, "write", filepath.Join(spoolDir, "program"), "")
	if err := os.Chmod(filepath.Join(spoolDir, "program"), 0o700); err != nil {
		t.Fatal(err)
	}
	inmate.try(t, "exec", filepath.Join(spoolDir, "program"), denied)

	if info, err := os.Stat(spoolDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the spool's directory: %v, %v, want mode 0700", info, err)
	}
}

func TestAFileThatComesLateOrIsReplacedIsRead(t *testing.T) {
	needLandlock(t)
	dir := tempDir(t)
	late := filepath.Join(dir, "late", "deeper", "headers") // its directory is not there
	linked := filepath.Join(dir, "live", "linked.pem")      // a link into a directory beside its own
	mounted := filepath.Join(dir, "mounted", "ca.pem")      // as Kubernetes mounts a secret
	write(t, filepath.Join(dir, "live", "beside"), "beside")
	write(t, filepath.Join(dir, "archive", "1.pem"), "one")
	write(t, filepath.Join(dir, "mounted", "..2025", "ca.pem"), "25")
	link := func(target, path string) {
		t.Helper()
		temporary := path + ".new"
		if err := os.Symlink(target, temporary); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temporary, path); err != nil {
			t.Fatal(err)
		}
	}
	link("../archive/1.pem", linked)
	link("..2025", filepath.Join(dir, "mounted", "..data"))
	link("..data/ca.pem", mounted)

	inmate := start(t)
	report := inmate.enter(t, sandbox.Paths{Read: []string{late, linked, mounted, ""}})
	want := []string{dir, filepath.Join(dir, "live"), filepath.Join(dir, "archive"),
		filepath.Join(dir, "mounted"), filepath.Join(dir, "mounted", "..2025")}
	if got := report.Readable[:min(len(want), len(report.Readable))]; !slices.Equal(got, want) {
		t.Errorf("readable is %q, want %q first", report.Readable, want)
	}

	inmate.try(t, "read", late, "no such file or directory")
	write(t, late, "late")
	inmate.get(t, "read", late, "late")

	inmate.get(t, "read", linked, "one")
	write(t, filepath.Join(dir, "archive", "2.pem"), "two")
	link("../archive/2.pem", linked)
	inmate.get(t, "read", linked, "two")

	inmate.get(t, "read", mounted, "25")
	write(t, filepath.Join(dir, "mounted", "..2026", "ca.pem"), "26")
	link("..2026", filepath.Join(dir, "mounted", "..data"))
	inmate.get(t, "read", mounted, "26")

	if err := os.Chmod(filepath.Join(dir, "live", "beside"), 0o755); err != nil {
		t.Fatal(err)
	}
	inmate.try(t, "exec", filepath.Join(dir, "live", "beside"), denied)
	inmate.try(t, "append", linked, denied)
	inmate.try(t, "write", filepath.Join(dir, "live", "new"), denied)
}

func TestAPathWithNothingAboveItIsReportedAndTheRestIsInForce(t *testing.T) {
	needLandlock(t)
	inmate := start(t)
	a := inmate.do(t, command{Do: "enter", Paths: sandbox.Paths{Read: []string{"/not-there/deeper/ca.pem", "/not-there.pem"}}})
	want := "/not-there/deeper does not exist, nor does a directory above it: it stays inaccessible until a restart\n" +
		"/not-there.pem does not exist and stays unreadable until a restart: put a file that is created later in a directory of its own"
	if a.Err != want {
		t.Errorf("the error is\n%s, want\n%s", a.Err, want)
	}
	if a.Report.Landlock == 0 || !a.Report.NoNewPrivs || a.Report.Capabilities || a.Report.CoreDumps {
		t.Errorf("the report is %+v", a.Report)
	}
	inmate.try(t, "read", "/etc/passwd", denied)
}

func TestWhatTheProgramConnectsToAndAsksTheHostForStillWorks(t *testing.T) {
	dir := tempDir(t)
	socket := filepath.Join(dir, "metrics.sock")
	listen := func() net.Listener {
		t.Helper()
		listener, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		return listener
	}
	// A time zone in a file outside, in the form of RFC 9636: one type, no changes.
	zone := write(t, filepath.Join(dir, "zone"), "TZif"+strings.Repeat("\x00", 16+4*4)+"\x00\x00\x00\x01\x00\x00\x00\x04"+"\x00\x00\x4d\x58\x00\x00"+"IST\x00")
	inmate := start(t, "TZ="+zone)
	addresses := inmate.do(t, command{Do: "lookup", Path: "localhost"})
	if !strings.Contains(addresses.Got, "127.0.0.1") {
		t.Fatalf("localhost is %q, %s", addresses.Got, addresses.Err)
	}
	inmate.enter(t, sandbox.Paths{Spool: filepath.Join(dir, "spool")})

	inmate.try(t, "dial", socket, "no such file or directory")
	listener := listen()
	inmate.try(t, "dial", socket, "")
	_ = listener.Close() // and with it the file
	listener = listen()
	inmate.try(t, "dial", socket, "")
	_ = listener.Close()

	inmate.get(t, "lookup", "localhost", addresses.Got)
	for _, file := range []string{"/etc/hosts", "/etc/resolv.conf"} {
		content, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // a machine without name servers
		}
		inmate.get(t, "read", file, string(content))
	}
	inmate.get(t, "roots", "", "true")
	inmate.get(t, "zone", "", "IST")
}

func TestOneLineOfTheLogSaysWhatIsInForce(t *testing.T) {
	for want, report := range map[string]sandbox.Report{
		"sandbox.capabilities=none sandbox.no_new_privs=true sandbox.core_dumps=false" +
			` sandbox.landlock="version 7" sandbox.writable="/a /b" sandbox.readable=/c`: {
			NoNewPrivs: true, Landlock: 7, Writable: []string{"/a", "/b"}, Readable: []string{"/c"},
		},
		`sandbox.capabilities="none, bounding set kept" sandbox.no_new_privs=true sandbox.core_dumps=false sandbox.landlock=none`: {
			NoNewPrivs: true, Bounding: true,
		},
		"sandbox.capabilities=kept sandbox.no_new_privs=false sandbox.core_dumps=true sandbox.landlock=none": {
			Capabilities: true, Bounding: true, CoreDumps: true,
		},
	} {
		var line strings.Builder
		slog.New(slog.NewTextHandler(io.Writer(&line), nil)).Info("x", "sandbox", report)
		if _, got, _ := strings.Cut(strings.TrimSpace(line.String()), "msg=x "); got != want {
			t.Errorf("the line is\n%s, want\n%s", got, want)
		}
	}
}
