// Package sandbox drops the privileges that the running process does not need.
//
// Afterwards no thread has capabilities or can gain any (no_new_privs), no core
// dump is written, and if the kernel has landlock, only the given paths can be
// read or written, and nothing can be executed. None of it can be undone. What
// the kernel or the process's own rights do not allow is left out and reported;
// it never stops the program.
package sandbox

import (
	"fmt"
	"log/slog"
	"strings"
)

// Paths are what the program can still reach in the file system, as absolute
// paths; empty ones are ignored. The files of name resolution, which can be read
// in every sandbox, are not listed.
type Paths struct {
	// Spool is a directory, created if it does not exist, in which files and
	// directories are created, read, written, renamed and removed. Moving a file
	// to another directory would need a further right and is not allowed.
	Spool string
	// Socket is the path of a unix socket that is created and removed.
	Socket string
	// Read are files that are read at any later time. Each is readable with
	// everything else in its directory, and in the directory that it is
	// linked to, because to landlock a replaced file is a different one.
	Read []string
}

// Report is what is in force.
type Report struct {
	NoNewPrivs bool
	// Capabilities is whether the process still has capabilities, now or
	// after an exec.
	Capabilities bool
	// Bounding is whether the bounding set could not be emptied, which takes
	// CAP_SETPCAP. With NoNewPrivs that makes no difference.
	Bounding bool
	// CoreDumps is whether a crash may still write its memory to disk.
	CoreDumps bool
	// Landlock is the version of the kernel's landlock, 0 if it is not in force.
	Landlock int
	// Writable and Readable are the directories and files that landlock
	// allows; what is writable is readable as well.
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
