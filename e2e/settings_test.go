package e2e

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"otelmetricsplugin/e2e/internal/collector"
	"otelmetricsplugin/e2e/internal/engine"
)

// TestBadSettingsFailTheEnableAndAreNamedOnceInTheEnginesLog holds that a user
// finds one line with everything that is wrong: a plugin that exits would be
// restarted at once, again and again, and log each time.
func TestBadSettingsFailTheEnableAndAreNamedOnceInTheEnginesLog(t *testing.T) {
	e := sharedEngine(t)
	p := install(t, e, collector.New(t, nil), nil)
	p.Set(t, "OTLP_ENDPOINT=ftp://collector:4317", "OTEL_METRIC_EXPORT_INTERVAL=soon", "LOG_LEVEL=loud")
	mark := e.Log.Len()

	err := p.TryEnable(t.Context())
	if answer := new(engine.Error); !errors.As(err, &answer) || answer.Status != http.StatusInternalServerError {
		t.Errorf("enable gave %v, want an answer with status 500", err)
	}
	if p.Enabled(t) {
		t.Error("the plugin is enabled")
	}
	want := []string{`otelmetricsplugin: bad settings: OTLP_ENDPOINT="ftp://collector:4317": unknown scheme "ftp"; want http://host:port (plaintext), https://host:port (TLS), unix:///path, dns:///host:port or host:port (TLS)` +
		`; OTEL_METRIC_EXPORT_INTERVAL="soon": want milliseconds, as 15000, or a duration, as 15s, from 100ms to 24h0m0s` +
		`; LOG_LEVEL="loud": want debug, info, warn or error`}
	if got := messages(t, e.Log.Since(mark), p.ID); !slices.Equal(got, want) {
		t.Errorf("the plugin said in the engine's log:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// It is mended as it was broken.
	c := collector.New(t, nil)
	c.Start(t)
	p.Set(t, "OTLP_ENDPOINT=http://"+c.Endpoint, "OTEL_METRIC_EXPORT_INTERVAL=1s", "LOG_LEVEL=")
	p.Enable(t)
	checkArrival(t, e, c)
}

// messages returns the lines that the plugin wrote, as the engine logged them:
// each is the msg of a line in logfmt.
func messages(t *testing.T, lines []string, pluginID string) (all []string) {
	t.Helper()
	for _, line := range lines {
		if !strings.HasSuffix(line, " plugin="+pluginID) {
			continue
		}
		_, quoted, _ := strings.Cut(line, " msg=")
		quoted, err := strconv.QuotedPrefix(quoted)
		if err != nil {
			t.Fatalf("no quoted message in the line %s", line)
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}
