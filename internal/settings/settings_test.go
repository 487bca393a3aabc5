package settings_test

import (
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"otelmetricsplugin/internal/logging"
	"otelmetricsplugin/internal/settings"
	"otelmetricsplugin/pkg/scrape"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// read reads settings from an environment.
func read(env map[string]string) (*settings.Settings, error) {
	return settings.Read(func(name string) string { return env[name] })
}

func TestNothingSetGivesTheDefaults(t *testing.T) {
	s, err := read(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Temporality(sdkmetric.InstrumentKindCounter); got != metricdata.CumulativeTemporality {
		t.Errorf("temporality is %v", got)
	}
	if !s.Keep("any_family") {
		t.Error("a family is not kept")
	}
	s.Temporality = nil
	want := &settings.Settings{
		Endpoint:    settings.Endpoint{Target: "dns:///localhost:4317"},
		Headers:     map[string]string{},
		Compression: "gzip",
		Timeout:     10 * time.Second,
		Interval:    15 * time.Second,
		Scrape: scrape.Config{
			URL: "unix:///run/docker/metrics.sock", Timeout: 10 * time.Second,
			MaxBytes: 128 << 20, MaxSamples: 1_000_000, MaxLabelBytes: 16 << 10,
		},
		PluginSocket:  "/run/docker/plugins/otelmetrics.sock",
		SpoolDir:      "/var/lib/otelmetricsplugin",
		SpoolMaxBytes: 64 << 20,
		LogLevel:      slog.LevelInfo,
		LogFormat:     logging.Text,
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("settings are\n%+v, want\n%+v", s, want)
	}
}

func TestEverySettingIsRead(t *testing.T) {
	s, err := read(map[string]string{
		"OTLP_ENDPOINT":                                     "https://collector:4317/",
		"OTEL_EXPORTER_OTLP_HEADERS":                        "Api-Key=a%20b, x=1",
		"OTEL_EXPORTER_OTLP_METRICS_HEADERS":                "x=2,",
		"OTEL_EXPORTER_OTLP_HEADERS_FILE":                   "/secrets/headers",
		"OTEL_EXPORTER_OTLP_CERTIFICATE":                    "/ca-all.pem",
		"OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE":            "/ca.pem",
		"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE":             "/client.pem",
		"OTEL_EXPORTER_OTLP_CLIENT_KEY":                     "/client.key",
		"OTEL_EXPORTER_OTLP_COMPRESSION":                    "none",
		"OTEL_EXPORTER_OTLP_TIMEOUT":                        "2500",
		"OTEL_METRIC_EXPORT_INTERVAL":                       "2s",
		"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "LowMemory",
		"OTEL_RESOURCE_ATTRIBUTES":                          "deployment.environment.name=a%2Cb,service.name=lost",
		"OTEL_SERVICE_NAME":                                 "won",
		"METRICS_INCLUDE":                                   "engine_.*|etcd_.*",
		"METRICS_EXCLUDE":                                   "etcd_debugging.*",
		"SCRAPE_URL":                                        "http://localhost:9323/metrics",
		"SCRAPE_MAX_BYTES":                                  "1MiB",
		"SCRAPE_MAX_SAMPLES":                                "7",
		"SCRAPE_MAX_LABEL_BYTES":                            "99",
		"PLUGIN_SOCKET":                                     "/p.sock",
		"SPOOL_DIR":                                         "none",
		"SPOOL_MAX_BYTES":                                   "1GiB",
		"LOG_LEVEL":                                         "DEBUG",
		"LOG_FORMAT":                                        "json",
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[sdkmetric.InstrumentKind]metricdata.Temporality{
		sdkmetric.InstrumentKindCounter:           metricdata.DeltaTemporality,
		sdkmetric.InstrumentKindObservableCounter: metricdata.CumulativeTemporality,
	} {
		if got := s.Temporality(kind); got != want {
			t.Errorf("temporality of %v is %v", kind, got)
		}
	}
	for family, want := range map[string]bool{
		"engine_x": true, "etcd_y": true, "etcd_debugging_z": false, "my_engine_x": false, "go_threads": false,
	} {
		if got := s.Keep(family); got != want {
			t.Errorf("Keep(%q) is %v", family, got)
		}
	}
	want := &settings.Settings{
		Endpoint:    settings.Endpoint{Target: "dns:///collector:4317", TLS: true},
		Headers:     map[string]string{"api-key": "a b", "x": "2"},
		HeadersFile: "/secrets/headers",
		TLS:         settings.TLSFiles{CA: "/ca.pem", Certificate: "/client.pem", Key: "/client.key"},
		Timeout:     2500 * time.Millisecond,
		Interval:    2 * time.Second,
		Resource: []attribute.KeyValue{
			attribute.String("deployment.environment.name", "a,b"), attribute.String("service.name", "lost"), attribute.String("service.name", "won"),
		},
		Scrape: scrape.Config{
			URL: "http://localhost:9323/metrics", Timeout: 2 * time.Second, // no longer than the interval
			MaxBytes: 1 << 20, MaxSamples: 7, MaxLabelBytes: 99,
		},
		PluginSocket:  "/p.sock",
		SpoolMaxBytes: 1 << 30,
		LogLevel:      slog.LevelDebug,
		LogFormat:     logging.JSON,
	}
	got := *s
	got.Temporality = nil
	scrub(&got)
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("settings are\n%+v, want\n%+v", &got, want)
	}
}

// scrub removes what cannot be compared and is tested through Keep.
func scrub(s *settings.Settings) {
	*s = settings.Settings{
		Endpoint: s.Endpoint, Headers: s.Headers, HeadersFile: s.HeadersFile, TLS: s.TLS, Compression: s.Compression, Timeout: s.Timeout,
		Interval: s.Interval, Resource: s.Resource, Scrape: s.Scrape, PluginSocket: s.PluginSocket, SpoolDir: s.SpoolDir,
		SpoolMaxBytes: s.SpoolMaxBytes, LogLevel: s.LogLevel, LogFormat: s.LogFormat,
	}
}

func TestEndpoints(t *testing.T) {
	plain := func(target string) settings.Endpoint { return settings.Endpoint{Target: target} }
	tls := func(target string) settings.Endpoint { return settings.Endpoint{Target: target, TLS: true} }
	const insecure = "OTEL_EXPORTER_OTLP_INSECURE"
	for _, test := range []struct {
		env  map[string]string
		want settings.Endpoint
	}{
		{map[string]string{"OTLP_ENDPOINT": "http://127.0.0.1:4317"}, plain("dns:///127.0.0.1:4317")},
		{map[string]string{"OTLP_ENDPOINT": "http://[::1]:4317"}, plain("dns:///[::1]:4317")},
		{map[string]string{"OTLP_ENDPOINT": "https://c:443"}, tls("dns:///c:443")},
		{map[string]string{"OTLP_ENDPOINT": "https://c:443", insecure: "true"}, tls("dns:///c:443")},
		{map[string]string{"OTLP_ENDPOINT": "127.0.0.1:4317"}, tls("dns:///127.0.0.1:4317")},
		{map[string]string{"OTLP_ENDPOINT": "c:4317", insecure: "true"}, plain("dns:///c:4317")},
		{map[string]string{"OTLP_ENDPOINT": "c:4317", insecure: "false"}, tls("dns:///c:4317")},
		{map[string]string{"OTLP_ENDPOINT": "dns:///c:4317"}, tls("dns:///c:4317")},
		{map[string]string{"OTLP_ENDPOINT": "dns:///c:4317", "OTEL_EXPORTER_OTLP_METRICS_INSECURE": "true"}, plain("dns:///c:4317")},
		{map[string]string{"OTLP_ENDPOINT": "unix:///run/otel.sock"}, plain("unix:///run/otel.sock")},
		{map[string]string{"OTLP_ENDPOINT": "unix:///run/a%25b.sock"}, plain("unix:///run/a%25b.sock")},
		{map[string]string{"OTLP_ENDPOINT": "http://[fe80::1%25eth0]:4317"}, plain("dns:///[fe80::1%25eth0]:4317")},
		{map[string]string{"OTLP_ENDPOINT": "[fe80::1%eth0]:4317"}, tls("dns:///[fe80::1%25eth0]:4317")},
		{map[string]string{"OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://b:1"}, plain("dns:///a:1")},
		{map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://b:1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}, plain("dns:///b:1")},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}, plain("dns:///c:1")},
	} {
		s, err := read(test.env)
		if err != nil {
			t.Errorf("%v: %v", test.env, err)
		} else if s.Endpoint != test.want {
			t.Errorf("%v: the endpoint is %+v, want %+v", test.env, s.Endpoint, test.want)
		}
	}
}

const wantEndpoint = "; want http://host:port (plaintext), https://host:port (TLS), unix:///path, dns:///host:port or host:port (TLS)"

func TestEachBadSettingIsNamedWithWhatIsAccepted(t *testing.T) {
	for _, test := range []struct{ name, value, want string }{
		{"OTLP_ENDPOINT", "ftp://c:1", `OTLP_ENDPOINT="ftp://c:1": unknown scheme "ftp"` + wantEndpoint},
		{"OTLP_ENDPOINT", "grpc://c:4317", `OTLP_ENDPOINT="grpc://c:4317": unknown scheme "grpc"` + wantEndpoint},
		{"OTLP_ENDPOINT", "collector", `OTLP_ENDPOINT="collector": missing port in address` + wantEndpoint},
		{"OTLP_ENDPOINT", "http://collector", `OTLP_ENDPOINT="http://collector": missing port in address` + wantEndpoint},
		{"OTLP_ENDPOINT", "http://:4317", `OTLP_ENDPOINT="http://:4317": no host` + wantEndpoint},
		{"OTLP_ENDPOINT", "c:otlp", `OTLP_ENDPOINT="c:otlp": port "otlp" is not a number from 1 to 65535` + wantEndpoint},
		{"OTLP_ENDPOINT", "http://c:0", `OTLP_ENDPOINT="http://c:0": port "0" is not a number from 1 to 65535` + wantEndpoint},
		{"OTLP_ENDPOINT", "http://c:4318/v1/metrics", `OTLP_ENDPOINT="http://c:4318/v1/metrics": the path "/v1/metrics" belongs to OTLP over HTTP; this is OTLP over gRPC, which has none` + wantEndpoint},
		{"OTLP_ENDPOINT", "https://c:1?a=b", `OTLP_ENDPOINT: a gRPC endpoint has no query` + wantEndpoint},
		{"OTLP_ENDPOINT", "unix://otel.sock", `OTLP_ENDPOINT="unix://otel.sock": no absolute path after unix://` + wantEndpoint},
		{"OTLP_ENDPOINT", "dns://8.8.8.8/c:1", `OTLP_ENDPOINT="dns://8.8.8.8/c:1": a host between dns:// and the path names a DNS server, which is not supported` + wantEndpoint},
		{"OTLP_ENDPOINT", "https://me:secret@c:1", `OTLP_ENDPOINT: the endpoint contains a user name; put credentials in OTEL_EXPORTER_OTLP_HEADERS_FILE`},
		{"OTLP_ENDPOINT", "me:secret@c:1", `OTLP_ENDPOINT: the endpoint contains a user name; put credentials in OTEL_EXPORTER_OTLP_HEADERS_FILE`},
		{"OTLP_ENDPOINT", "https://c:1?token=secret", `OTLP_ENDPOINT: a gRPC endpoint has no query` + wantEndpoint},
		{"OTLP_ENDPOINT", "https://c:1#x", `OTLP_ENDPOINT="https://c:1#x": a gRPC endpoint has no fragment` + wantEndpoint},
		{"OTLP_ENDPOINT", "https://c:1x", `OTLP_ENDPOINT: not a URL` + wantEndpoint},
		{"OTLP_ENDPOINT", strings.Repeat("x", 300), `OTLP_ENDPOINT="` + strings.Repeat("x", 200) + `"...: missing port in address` + wantEndpoint},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "x", `OTEL_EXPORTER_OTLP_ENDPOINT="x": missing port in address` + wantEndpoint},
		{"OTEL_EXPORTER_OTLP_INSECURE", "yes", `OTEL_EXPORTER_OTLP_INSECURE="yes": want true or false`},
		{"OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret,secret", `OTEL_EXPORTER_OTLP_HEADERS: item 2 is not name=value with a percent-encoded value; want name=value,name=value`},
		{"OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=%zzsecret", `OTEL_EXPORTER_OTLP_METRICS_HEADERS: item 1 is not name=value with a percent-encoded value; want name=value,name=value`},
		{"OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", `OTEL_EXPORTER_OTLP_HEADERS: invalid header name before '='`},
		{"OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer secret==", `OTEL_EXPORTER_OTLP_HEADERS: invalid header name before '='`},
		{"OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0A", `OTEL_EXPORTER_OTLP_HEADERS: the value of header "a" has a character that is not printable ASCII`},
		{"OTEL_EXPORTER_OTLP_HEADERS_FILE", "headers", `OTEL_EXPORTER_OTLP_HEADERS_FILE="headers": want an absolute path`},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem", `OTEL_EXPORTER_OTLP_CERTIFICATE="ca.pem": want an absolute path`},
		{"OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: a client's certificate and its key (OTEL_EXPORTER_OTLP_CLIENT_KEY) go together; set both or none`},
		{"OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", `OTEL_EXPORTER_OTLP_COMPRESSION="brotli": want gzip, zstd or none`},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "0", `OTEL_EXPORTER_OTLP_TIMEOUT="0": want milliseconds, as 15000, or a duration, as 15s, from 1ms to 1h0m0s`},
		{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "x", `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="x": want cumulative, delta or lowmemory`},
		{"OTEL_METRIC_EXPORT_INTERVAL", "soon", `OTEL_METRIC_EXPORT_INTERVAL="soon": want milliseconds, as 15000, or a duration, as 15s, from 100ms to 24h0m0s`},
		{"OTEL_METRIC_EXPORT_INTERVAL", "-5", `OTEL_METRIC_EXPORT_INTERVAL="-5": want milliseconds, as 15000, or a duration, as 15s, from 100ms to 24h0m0s`},
		{"OTEL_RESOURCE_ATTRIBUTES", "team", `OTEL_RESOURCE_ATTRIBUTES: item 1 is not name=value with a percent-encoded value; want name=value,name=value`},
		{"METRICS_INCLUDE", "a(", "METRICS_INCLUDE=\"a(\": want an RE2 expression: missing closing )"},
		{"METRICS_EXCLUDE", "a)(b", "METRICS_EXCLUDE=\"a)(b\": want an RE2 expression: unexpected )"},
		{"METRICS_EXCLUDE", `\Qa`, "METRICS_EXCLUDE=\"\\\\Qa\": want an RE2 expression that can be anchored: missing closing )"},
		{"METRICS_INCLUDE", "(\nlevel=INFO", `METRICS_INCLUDE="(\nlevel=INFO": want an RE2 expression: missing closing )`},
		{"OTEL_RESOURCE_ATTRIBUTES", "a=%ff", `OTEL_RESOURCE_ATTRIBUTES: item 1 is not UTF-8`},
		{"OTEL_SERVICE_NAME", "\xff", `OTEL_SERVICE_NAME="\xff": want UTF-8`},
		{"SCRAPE_URL", "me:secret@host:9090/m", `SCRAPE_URL="(not a URL)": want unix:///path/of/socket or http://host:port/metrics`},
		{"SCRAPE_URL", "http://me:secret@", `SCRAPE_URL="http://xxxxx@": want unix:///path/of/socket or http://host:port/metrics`},
		{"SCRAPE_TIMEOUT", "1d", `SCRAPE_TIMEOUT="1d": want milliseconds, as 15000, or a duration, as 15s, from 1ms to 15s`},
		{"SCRAPE_TIMEOUT", "16s", `SCRAPE_TIMEOUT="16s": want milliseconds, as 15000, or a duration, as 15s, from 1ms to 15s`}, // the interval
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", `OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf": want grpc, the only supported protocol`},
		{"OTEL_EXPORTER_OTLP_HEADERS", "User-Agent=secret", `OTEL_EXPORTER_OTLP_HEADERS: the header "User-Agent" is reserved for gRPC`},
		{"SCRAPE_MAX_BYTES", "big", `SCRAPE_MAX_BYTES="big": want a size of at least 1B, as 64MiB`},
		{"SCRAPE_MAX_SAMPLES", "0", `SCRAPE_MAX_SAMPLES="0": want a number of at least 1`},
		{"PLUGIN_SOCKET", "p.sock", `PLUGIN_SOCKET="p.sock": want an absolute path`},
		{"SPOOL_DIR", "spool", `SPOOL_DIR="spool": want an absolute path`},
		{"SPOOL_MAX_BYTES", "1KiB", `SPOOL_MAX_BYTES="1KiB": want a size of at least 1MiB, as 64MiB`},
		{"LOG_LEVEL", "trace", `LOG_LEVEL="trace": want debug, info, warn or error`},
		{"LOG_FORMAT", "xml", `LOG_FORMAT="xml": want text or json`},
	} {
		_, err := read(map[string]string{test.name: test.value})
		if err == nil || err.Error() != "bad settings: "+test.want {
			t.Errorf("%s=%s: the error is\n%v, want\nbad settings: %s", test.name, test.value, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: a secret is shown: %v", test.name, err)
		}
	}
}

func TestOneMessageNamesEveryBadSetting(t *testing.T) {
	_, err := read(map[string]string{"LOG_LEVEL": "loud", "OTLP_ENDPOINT": "c", "OTEL_METRIC_EXPORT_INTERVAL": "1"})
	want := `bad settings: OTLP_ENDPOINT="c": missing port in address` + wantEndpoint +
		`; OTEL_METRIC_EXPORT_INTERVAL="1": want milliseconds, as 15000, or a duration, as 15s, from 100ms to 24h0m0s` +
		`; LOG_LEVEL="loud": want debug, info, warn or error`
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v, want\n%s", err, want)
	}
}

func TestUnused(t *testing.T) {
	got := settings.Unused([]string{
		"OTEL_SDK_DISABLED=true", "OTEL_EXPORTER_OTLP_ENDPOINT=x", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_BSP_TIMEOUT=",
		"PATH=/bin", "OTEL_METRIC_EXPORT_TIMEOUT=1",
	})
	if want := []string{"OTEL_METRIC_EXPORT_TIMEOUT", "OTEL_SDK_DISABLED"}; !slices.Equal(got, want) {
		t.Errorf("unused are %v, want %v", got, want)
	}
}
