package main

import (
	"context"
	"log/slog"

	"github.com/spf13/pflag"

	"otelmetricsplugin/internal/settings"
)

var runCommand = command{
	name:     "run",
	summary:  "Collect and export at once, without the plugin protocol, until SIGTERM",
	settings: true,
	setup: func(p *program, _ *pflag.FlagSet) func(context.Context) int {
		return func(ctx context.Context) int {
			return p.withSettings(p.stdout, func(s *settings.Settings, logger *slog.Logger) error {
				confine(s, logger, "")
				pipeline, err := newPipeline(s, logger, false)
				if err != nil {
					return err
				}
				pipeline.manager.Start()
				<-ctx.Done()
				return pipeline.close()
			})
		}
	},
}
