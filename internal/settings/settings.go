// Package settings reads and judges every setting.
//
// In come the values of flags and environment variables as they were given; out
// come typed settings, or one error that names every bad value, what was given
// and what is accepted. Nothing is opened, looked up or started: what can heal
// by itself, such as a file that is not there yet, is no bad setting.
package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"golang.org/x/net/http/httpguts"

	"otelmetricsplugin/internal/logging"
	"otelmetricsplugin/pkg/scrape"
)

// Defaults. They live here and not in config.json: an upgrade of a plugin keeps
// its environment as it was, without the variables that are new.
const (
	DefaultEndpoint      = "http://localhost:4317"
	DefaultInterval      = 15 * time.Second
	DefaultTimeout       = 10 * time.Second
	DefaultScrapeURL     = "unix:///run/docker/metrics.sock"
	DefaultPluginSocket  = "/run/docker/plugins/otelmetrics.sock"
	DefaultSpoolDir      = "/var/lib/otelmetricsplugin"
	DefaultSpoolMaxBytes = 64 << 20
)

// Values are the settings that are both a flag and an environment variable, as
// given. Empty is unset.
type Values struct {
	Endpoint    string `name:"otlp-endpoint" env:"OTLP_ENDPOINT" placeholder:"URL" help:"Where to export: http://host:port, https://host:port, unix:///path, dns:///host:port or host:port (TLS). Default: OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4317."`
	HeadersFile string `name:"otlp-headers-file" env:"OTEL_EXPORTER_OTLP_HEADERS_FILE" placeholder:"PATH" help:"File of headers for each export, one name=value a line."`
	Interval    string `name:"interval" env:"OTEL_METRIC_EXPORT_INTERVAL" placeholder:"DURATION" help:"Time between two scrapes, each exported: 15000 (ms) or 15s. Default 15s."`
	Include     string `name:"metrics-include" env:"METRICS_INCLUDE" placeholder:"REGEXP" help:"Families to export, by name; RE2, anchored. Default all."`
	Exclude     string `name:"metrics-exclude" env:"METRICS_EXCLUDE" placeholder:"REGEXP" help:"Families not to export, by name; RE2, anchored. Default none."`

	ScrapeURL           string `name:"scrape-url" env:"SCRAPE_URL" placeholder:"URL" help:"Page to scrape: unix:///path/of/socket or http://host:port/metrics. Default unix:///run/docker/metrics.sock."`
	ScrapeTimeout       string `name:"scrape-timeout" env:"SCRAPE_TIMEOUT" placeholder:"DURATION" help:"Bound of one scrape: 10000 (ms) or 10s. Default 10s, the interval where that is shorter."`
	ScrapeMaxBytes      string `name:"scrape-max-bytes" env:"SCRAPE_MAX_BYTES" placeholder:"SIZE" help:"Bound of a page in bytes. Default 128MiB."`
	ScrapeMaxSamples    string `name:"scrape-max-samples" env:"SCRAPE_MAX_SAMPLES" placeholder:"N" help:"Bound of a page in samples. Default 1000000."`
	ScrapeMaxLabelBytes string `name:"scrape-max-label-bytes" env:"SCRAPE_MAX_LABEL_BYTES" placeholder:"SIZE" help:"Bound of one label, name and value. Default 16KiB."`

	PluginSocket  string `name:"plugin-socket" env:"PLUGIN_SOCKET" placeholder:"PATH" help:"Where the plugin protocol is served. Default /run/docker/plugins/otelmetrics.sock."`
	SpoolDir      string `name:"spool-dir" env:"SPOOL_DIR" placeholder:"PATH" help:"Where to keep what could not be delivered yet; none keeps it in memory. Default /var/lib/otelmetricsplugin."`
	SpoolMaxBytes string `name:"spool-max-bytes" env:"SPOOL_MAX_BYTES" placeholder:"SIZE" help:"Bound of the spool, oldest dropped first. Default 64MiB."`

	LogLevel  string `name:"log-level" env:"LOG_LEVEL" placeholder:"LEVEL" help:"debug, info, warn or error. Default info."`
	LogFormat string `name:"log-format" env:"LOG_FORMAT" placeholder:"FORMAT" help:"text or json. Default text."`
}

// standard are the variables of the OpenTelemetry specification that have no
// flag. Those of the exporter exist for all signals and for metrics; the
// latter win.
var standard = []string{
	"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
	"OTEL_EXPORTER_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_METRICS_INSECURE",
	"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
	"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
	"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
	"OTEL_EXPORTER_OTLP_CLIENT_KEY", "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
	"OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
	"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
	"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
	"OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME",
}

// Variables returns the name of every environment variable that is a setting.
func Variables() []string {
	names := append([]string(nil), standard...)
	for field := range reflect.TypeFor[Values]().Fields() {
		names = append(names, field.Tag.Get("env"))
	}
	return names
}

// Unused returns the names of the variables of OpenTelemetry in environ, as
// os.Environ has it, that are set and are no settings: whoever set one expects
// something of it.
func Unused(environ []string) (names []string) {
	known := append(Variables(), protocols...)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "OTEL_") && value != "" && !slices.Contains(known, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// protocols are judged and have one value.
var protocols = []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"}

// Settings are the judged settings.
type Settings struct {
	Endpoint    Endpoint
	Headers     map[string]string // names in lower case
	HeadersFile string            // "" for none
	TLS         TLSFiles
	Gzip        bool
	Timeout     time.Duration // of one attempt to export
	Temporality sdkmetric.TemporalitySelector
	Interval    time.Duration
	// Resource holds what the user says of the resource; it wins over what
	// the engine says.
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

// Read judges the values together with the standard variables, which it looks
// up with getenv. The error names every bad one.
func Read(values Values, getenv func(string) string) (*Settings, error) {
	r := reader{getenv: getenv}
	s := &Settings{
		Endpoint:    r.endpoint(values.Endpoint),
		Headers:     r.headers(),
		HeadersFile: r.path("OTEL_EXPORTER_OTLP_HEADERS_FILE", values.HeadersFile, ""),
		TLS:         r.tls(),
		Gzip:        oneOf(&r, r.exporter("COMPRESSION"), true, option("gzip", true), option("none", false)),
		Timeout:     r.duration(r.exporter("TIMEOUT"), DefaultTimeout, time.Millisecond, time.Hour),
		Temporality: oneOf(&r, setting{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", getenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")},
			sdkmetric.TemporalitySelector(sdkmetric.CumulativeTemporalitySelector),
			option("cumulative", sdkmetric.TemporalitySelector(sdkmetric.CumulativeTemporalitySelector)),
			option("delta", sdkmetric.TemporalitySelector(sdkmetric.DeltaTemporalitySelector)),
			option("lowmemory", sdkmetric.TemporalitySelector(sdkmetric.LowMemoryTemporalitySelector))),
		Interval:      r.duration(setting{"OTEL_METRIC_EXPORT_INTERVAL", values.Interval}, DefaultInterval, 100*time.Millisecond, 24*time.Hour),
		Resource:      r.resource(),
		include:       r.regexp(setting{"METRICS_INCLUDE", values.Include}),
		exclude:       r.regexp(setting{"METRICS_EXCLUDE", values.Exclude}),
		PluginSocket:  r.path("PLUGIN_SOCKET", values.PluginSocket, DefaultPluginSocket),
		SpoolMaxBytes: r.size(setting{"SPOOL_MAX_BYTES", values.SpoolMaxBytes}, DefaultSpoolMaxBytes, 1<<20),
		LogLevel: oneOf(&r, setting{"LOG_LEVEL", values.LogLevel}, slog.LevelInfo,
			option("debug", slog.LevelDebug), option("info", slog.LevelInfo), option("warn", slog.LevelWarn), option("error", slog.LevelError)),
		LogFormat: oneOf(&r, setting{"LOG_FORMAT", values.LogFormat}, logging.Text,
			option("text", logging.Text), option("json", logging.JSON)),
	}
	if p := r.exporter("PROTOCOL"); p.value != "" && p.value != "grpc" {
		r.bad(p, "want grpc, the one protocol that is spoken here")
	}
	if values.SpoolDir != "none" {
		s.SpoolDir = r.path("SPOOL_DIR", values.SpoolDir, DefaultSpoolDir)
	}
	s.Scrape = scrape.Config{
		URL: r.scrapeURL(values.ScrapeURL),
		Timeout: r.duration(setting{"SCRAPE_TIMEOUT", values.ScrapeTimeout},
			min(scrape.DefaultTimeout, s.Interval), time.Millisecond, s.Interval),
		MaxBytes:      r.size(setting{"SCRAPE_MAX_BYTES", values.ScrapeMaxBytes}, scrape.DefaultMaxBytes, 1),
		MaxSamples:    r.count(setting{"SCRAPE_MAX_SAMPLES", values.ScrapeMaxSamples}, scrape.DefaultMaxSamples),
		MaxLabelBytes: int(r.size(setting{"SCRAPE_MAX_LABEL_BYTES", values.ScrapeMaxLabelBytes}, scrape.DefaultMaxLabelBytes, 1)),
	}
	if len(r.problems) > 0 {
		return nil, &Error{Problems: r.problems}
	}
	return s, nil
}

// Error says which settings are bad.
type Error struct {
	// Problems holds one text per bad setting: its name, what was given (no
	// secret), why it is bad, what is accepted.
	Problems []string
}

func (e *Error) Error() string { return "bad settings: " + strings.Join(e.Problems, "; ") }

// setting is a value and the name of the variable that it is known by.
type setting struct{ name, value string }

// reader collects what is wrong with the settings that it reads.
type reader struct {
	getenv   func(string) string
	problems []string
}

// bad notes that a setting is bad; it shows the value, quoted and cut short.
func (r *reader) bad(s setting, format string, args ...any) {
	shown := strconv.Quote(s.value)
	if len(s.value) > maxShown {
		shown = strconv.Quote(s.value[:maxShown]) + "..."
	}
	r.problems = append(r.problems, fmt.Sprintf("%s=%s: %s", s.name, shown, fmt.Sprintf(format, args...)))
}

// maxShown bounds what is shown of a value.
const maxShown = 200

// badSecret notes that a setting is bad, and does not show the value.
func (r *reader) badSecret(name, format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf("%s: %s", name, fmt.Sprintf(format, args...)))
}

// exporter returns the standard setting of the OTLP exporter of that name, for
// metrics or for every signal.
func (r *reader) exporter(name string) setting {
	metrics := "OTEL_EXPORTER_OTLP_METRICS_" + name
	if v := r.getenv(metrics); v != "" {
		return setting{metrics, v}
	}
	all := "OTEL_EXPORTER_OTLP_" + name
	return setting{all, r.getenv(all)}
}

const wantEndpoint = "want http://host:port (plaintext), https://host:port (TLS), unix:///path, dns:///host:port or host:port (TLS)"

func (r *reader) endpoint(value string) Endpoint {
	s := setting{"OTLP_ENDPOINT", value}
	if s.value == "" {
		s = r.exporter("ENDPOINT")
	}
	if s.value == "" {
		s.value = DefaultEndpoint
	}
	insecure := oneOf(r, r.exporter("INSECURE"), false, option("true", true), option("false", false))

	if strings.Contains(s.value, "@") {
		// Nothing of it is shown: what stands there is a password.
		r.badSecret(s.name, "the endpoint holds a user name; credentials belong in OTEL_EXPORTER_OTLP_HEADERS_FILE")
		return Endpoint{}
	}
	if strings.Contains(s.value, "?") {
		r.badSecret(s.name, "a gRPC endpoint has no query; %s", wantEndpoint)
		return Endpoint{}
	}
	if !strings.Contains(s.value, "://") {
		if why := hostPort(s.value); why != "" {
			r.bad(s, "%s; %s", why, wantEndpoint)
		}
		return Endpoint{Target: "dns:///" + s.value, TLS: !insecure}
	}
	u, err := url.Parse(s.value)
	if err != nil {
		// The value may hold a password where nobody expects one.
		r.badSecret(s.name, "not a URL; %s", wantEndpoint)
		return Endpoint{}
	}
	why := ""
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix" && u.Scheme != "dns":
		why = fmt.Sprintf("unknown scheme %q", u.Scheme)
	case u.Fragment != "":
		why = "a gRPC endpoint has no fragment"
	case u.Scheme == "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/" {
			why = "no absolute path after unix://"
		}
		return r.judged(s, why, Endpoint{Target: "unix://" + u.Path})
	case u.Scheme == "dns":
		if u.Host != "" {
			why = "a host between dns:// and the path names a DNS server, which is not supported"
		} else {
			why = hostPort(strings.TrimPrefix(u.Path, "/"))
		}
		return r.judged(s, why, Endpoint{Target: "dns://" + u.Path, TLS: !insecure})
	case u.Path != "" && u.Path != "/":
		why = fmt.Sprintf("the path %q belongs to OTLP over HTTP; this is OTLP over gRPC, which has none", u.Path)
	default:
		why = hostPort(u.Host)
	}
	return r.judged(s, why, Endpoint{Target: "dns:///" + u.Host, TLS: u.Scheme == "https"})
}

func (r *reader) judged(s setting, why string, e Endpoint) Endpoint {
	if why != "" {
		r.bad(s, "%s; %s", why, wantEndpoint)
	}
	return e
}

// hostPort says what is wrong with a host:port, "" for nothing.
func hostPort(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		var addrErr *net.AddrError
		if errors.As(err, &addrErr) {
			return addrErr.Err
		}
		return err.Error()
	}
	if host == "" {
		return "no host"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Sprintf("the port %q is no number from 1 to 65535", port)
	}
	return ""
}

// headers reads the headers of both standard variables, those for metrics win.
func (r *reader) headers() map[string]string {
	headers := map[string]string{}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"} {
		for _, p := range r.pairs(name) {
			header, err := Header(p.name, p.value)
			if err != nil {
				r.badSecret(name, "%v", err)
			}
			headers[header] = p.value
		}
	}
	return headers
}

// Header returns the name of a header as gRPC wants it, in lower case, or an
// error that does not show the value.
func Header(name, value string) (string, error) {
	lower := strings.ToLower(name)
	switch {
	case !httpguts.ValidHeaderFieldName(lower):
		// Not quoted: "authorization: Bearer SECRET=" has the secret in it.
		return "", errors.New("what stands before the = is no name of a header")
	case strings.HasPrefix(lower, "grpc-"), lower == "content-type", lower == "user-agent", lower == "te":
		return "", fmt.Errorf("the header %q is gRPC's own", name)
	}
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' {
			return "", fmt.Errorf("the value of header %q has a character that is not printable ASCII", name)
		}
	}
	return lower, nil
}

func (r *reader) resource() []attribute.KeyValue {
	var attrs []attribute.KeyValue
	for i, p := range r.pairs("OTEL_RESOURCE_ATTRIBUTES") {
		if !utf8.ValidString(p.name) || !utf8.ValidString(p.value) {
			r.badSecret("OTEL_RESOURCE_ATTRIBUTES", "item %d is not UTF-8", i+1)
			continue
		}
		attrs = append(attrs, attribute.String(p.name, p.value))
	}
	if name := r.getenv("OTEL_SERVICE_NAME"); name != "" {
		if !utf8.ValidString(name) {
			r.bad(setting{"OTEL_SERVICE_NAME", name}, "want UTF-8")
		}
		attrs = append(attrs, attribute.String("service.name", name))
	}
	return attrs
}

type pair struct{ name, value string }

// pairs reads name=value,name=value with values percent-encoded, the form that
// the specification has for headers and resource attributes.
func (r *reader) pairs(variable string) (pairs []pair) {
	value := r.getenv(variable)
	if value == "" {
		return nil
	}
	for i, item := range strings.Split(value, ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		name, encoded, found := strings.Cut(item, "=")
		name = strings.TrimSpace(name)
		decoded, err := url.PathUnescape(strings.TrimSpace(encoded))
		if !found || name == "" || err != nil {
			r.badSecret(variable, "item %d is no name=value with the value percent-encoded; want name=value,name=value", i+1)
			continue
		}
		pairs = append(pairs, pair{name, decoded})
	}
	return pairs
}

func (r *reader) tls() TLSFiles {
	path := func(name string) (string, string) {
		s := r.exporter(name)
		return s.name, r.path(s.name, s.value, "")
	}
	_, ca := path("CERTIFICATE")
	certName, cert := path("CLIENT_CERTIFICATE")
	keyName, key := path("CLIENT_KEY")
	if (cert == "") != (key == "") {
		r.badSecret(certName, "a client's certificate and its key (%s) go together; set both or none", keyName)
	}
	return TLSFiles{CA: ca, Certificate: cert, Key: key}
}

func (r *reader) path(name, value, fallback string) string {
	if value == "" {
		return fallback
	}
	if !filepath.IsAbs(value) {
		r.bad(setting{name, value}, "want an absolute path")
	}
	return filepath.Clean(value)
}

func (r *reader) scrapeURL(value string) string {
	if value == "" {
		return DefaultScrapeURL
	}
	if _, err := scrape.ParseURL(value); err != nil {
		r.bad(setting{"SCRAPE_URL", scrape.Redact(value)}, "%v", err)
	}
	return value
}

// duration reads milliseconds, as the specification has them, or a duration
// with its unit.
func (r *reader) duration(s setting, fallback, least, most time.Duration) time.Duration {
	if s.value == "" {
		return fallback
	}
	d, err := time.ParseDuration(s.value)
	if ms, errInt := strconv.ParseInt(s.value, 10, 32); errInt == nil {
		d, err = time.Duration(ms)*time.Millisecond, nil
	}
	if err != nil || d < least || d > most {
		r.bad(s, "want milliseconds, as 15000, or a duration, as 15s, from %v to %v", least, most)
		return fallback
	}
	return d
}

func (r *reader) size(s setting, fallback, least int64) int64 {
	if s.value == "" {
		return fallback
	}
	n, err := units.RAMInBytes(s.value)
	if err != nil || n < least {
		r.bad(s, "want a size of at least %s, as 64MiB", units.BytesSize(float64(least)))
		return fallback
	}
	return n
}

func (r *reader) count(s setting, fallback int) int {
	if s.value == "" {
		return fallback
	}
	n, err := strconv.Atoi(s.value)
	if err != nil || n < 1 {
		r.bad(s, "want a number of at least 1")
		return fallback
	}
	return n
}

func (r *reader) regexp(s setting) *regexp.Regexp {
	if s.value == "" {
		return nil
	}
	_, err := regexp.Compile(s.value) // first by itself: "a)(b" would compile between the anchors
	if err != nil {
		r.bad(s, "want an RE2 expression: %s", regexpFault(err))
		return nil
	}
	anchored, err := regexp.Compile("^(?:" + s.value + ")$")
	if err != nil {
		r.bad(s, "want an RE2 expression that can be anchored: %s", regexpFault(err))
		return nil
	}
	return anchored
}

// regexpFault says what is wrong with an expression without showing it: the
// error of regexp holds it as it is, line breaks included.
func regexpFault(err error) string {
	var fault *syntax.Error
	if errors.As(err, &fault) {
		return string(fault.Code)
	}
	return "it does not compile"
}

type choice[T any] struct {
	name  string
	value T
}

func option[T any](name string, value T) choice[T] { return choice[T]{name, value} }

// oneOf reads a setting that is one of a few words, in any case.
func oneOf[T any](r *reader, s setting, fallback T, options ...choice[T]) T {
	if s.value == "" {
		return fallback
	}
	var names []string
	for _, o := range options {
		if strings.EqualFold(s.value, o.name) {
			return o.value
		}
		names = append(names, o.name)
	}
	last := len(names) - 1
	r.bad(s, "want %s or %s", strings.Join(names[:last], ", "), names[last])
	return fallback
}
