package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"
)

var versionCommand = command{
	name:    "version",
	summary: "Show the version, the commit and the version of Go",
	setup: func(p *program, _ *pflag.FlagSet) func(context.Context) int {
		return func(context.Context) int {
			fmt.Fprintln(p.stdout, describeVersion())
			return exitDone
		}
	},
}

// Set by the linker, see the Makefile.
var version, commit string

// buildVersion is the version set by the linker, or what Go recorded.
func buildVersion() (v, revision string) {
	v, revision = version, commit
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v, revision
	}
	if v == "" {
		v = info.Main.Version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && revision == "" {
			revision = setting.Value
		}
	}
	return v, revision
}

func describeVersion() string {
	v, revision := buildVersion()
	if revision == "" {
		revision = "unknown"
	}
	return fmt.Sprintf("otelmetricsplugin %s, commit %s, %s %s/%s", v, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
