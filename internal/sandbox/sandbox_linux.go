package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Enter enters the sandbox, for good and with every thread. The report says
// what is in force, the error what could not be dropped and why; the program
// can go on in either case. It is called once, before the program reads
// anything that others wrote.
func Enter(paths Paths) (Report, error) {
	// The time zone is read when it is first asked for, which would be by a
	// line of the log from inside.
	_, _ = time.Now().Zone()

	report := Report{NoNewPrivs: true}
	var errs []error
	if err := forbidCoreDumps(); err != nil {
		report.CoreDumps = true
		errs = append(errs, fmt.Errorf("forbid core dumps: %w", err))
	}
	// First: it makes the rest irrevocable, and landlock wants it.
	if err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		report.NoNewPrivs = false
		errs = append(errs, fmt.Errorf("set no_new_privs: %w", err))
	}
	var err error
	if report.Bounding, err = dropCapabilities(); err != nil {
		report.Capabilities = true
		errs = append(errs, fmt.Errorf("drop capabilities: %w", err))
	} else if report.Bounding && !report.NoNewPrivs {
		report.Capabilities = true // an exec by uid 0 has them back
	}
	errs = append(errs, restrictFiles(paths, &report))
	return report, errors.Join(errs...)
}

// prctl sets an attribute of every thread of the process: the kernel keeps
// credentials per thread, and a goroutine runs on any of them. In a build
// without cgo psx is syscall.AllThreadsSyscall, which refuses to work in one
// with cgo, such as a test under the race detector.
func prctl(option, argument uintptr) error {
	// The kernel wants the arguments that an option does not have to be 0.
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, option, argument, 0, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}

// forbidCoreDumps keeps the process's memory, with its headers and keys, from
// disk. The limit alone would not do: the kernel does not apply it where
// core_pattern is a pipe, as to systemd-coredump. A process that is not dumpable
// can also not be traced, nor its memory and environment be read in /proc, by a
// process without CAP_SYS_PTRACE, one of the same user included.
func forbidCoreDumps() error {
	return errors.Join(
		os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})),
		os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)), // of the process, not the thread
	)
}

// dropCapabilities empties every set of capabilities. Kept is true if the
// bounding set could not be emptied.
func dropCapabilities() (kept bool, err error) {
	// The kernel may know more of them than unix.CAP_LAST_CAP.
	for c := uintptr(0); ; c++ {
		bounded, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			break // EINVAL: there is none of that number
		}
		if bounded == 0 {
			continue
		}
		if err := prctl(unix.PR_CAPBSET_DROP, c); err != nil {
			kept = true // EPERM: without CAP_SETPCAP, such as any user but root
			break
		}
	}
	// A capability that is no longer permitted is no longer ambient either.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	// Only a function marked go:uintptrescapes may take
	// a pointer as a uintptr.
	if _, _, errno := psx.Syscall3(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0); errno != 0 { //nolint:gosec // a system call's arguments
		return kept, os.NewSyscallError("capset", errno)
	}
	return kept, nil
}

// What landlock leaves of each kind of path. Nothing can be executed.
const (
	readFile   landlock.AccessFSSet = ll.AccessFSReadFile
	readDir    landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSReadDir
	makeSocket landlock.AccessFSSet = ll.AccessFSMakeSock | ll.AccessFSRemoveFile
	spool      landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSReadDir |
		ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSMakeDir |
		ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
)

// resolution are the files that name resolution reads, again and again.
var resolution = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"}

// restrictFiles leaves the process nothing of the file system but paths.
func restrictFiles(paths Paths, report *Report) error {
	version, err := ll.LandlockGetABIVersion()
	if err != nil {
		return nil //nolint:nilerr // ENOSYS, EOPNOTSUPP: the kernel has no landlock, or it is off; the report says so
	}
	r := rules{}
	if paths.Spool != "" {
		// If it cannot be made now it may be later, see rules.dir.
		_ = os.MkdirAll(paths.Spool, 0o700)
		r.dir(paths.Spool, spool)
	}
	if paths.Socket != "" {
		dir := filepath.Dir(paths.Socket)
		_ = os.MkdirAll(dir, 0o700) // who listens makes it otherwise, and says why it cannot
		r.dir(dir, makeSocket)
	}
	for _, file := range paths.Read {
		if file != "" {
			r.readable(file)
		}
	}
	for _, file := range resolution {
		// The file alone: /etc holds much else. Where it is a link, as to
		// /run/systemd/resolve, its directory, in which it is replaced.
		target, err := filepath.EvalSymlinks(file)
		switch {
		case err != nil: // not there
		case filepath.Dir(target) == "/etc":
			r.add(target, readFile)
		default:
			r.dir(filepath.Dir(target), readDir)
		}
	}

	// Every right over files that landlock has up to version 5. Version 9 adds
	// connecting to sockets, which is not tried yet. Of the scopes only the
	// abstract sockets, which a process in the host's network shares with the
	// host; not signals: kernels before 6.15 count the threads of one process
	// as strangers, and Go's runtime signals them.
	config, err := landlock.NewConfig(landlock.V5.HandledAccessFS, landlock.ScopedSet(ll.ScopeAbstractUnixSocket))
	if err == nil {
		err = config.BestEffort().Restrict(r.rules...)
	}
	if err != nil {
		return errors.Join(append(r.problems, fmt.Errorf("restrict files: %w", err))...)
	}
	report.Landlock = version
	report.Writable, report.Readable = r.writable, r.read
	return errors.Join(r.problems...)
}

// rules collects what landlock leaves.
type rules struct {
	rules          []landlock.Rule
	writable, read []string
	problems       []error
}

// readable leaves file, which need not be there yet, and what is beside it.
func (r *rules) readable(file string) {
	target, err := filepath.EvalSymlinks(file)
	if filepath.Dir(file) == "/" {
		// Not the whole file system for it.
		if err != nil {
			r.problems = append(r.problems, fmt.Errorf("%s is not there and stays unreadable until a restart: a file that comes later is put in a directory of its own", file))
			return
		}
		r.add(target, readFile)
		return
	}
	r.dir(filepath.Dir(file), readDir)
	if err == nil && filepath.Dir(target) != "/" {
		r.dir(filepath.Dir(target), readDir)
	}
}

// dir leaves a directory or, where it is not there, the nearest one above it
// that is, so that it can still come.
func (r *rules) dir(path string, access landlock.AccessFSSet) {
	there := path
	for there != "/" {
		if info, err := os.Stat(there); err == nil && info.IsDir() {
			r.add(there, access)
			return
		}
		there = filepath.Dir(there)
	}
	r.problems = append(r.problems, fmt.Errorf("%s is not there, nor is a directory above it: it stays out of reach until a restart", path))
}

func (r *rules) add(path string, access landlock.AccessFSSet) {
	list := &r.read
	if access == spool || access == makeSocket {
		list = &r.writable
	}
	if !slices.Contains(*list, path) {
		*list = append(*list, path)
	}
	r.rules = append(r.rules, landlock.PathAccess(access, path).IgnoreIfMissing())
}
