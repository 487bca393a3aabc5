// Package settings reads and validates every setting of the program.
//
// Its table has each setting once: variable, flag, default, meaning and check.
// The command line's help is made from it; a test
// compares config.json and docs/settings.md with it. Nothing is opened, resolved or started here: what
// may come right by itself, such as a file that does not exist yet, is not a bad
// setting.
package settings

import (
	"log/slog"
	"regexp"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"otelmetricsplugin/internal/logging"
	"otelmetricsplugin/pkg/scrape"
)

// Settings are the validated settings.
type Settings struct {
	Endpoint    Endpoint
	Headers     map[string]string // names in lower case
	HeadersFile string            // "" for none
	TLS         TLSFiles
	Compression string        // "gzip", "zstd" or "" for none
	Timeout     time.Duration // of one attempt to export
	Temporality sdkmetric.TemporalitySelector
	Interval    time.Duration
	// Resource holds the resource attributes that the user gave; they win over
	// what the engine says.
	Resource []attribute.KeyValue

	include, exclude *regexp.Regexp

	Scrape        scrape.Config
	PluginSocket  string
	SpoolDir      string // "" for none
	SpoolMaxBytes int64
	LogLevel      slog.Level
	LogFormat     logging.Format
}

// Endpoint is where to export.
type Endpoint struct {
	Target string // a gRPC target
	TLS    bool
}

// TLSFiles are paths of PEM files; "" for none.
type TLSFiles struct {
	CA, Certificate, Key string
}

// Keep reports whether the family of that name is to be exported.
func (s *Settings) Keep(family string) bool {
	return (s.include == nil || s.include.MatchString(family)) &&
		(s.exclude == nil || !s.exclude.MatchString(family))
}

// Read validates the settings that lookup has, by the name of their variable.
// Empty is unset, and surrounding spaces do not count. The error is an [*Error],
// which names every bad setting.
func Read(lookup func(name string) string) (*Settings, error) {
	r := &reader{lookup: lookup, s: &Settings{}}
	for _, setting := range table {
		if setting.read != nil {
			setting.read(r, r.value(setting))
		}
	}
	if v := r.first(protocols...); v.text != "" && v.text != "grpc" {
		r.bad(v, "want grpc, the only supported protocol")
	}
	if len(r.problems) > 0 {
		return nil, &Error{Problems: r.problems}
	}
	return r.s, nil
}

// Error says which settings are bad.
type Error struct {
	// Problems holds one text per bad setting: its name, what was given (unless
	// it may be a secret), why it is bad, what is accepted.
	Problems []string
}

func (e *Error) Error() string { return "bad settings: " + strings.Join(e.Problems, "; ") }
