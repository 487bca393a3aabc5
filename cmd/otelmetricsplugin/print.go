package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/pflag"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"otelmetricsplugin/internal/settings"
)

var printCommand = command{
	name:     "print",
	summary:  "Scrape once and write what would be exported to stdout, as one OTLP JSON request",
	settings: true,
	setup: func(p *program, _ *pflag.FlagSet) func(context.Context) int {
		return func(ctx context.Context) int {
			// stdout is for the request alone.
			return p.withSettings(p.stderr, func(s *settings.Settings, _ *slog.Logger) error {
				// Cumulative whatever the settings say: one scrape alone has no deltas.
				s.Temporality = sdkmetric.CumulativeTemporalitySelector
				line, err := collectOnce(ctx, s)
				if errors.Is(err, os.ErrPermission) {
					err = fmt.Errorf("%w; run it as root", err)
				}
				if err == nil {
					_, err = p.stdout.Write(append(line, '\n'))
				}
				return err
			})
		}
	},
}
