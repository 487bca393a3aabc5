package settings

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"otelmetricsplugin/internal/logging"
	"otelmetricsplugin/pkg/scrape"
)

// Setting is one setting of the program.
//
// Defaults live here and not in config.json: an upgrade of a plugin keeps the
// environment that it had, without the variables that are new.
type Setting struct {
	Name    string  // the environment variable
	Flag    string  // the flag, without its dashes; "" if there is none
	Value   string  // what the flag takes: URL, DURATION
	Default string  // the value that applies if it is unset; "" if there is none
	Unset   string  // in words, what applies if it is unset and Default is ""
	Meaning string  // what it does, without a full stop; code is in backquotes
	Section Section // of docs/settings.md
	Wins    string  // the variable over which this one wins, for one signal only

	// from are the variables that are read for it, the first one that is set; if
	// nil, Name. read checks the value and stores it; it is nil if another
	// setting's read does that, or if a library reads the variable by itself.
	from []string
	read func(*reader, value)
}

// Section is a heading of docs/settings.md.
type Section string

// The sections.
const (
	Destination Section = "Destination"
	Protocol    Section = "Protocol"
	Content     Section = "Content"
	Scraping    Section = "Scraping"
	Process     Section = "Process"
)

// Plain is the setting's meaning and what applies if it is unset, without
// backquotes.
func (s Setting) Plain() string {
	text := strings.ReplaceAll(s.Meaning, "`", "")
	if unset := cmp.Or(s.Default, strings.ReplaceAll(s.Unset, "`", "")); unset != "" {
		text += "; default " + unset
	}
	return text
}

// Table returns every setting, in the order in which people are shown them.
func Table() []Setting { return slices.Clone(table) }

// Variables returns the name of every environment variable that is read here.
func Variables() (names []string) {
	for _, s := range table {
		if !slices.Contains(foreign, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// foreign are variables that gRPC reads by itself.
var foreign = []string{"HTTPS_PROXY", "NO_PROXY"}

// protocols are checked, have one value and need not be declared.
var protocols = []string{"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"}

// Unused returns the names of OpenTelemetry's variables in environ, as
// os.Environ has it, that are set and are not settings: whoever set one expects
// it to have an effect.
func Unused(environ []string) (names []string) {
	known := append(Variables(), protocols...)
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "OTEL_") && text != "" && !slices.Contains(known, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

const exporter = "OTEL_EXPORTER_OTLP_"

// ofExporter are the variables of one of the exporter's settings, the one for
// metrics first.
func ofExporter(name string) []string { return []string{exporter + "METRICS_" + name, exporter + name} }

// perSignal completes a setting of the exporter, for all signals, and adds the
// one for metrics. Name is given without its prefix.
func perSignal(s Setting) []Setting {
	s.from = ofExporter(s.Name)
	s.Name = exporter + s.Name
	return []Setting{s, {
		Name: s.from[0], Meaning: fmt.Sprintf("`%s` for metrics alone; wins", s.Name), Section: s.Section, Wins: s.Name,
	}}
}

var table = slices.Concat(
	[]Setting{
		{
			Name: "OTLP_ENDPOINT", Flag: "otlp-endpoint", Value: "URL", Default: "http://localhost:4317", Section: Destination,
			Meaning: "The Collector: `http://host:port` (plaintext), `https://host:port` (TLS), `unix:///path`, `dns:///host:port` or `host:port` (TLS)",
			from:    append([]string{"OTLP_ENDPOINT"}, ofExporter("ENDPOINT")...),
			read:    func(r *reader, v value) { r.s.Endpoint = r.endpoint(v) },
		},
		{
			Name: exporter + "METRICS_ENDPOINT", Section: Destination,
			Meaning: "The standard name of `OTLP_ENDPOINT`, used if that is unset",
		},
		{
			Name: exporter + "ENDPOINT", Section: Destination,
			Meaning: "The endpoint of all signals, used if the two above are unset",
		},
	},
	perSignal(Setting{
		Name: "INSECURE", Default: "false", Section: Destination,
		Meaning: "`true`: an endpoint without `http://` or `https://` is plaintext",
		read:    func(r *reader, v value) { r.insecure(v) },
	}),
	[]Setting{
		{
			Name: "HTTPS_PROXY", Unset: "none", Section: Destination,
			Meaning: "An HTTP proxy on the way to the endpoint, `http://host:port`, used by CONNECT",
		},
		{
			Name: "NO_PROXY", Section: Destination,
			Meaning: "Hosts that are reached without the proxy, separated by commas",
		},
		{
			Name: exporter + "HEADERS", Section: Protocol,
			Meaning: "Headers of every export: `name=value,name=value`, values percent-encoded; put secrets in `OTEL_EXPORTER_OTLP_HEADERS_FILE`",
			read:    func(r *reader, _ value) { r.s.Headers = r.headers() },
		},
		{
			Name: exporter + "METRICS_HEADERS", Section: Protocol, Wins: exporter + "HEADERS",
			Meaning: "`OTEL_EXPORTER_OTLP_HEADERS` for metrics alone; the two are merged, these win",
		},
		{
			Name: exporter + "HEADERS_FILE", Flag: "otlp-headers-file", Value: "PATH", Section: Protocol,
			Meaning: "A file of headers, one `name=value` a line, for secrets; wins over the variables",
			read:    func(r *reader, v value) { r.s.HeadersFile = r.path(v) },
		},
	},
	perSignal(Setting{
		Name: "CERTIFICATE", Unset: "the public authorities", Section: Protocol,
		Meaning: "PEM file of the authorities that may sign the endpoint's certificate",
		read:    func(r *reader, v value) { r.s.TLS.CA = r.path(v) },
	}),
	perSignal(Setting{
		Name: "CLIENT_CERTIFICATE", Section: Protocol,
		Meaning: "PEM file of the client's certificate, for mutual TLS",
		read:    func(r *reader, v value) { r.s.TLS.Certificate = r.path(v) },
	}),
	perSignal(Setting{
		Name: "CLIENT_KEY", Section: Protocol,
		Meaning: "PEM file of the key of the client's certificate",
		read:    func(r *reader, v value) { r.s.TLS.Key = r.clientKey(v) },
	}),
	perSignal(Setting{
		Name: "COMPRESSION", Default: "gzip", Section: Protocol,
		Meaning: "`gzip`, `zstd` or `none`",
		read: func(r *reader, v value) {
			r.s.Compression = oneOf(r, v, option("gzip", "gzip"), option("zstd", "zstd"), option("none", ""))
		},
	}),
	perSignal(Setting{
		Name: "TIMEOUT", Default: "10s", Section: Protocol,
		Meaning: "Time limit of one attempt to export, in ms or with its unit",
		read:    func(r *reader, v value) { r.s.Timeout = r.duration(v, time.Millisecond, time.Hour) },
	}),
	[]Setting{
		{
			Name: exporter + "METRICS_TEMPORALITY_PREFERENCE", Default: "cumulative", Section: Protocol,
			Meaning: "`cumulative`, `delta` or `lowmemory`",
			read: func(r *reader, v value) {
				r.s.Temporality = oneOf[sdkmetric.TemporalitySelector](r, v,
					option("cumulative", sdkmetric.TemporalitySelector(sdkmetric.CumulativeTemporalitySelector)),
					option("delta", sdkmetric.TemporalitySelector(sdkmetric.DeltaTemporalitySelector)),
					option("lowmemory", sdkmetric.TemporalitySelector(sdkmetric.LowMemoryTemporalitySelector)))
			},
		},
		{
			Name: "OTEL_METRIC_EXPORT_INTERVAL", Flag: "interval", Value: "DURATION", Default: "15s", Section: Content,
			Meaning: "Time between two scrapes, each of which is exported, in ms or with its unit; at least 100 ms",
			read:    func(r *reader, v value) { r.s.Interval = r.duration(v, 100*time.Millisecond, 24*time.Hour) },
		},
		{
			Name: "METRICS_INCLUDE", Flag: "metrics-include", Value: "REGEXP", Unset: "all", Section: Content,
			Meaning: "Only families whose whole name matches this RE2 expression",
			read:    func(r *reader, v value) { r.s.include = r.regexp(v) },
		},
		{
			Name: "METRICS_EXCLUDE", Flag: "metrics-exclude", Value: "REGEXP", Unset: "none", Section: Content,
			Meaning: "No families whose whole name matches this RE2 expression",
			read:    func(r *reader, v value) { r.s.exclude = r.regexp(v) },
		},
		{
			Name: "OTEL_RESOURCE_ATTRIBUTES", Unset: "`service.name=dockerd` and the host's `host.name`", Section: Content,
			Meaning: "Resource attributes: `name=value,name=value`, values percent-encoded; they win over what the engine says of itself",
			read:    func(r *reader, v value) { r.s.Resource = r.resource(v) },
		},
		{
			Name: "OTEL_SERVICE_NAME", Unset: "`dockerd`", Section: Content,
			Meaning: "`service.name` of the resource; wins over everything else",
			read:    func(r *reader, v value) { r.serviceName(v) },
		},
		{
			Name: "SCRAPE_URL", Flag: "scrape-url", Value: "URL", Default: "unix:///run/docker/metrics.sock", Section: Scraping,
			Meaning: "The Prometheus endpoint to scrape: `unix:///path` or `http://host:port/metrics`; a plugin needs the default",
			read:    func(r *reader, v value) { r.s.Scrape.URL = r.scrapeURL(v) },
		},
		{
			Name: "SCRAPE_TIMEOUT", Flag: "scrape-timeout", Value: "DURATION", Unset: "`10s`, or the interval if that is shorter", Section: Scraping,
			Meaning: "Time limit of one scrape, in ms or with its unit; at most the interval",
			read: func(r *reader, v value) { // after the interval
				v.fallback = min(scrape.DefaultTimeout, r.s.Interval).String()
				r.s.Scrape.Timeout = r.duration(v, time.Millisecond, r.s.Interval)
			},
		},
		{
			Name: "SCRAPE_MAX_BYTES", Flag: "scrape-max-bytes", Value: "SIZE", Default: "128MiB", Section: Scraping,
			Meaning: "Size limit of an exposition",
			read:    func(r *reader, v value) { r.s.Scrape.MaxBytes = r.size(v, 1) },
		},
		{
			Name: "SCRAPE_MAX_SAMPLES", Flag: "scrape-max-samples", Value: "N", Default: "1000000", Section: Scraping,
			Meaning: "How many samples an exposition may have",
			read:    func(r *reader, v value) { r.s.Scrape.MaxSamples = r.count(v) },
		},
		{
			Name: "SCRAPE_MAX_LABEL_BYTES", Flag: "scrape-max-label-bytes", Value: "SIZE", Default: "16KiB", Section: Scraping,
			Meaning: "Size limit of a label, name and value together",
			read:    func(r *reader, v value) { r.s.Scrape.MaxLabelBytes = int(r.size(v, 1)) },
		},
		{
			Name: "SPOOL_DIR", Flag: "spool-dir", Value: "PATH", Default: "/var/lib/otelmetricsplugin", Section: Process,
			Meaning: "Where metrics wait that could not be delivered yet, in the subdirectory `spool`; `none` keeps them in memory",
			read: func(r *reader, v value) {
				if v.text != "none" {
					r.s.SpoolDir = r.path(v)
				}
			},
		},
		{
			Name: "SPOOL_MAX_BYTES", Flag: "spool-max-bytes", Value: "SIZE", Default: "64MiB", Section: Process,
			Meaning: "Size limit of what waits; the oldest is dropped first, and counted",
			read:    func(r *reader, v value) { r.s.SpoolMaxBytes = r.size(v, 1<<20) },
		},
		{
			Name: "LOG_LEVEL", Flag: "log-level", Value: "LEVEL", Default: "info", Section: Process,
			Meaning: "`debug`, `info`, `warn` or `error`",
			read: func(r *reader, v value) {
				r.s.LogLevel = oneOf(r, v, option("debug", slog.LevelDebug), option("info", slog.LevelInfo),
					option("warn", slog.LevelWarn), option("error", slog.LevelError))
			},
		},
		{
			Name: "LOG_FORMAT", Flag: "log-format", Value: "FORMAT", Default: "text", Section: Process,
			Meaning: "`text` (logfmt) or `json`",
			read: func(r *reader, v value) {
				r.s.LogFormat = oneOf(r, v, option("text", logging.Text), option("json", logging.JSON))
			},
		},
		{
			Name: "PLUGIN_SOCKET", Flag: "plugin-socket", Value: "PATH", Default: "/run/docker/plugins/otelmetrics.sock", Section: Process,
			Meaning: "Where the plugin protocol is served; leave it unset in an engine, which calls only the socket that config.json names",
			read:    func(r *reader, v value) { r.s.PluginSocket = r.path(v) },
		},
	},
)
