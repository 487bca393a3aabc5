// Command otelmetricsplugin sends everything a Docker Engine knows about itself
// to an OpenTelemetry Collector. Without a command it is the managed plugin;
// see the README for the others.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	_ "golang.org/x/crypto/x509roots/fallback" // the plugin's file system has no roots of its own

	"otelmetricsplugin/internal/logging"
	"otelmetricsplugin/internal/receive"
	"otelmetricsplugin/internal/settings"
	"otelmetricsplugin/pkg/lifecycle"
)

// Set by the linker, see the Makefile.
var version, commit string

// Exit codes.
const (
	exitDone     = 0
	exitFailed   = 1 // at run time
	exitSettings = 2 // bad settings or command line
	exitStale    = 3 // the metrics socket is stale and a restart is wanted
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

type commandLine struct {
	settings.Values
	ShowVersion kong.VersionFlag `name:"version" help:"Show what the command version shows."`

	Plugin  struct{} `cmd:"" default:"withargs" hidden:""`
	Run     struct{} `cmd:"" help:"Collect and export at once, without the plugin protocol, until SIGTERM."`
	Print   struct{} `cmd:"" help:"Scrape once and write what would be exported to stdout, as one OTLP JSON request."`
	Receive struct {
		Listen string `default:"localhost:4317" placeholder:"HOST:PORT" help:"Address to listen on. Default localhost:4317."`
		JSON   bool   `help:"Write one OTLP JSON request a line instead of a table."`
	} `cmd:"" help:"Receive OTLP/gRPC and show what arrives, until SIGTERM."`
	Version struct{} `cmd:"" help:"Show the version, the commit and the version of Go."`
}

// run runs the program with its arguments and returns its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	var line commandLine
	helped := false
	parser, err := kong.New(&line,
		kong.Name("otelmetricsplugin"),
		kong.Description("Sends the metrics of a Docker Engine to an OpenTelemetry Collector. Without a command: the managed plugin."+
			" Also read, without a flag: OTEL_EXPORTER_OTLP_{HEADERS,INSECURE,CERTIFICATE,CLIENT_CERTIFICATE,CLIENT_KEY,COMPRESSION,TIMEOUT},"+
			" OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME; see docs/settings.md."),
		kong.Vars{"version": describeVersion()},
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "otelmetricsplugin:", err)
		return exitFailed
	}
	command, err := parser.Parse(args)
	if helped {
		return exitDone
	}
	if err != nil {
		message := strconv.Quote(err.Error()) // it holds what was given, line breaks included
		fmt.Fprintf(stderr, "otelmetricsplugin: %s; see otelmetricsplugin --help\n", message[1:len(message)-1])
		return exitSettings
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	switch command.Command() {
	case "version":
		fmt.Fprintln(stdout, describeVersion())
		return exitDone
	case "receive":
		logger, closeLog := logging.New(slog.LevelInfo, logging.Text, stderr, stderr)
		defer flush(closeLog)
		server := receive.Server{Listen: line.Receive.Listen, JSON: line.Receive.JSON, Out: stdout, Log: logger}
		if err := server.Run(ctx); err != nil {
			logger.Error("the receiver ended", "error", err)
			return exitFailed
		}
		return exitDone
	}

	s, err := settings.Read(line.Values, os.Getenv)
	if err != nil {
		fmt.Fprintln(stderr, "otelmetricsplugin:", err)
		if command.Command() == "plugin" {
			// The engine restarts a plugin that exits at once and for ever. It
			// finds no socket here, gives up after a few seconds with an error
			// of its own, and sends SIGTERM.
			<-ctx.Done()
		}
		return exitSettings
	}
	// The SDK and the exporter would read the same variables once more, by
	// rules of their own, and with them silently differ from what was judged.
	unused := settings.Unused(os.Environ())
	for _, name := range append(settings.Variables(), unused...) {
		_ = os.Unsetenv(name)
	}

	info := stdout
	if command.Command() == "print" {
		info = stderr // stdout is for the request alone
	}
	logger, closeLog := logging.New(s.LogLevel, s.LogFormat, info, stderr)
	defer flush(closeLog)
	logging.Adopt(logger)
	if len(unused) > 0 {
		logger.Warn("these variables of OpenTelemetry are not used here", "names", unused, "remedy", "docs/settings.md has those that are")
	}

	switch command.Command() {
	case "print":
		err = printOnce(ctx, s, stdout)
	case "run":
		confine(s, logger, "")
		err = runPipeline(ctx, s, logger, nil)
	default:
		confine(s, logger, s.PluginSocket)
		err = runPlugin(ctx, s, logger)
	}
	switch {
	case errors.Is(err, lifecycle.ErrStale):
		logger.Error(err.Error())
		return exitStale
	case err != nil:
		logger.Error("failed", "error", err)
		return exitFailed
	}
	return exitDone
}

// flush writes what is left of the log, while somebody reads it.
func flush(closeLog func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	closeLog(ctx)
}

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
