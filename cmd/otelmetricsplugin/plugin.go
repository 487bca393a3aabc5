package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/spf13/pflag"

	"otelmetricsplugin/internal/settings"
	"otelmetricsplugin/pkg/lifecycle"
)

var pluginCommand = command{
	summary:  "Sends the metrics of a Docker Engine to an OpenTelemetry Collector. Without a command it is the managed plugin",
	settings: true,
	setup: func(p *program, _ *pflag.FlagSet) func(context.Context) int {
		return func(ctx context.Context) int {
			code := p.withSettings(p.stdout, func(s *settings.Settings, logger *slog.Logger) error {
				confine(s, logger, s.PluginSocket)
				pipeline, err := newPipeline(s, logger, true)
				if err != nil {
					return err
				}
				err = servePlugin(ctx, s.PluginSocket, logger, pipeline.manager)
				return errors.Join(err, pipeline.close())
			})
			if code == exitSettings {
				// The engine restarts a plugin that exits at once, and does so
				// forever. Here it finds no socket, gives up after a few seconds
				// with an error of its own, and sends SIGTERM.
				<-ctx.Done()
			}
			return code
		}
	},
}

// servePlugin serves the plugin protocol until ctx ends or the metrics socket is
// stale.
func servePlugin(ctx context.Context, socket string, logger *slog.Logger, manager *lifecycle.Manager) error {
	listener, err := lifecycle.Listen(socket)
	if err != nil {
		return err
	}
	server := lifecycle.NewServer(manager)
	server.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelWarn)
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	select {
	case err := <-served:
		return fmt.Errorf("plugin socket: %w", err)
	case <-manager.Stale():
		err = lifecycle.ErrStale
	case <-ctx.Done():
	}
	_ = server.Close() // nobody waits for an answer of a plugin that ends
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
