// Package logging makes the program's one logger.
//
// Records go to two streams, one line each: info and below to the first, warn
// and above to the second, because that is how Docker Engine distinguishes a
// plugin's levels. Logging never waits for a reader: while the daemon is down, a
// plugin's pipes fill up and writing to them blocks, so a goroutine writes the
// lines, and those that nobody reads are dropped and counted.
package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"google.golang.org/grpc/grpclog"
)

// queued is the number of lines that wait for a reader before more are
// dropped: enough for a burst.
const queued = 1024

// Format is the form of a line.
type Format string

// The formats.
const (
	Text Format = "text" // logfmt
	JSON Format = "json"
)

// New returns a logger of records at level and above. Close writes what is
// still queued, waiting for a reader until ctx ends; records logged afterwards
// are dropped.
func New(level slog.Leveler, format Format, info, warn io.Writer) (logger *slog.Logger, closer func(ctx context.Context)) {
	low, high := newQueue(info), newQueue(warn)
	handler := func(w io.Writer) slog.Handler {
		options := &slog.HandlerOptions{Level: level}
		if format == JSON {
			return slog.NewJSONHandler(w, options)
		}
		return slog.NewTextHandler(w, options)
	}
	return slog.New(&split{low: handler(low), high: handler(high)}), func(ctx context.Context) {
		low.close(ctx)
		high.close(ctx)
	}
}

// Adopt makes logger the destination of what OpenTelemetry and gRPC log.
// It sets process-wide state: call it once, before either is used.
func Adopt(logger *slog.Logger) {
	otel.SetLogger(logr.FromSlogHandler(logger.Handler()))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.Warn("OpenTelemetry", "error", err)
	}))
	grpclog.SetLoggerV2(grpcLogger{logger})
}

// split sends records below warn to low and the others to high.
type split struct{ low, high slog.Handler }

func (s *split) of(level slog.Level) slog.Handler {
	if level < slog.LevelWarn {
		return s.low
	}
	return s.high
}

func (s *split) Enabled(ctx context.Context, level slog.Level) bool {
	return s.of(level).Enabled(ctx, level)
}

func (s *split) Handle(ctx context.Context, r slog.Record) error {
	return s.of(r.Level).Handle(ctx, r)
}

func (s *split) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &split{s.low.WithAttrs(attrs), s.high.WithAttrs(attrs)}
}

func (s *split) WithGroup(name string) slog.Handler {
	return &split{s.low.WithGroup(name), s.high.WithGroup(name)}
}

// queue is a writer that never blocks.
type queue struct {
	lines   chan []byte
	closing chan struct{}
	done    chan struct{}
	closed  atomic.Bool
	dropped atomic.Int64
}

func newQueue(w io.Writer) *queue {
	q := &queue{lines: make(chan []byte, queued), closing: make(chan struct{}), done: make(chan struct{})}
	go q.run(w)
	return q
}

// Write queues one line, or drops it if the queue is full.
func (q *queue) Write(line []byte) (int, error) {
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

func (q *queue) run(w io.Writer) {
	defer close(q.done)
	write := func(line []byte) {
		_, _ = w.Write(line) // a failure to log cannot be logged
		if n := q.dropped.Swap(0); n > 0 {
			_, _ = fmt.Fprintf(w, "time=%s level=WARN msg=\"log lines dropped, nobody read them\" lines=%d\n",
				time.Now().Format(time.RFC3339), n)
		}
	}
	for {
		select {
		case line := <-q.lines:
			write(line)
		case <-q.closing:
			for {
				select {
				case line := <-q.lines:
					write(line)
				default:
					return
				}
			}
		}
	}
}

func (q *queue) close(ctx context.Context) {
	if q.closed.CompareAndSwap(false, true) {
		close(q.closing)
	}
	select {
	case <-q.done:
	case <-ctx.Done(): // the goroutine stays in a write that nobody reads
	}
}

// grpcLogger passes on what gRPC logs. Its info and warnings report every
// connection attempt, which is useful only for debugging: the program itself
// logs, once, that a connection is lost or back.
type grpcLogger struct{ *slog.Logger }

func (l grpcLogger) Info(args ...any)                 { l.debug(fmt.Sprint(args...)) }
func (l grpcLogger) Infoln(args ...any)               { l.debug(fmt.Sprint(args...)) }
func (l grpcLogger) Infof(format string, args ...any) { l.debug(fmt.Sprintf(format, args...)) }
func (l grpcLogger) Warning(args ...any)              { l.debug(fmt.Sprint(args...)) }
func (l grpcLogger) Warningln(args ...any)            { l.debug(fmt.Sprint(args...)) }
func (l grpcLogger) Warningf(format string, a ...any) { l.debug(fmt.Sprintf(format, a...)) }
func (l grpcLogger) Error(args ...any)                { l.Logger.Warn("gRPC", "error", fmt.Sprint(args...)) }
func (l grpcLogger) Errorln(args ...any)              { l.Logger.Warn("gRPC", "error", fmt.Sprint(args...)) }
func (l grpcLogger) Errorf(format string, args ...any) {
	l.Logger.Warn("gRPC", "error", fmt.Sprintf(format, args...))
}
func (l grpcLogger) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (l grpcLogger) Fatalln(args ...any)               { panic(fmt.Sprint(args...)) }
func (l grpcLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// V reports whether gRPC should produce messages of that verbosity at all.
func (l grpcLogger) V(int) bool { return l.Enabled(context.Background(), slog.LevelDebug) }

func (l grpcLogger) debug(message string) { l.Logger.Debug("gRPC", "message", message) }
