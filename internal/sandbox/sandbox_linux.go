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

// Enter enters the sandbox, permanently and with every thread. The report says
// what is in force, the error what could not be dropped and why; the program
// can continue in either case. Call it once, before the program reads anything
// that others wrote.
func Enter(paths Paths) (Report, error) {
	// The time zone is read when it is first used, which would be for a log
	// line, inside the sandbox.
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
		report.Capabilities = true // an exec by uid 0 regains them
	}
	errs = append(errs, restrictFiles(paths, &report))
	return report, errors.Join(errs...)
}

// prctl sets an attribute of every thread of the process: the kernel keeps
// credentials per thread, and a goroutine runs on any of them. In a build
// without cgo psx is syscall.AllThreadsSyscall, which refuses to work in one
// with cgo, such as a test under the race detector.
func prctl(option, argument uintptr) error {
	// The kernel wants unused arguments to be 0.
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, option, argument, 0, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}

// forbidCoreDumps keeps the process's memory, with its headers and keys, from
// disk. The limit alone is not enough: the kernel does not apply it if
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
			break // EINVAL: no capability has that number
		}
		if bounded == 0 {
			continue
		}
		if err := prctl(unix.PR_CAPBSET_DROP, c); err != nil {
			kept = true // EPERM: no CAP_SETPCAP, as for any user except root
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

// What landlock allows for each kind of path. Nothing can be executed.
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

// restrictFiles makes everything except paths inaccessible.
func restrictFiles(paths Paths, report *Report) error {
	version, err := ll.LandlockGetABIVersion()
	if err != nil {
		return nil //nolint:nilerr // ENOSYS, EOPNOTSUPP: the kernel has no landlock, or it is off; the report says so
	}
	r := rules{}
	if paths.Spool != "" {
		// If it cannot be created now, it may be later; see rules.dir.
		_ = os.MkdirAll(paths.Spool, 0o700)
		r.dir(paths.Spool, spool)
	}
	if paths.Socket != "" {
		dir := filepath.Dir(paths.Socket)
		_ = os.MkdirAll(dir, 0o700) // otherwise the listener creates it, or says why it cannot
		r.dir(dir, makeSocket)
	}
	for _, file := range paths.Read {
		if file != "" {
			r.readable(file)
		}
	}
	for _, file := range resolution {
		// Only the file: /etc contains much else. If it is a link, as to
		// /run/systemd/resolve, the target's directory, where it is replaced.
		target, err := filepath.EvalSymlinks(file)
		switch {
		case err != nil: // it does not exist
		case filepath.Dir(target) == "/etc":
			r.add(target, readFile)
		default:
			r.dir(filepath.Dir(target), readDir)
		}
	}

	// Every right over files that landlock has up to version 5. Version 9 adds
	// connecting to sockets, which is not tried yet. Of the scopes only
	// abstract sockets, which a process in the host's network shares with the
	// host; not signals: before 6.15 the kernel does not let the threads of one
	// process signal each other then, and Go's runtime does that.
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

// rules collects what landlock is to allow.
type rules struct {
	rules          []landlock.Rule
	writable, read []string
	problems       []error
}

// readable allows to read file, which need not exist yet, and its directory.
func (r *rules) readable(file string) {
	target, err := filepath.EvalSymlinks(file)
	if filepath.Dir(file) == "/" {
		// Not the whole file system.
		if err != nil {
			r.problems = append(r.problems, fmt.Errorf("%s does not exist and stays unreadable until a restart: put a file that is created later in a directory of its own", file))
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

// dir allows access to a directory or, if it does not exist, to its nearest
// parent that does, so that it can still be created.
func (r *rules) dir(path string, access landlock.AccessFSSet) {
	for dir := path; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			r.add(dir, access)
			return
		}
	}
	r.problems = append(r.problems, fmt.Errorf("%s does not exist, nor does a directory above it: it stays inaccessible until a restart", path))
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
