package main

import (
	"context"
	"log/slog"

	"github.com/spf13/pflag"

	"otelmetricsplugin/internal/logging"
	"otelmetricsplugin/internal/receive"
)

var receiveCommand = command{
	name:    "receive",
	summary: "Receive OTLP/gRPC and show what arrives, until SIGTERM",
	setup: func(p *program, flags *pflag.FlagSet) func(context.Context) int {
		listen := flags.String("listen", receive.DefaultListen, "Address to listen on, `HOST:PORT` or unix:///path")
		json := flags.Bool("json", false, "Write one OTLP JSON request a line instead of a table")
		return func(ctx context.Context) int {
			logger, closeLog := logging.New(slog.LevelInfo, logging.Text, p.stderr, p.stderr)
			defer flush(closeLog)
			server := receive.Server{Listen: *listen, JSON: *json, Out: p.stdout, Log: logger}
			if err := server.Run(ctx); err != nil {
				logger.Error("the receiver ended", "error", err)
				return exitFailed
			}
			return exitDone
		}
	},
}
