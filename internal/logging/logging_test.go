package logging_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.uber.org/goleak"
	"google.golang.org/grpc/grpclog"

	"otelmetricsplugin/internal/logging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestInfoGoesToOneStreamAndWarningsToTheOther(t *testing.T) {
	for format, want := range map[logging.Format][2]string{
		logging.Text: {"level=INFO msg=one a=1\n", "level=WARN msg=two a=1 g.b=2\nlevel=ERROR msg=three a=1\n"},
		logging.JSON: {`"level":"INFO","msg":"one","a":1}` + "\n", `"level":"WARN","msg":"two","a":1,"g":{"b":2}}` + "\n" + `"level":"ERROR","msg":"three","a":1}` + "\n"},
	} {
		var info, warn bytes.Buffer
		logger, closer := logging.New(slog.LevelInfo, format, &info, &warn)
		logger = logger.With("a", 1)
		logger.Debug("zero")
		logger.Info("one")
		logger.WithGroup("g").Warn("two", "b", 2)
		logger.Error("three")
		closer(t.Context())
		if got := withoutTime(info.String()); got != want[0] {
			t.Errorf("%s: the info stream has\n%s, want\n%s", format, got, want[0])
		}
		if got := withoutTime(warn.String()); got != want[1] {
			t.Errorf("%s: the warn stream has\n%s, want\n%s", format, got, want[1])
		}
	}
}

// withoutTime cuts off what stands before the level in each line.
func withoutTime(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		for _, key := range []string{"level=", `"level"`} {
			if i := strings.Index(line, key); i >= 0 {
				line = line[i:]
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

// TestAStreamNobodyReadsNeverBlocks logs ten times what any pipe and the queue
// hold together.
func TestAStreamNobodyReadsNeverBlocksAndIsCounted(t *testing.T) {
	reader, writer := io.Pipe()
	logger, closer := logging.New(slog.LevelInfo, logging.Text, writer, io.Discard)
	const records = 10000
	for range records {
		logger.Info("x")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	closer(ctx) // gives up: nobody reads

	read := make(chan string)
	go func() {
		all, _ := io.ReadAll(reader)
		read <- string(all)
	}()
	closer(t.Context())
	_ = writer.Close()
	out := <-read
	written := strings.Count(out, "msg=x")
	if written >= records || !strings.Contains(out, "level=WARN msg=\"log lines dropped, nobody read them\" lines=") {
		t.Errorf("%d of %d lines were written, and this was said of the others: %q", written, records, out[max(0, len(out)-200):])
	}
}

func TestOpenTelemetryAndGRPCLogToTheSameLogger(t *testing.T) {
	var warn bytes.Buffer
	logger, closer := logging.New(slog.LevelInfo, logging.Text, io.Discard, &warn)
	logging.Adopt(logger)
	otel.Handle(errors.New("export failed"))
	grpclog.Error("a ", "b")
	grpclog.Info("not shown")
	closer(t.Context())
	if got, want := withoutTime(warn.String()), "level=WARN msg=OpenTelemetry error=\"export failed\"\nlevel=WARN msg=gRPC error=\"a b\"\n"; got != want {
		t.Errorf("the stream has\n%s, want\n%s", got, want)
	}
}
