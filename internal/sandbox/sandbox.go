// Package sandbox takes away from the running process what it does not need.
//
// In come the few paths that the program still has to reach; afterwards every
// thread is without capabilities and cannot gain any (no_new_privs), no core
// dump is written, and where the kernel has landlock the rest of the file system
// can be neither read nor written nor executed. None of it can be undone. What
// the kernel or the process's own rights do not allow is left out and reported:
// a sandbox that cannot be entered is no reason to collect nothing.
package sandbox

import (
	"fmt"
	"log/slog"
	"strings"
)

// Paths are what the program reaches in the file system from now on, as absolute
// paths; empty ones are ignored. What may be read in every sandbox is not
// listed: the files of name resolution.
type Paths struct {
	// Spool is a directory, made if it is not there, in which files and
	// directories are made, read, written, renamed and removed. A file is not
	// moved from one directory to another: that needs a right of its own.
	Spool string
	// Socket is the path of a unix socket that is made and removed.
	Socket string
	// Read are files that are read at any later time. Each is readable with
	// everything else in its directory, and in the directory that it is
	// linked to, because a file that is replaced is another one to landlock.
	Read []string
}

// Report is what is in force.
type Report struct {
	NoNewPrivs bool
	// Capabilities is whether the process still has any, now or after an
	// exec.
	Capabilities bool
	// Bounding is whether the bounding set could not be emptied, which takes
	// CAP_SETPCAP. With NoNewPrivs it bounds nothing that could happen.
	Bounding bool
	// CoreDumps is whether a crash may still write its memory to disk.
	CoreDumps bool
	// Landlock is the version of the kernel's landlock, 0 where it is not in
	// force.
	Landlock int
	// Writable and Readable are the directories and files that landlock
	// leaves; what is writable is readable as well.
	Writable, Readable []string
}

// LogValue is the report as one group of attributes.
func (r Report) LogValue() slog.Value {
	capabilities := "none"
	switch {
	case r.Capabilities:
		capabilities = "kept"
	case r.Bounding:
		capabilities = "none, bounding set kept"
	}
	attrs := []slog.Attr{
		slog.String("capabilities", capabilities),
		slog.Bool("no_new_privs", r.NoNewPrivs),
		slog.Bool("core_dumps", r.CoreDumps),
	}
	if r.Landlock == 0 {
		return slog.GroupValue(append(attrs, slog.String("landlock", "none"))...)
	}
	return slog.GroupValue(append(attrs,
		slog.String("landlock", fmt.Sprintf("version %d", r.Landlock)),
		slog.String("writable", strings.Join(r.Writable, " ")),
		slog.String("readable", strings.Join(r.Readable, " ")))...)
}
