// Package export makes the connection to the Collector and the exporter that
// writes OTLP requests for it.
//
// In come judged settings; out come a gRPC connection, with its TLS, headers
// and compression, and an otlpmetricgrpc exporter whose requests are handed to
// whoever is to send them. Nothing here fails because the Collector is away or
// a file is not there yet: both are found out, and heal, at each attempt.
package export

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"otelmetricsplugin/internal/settings"
	"otelmetricsplugin/pkg/translate"
)

// Conn is a connection to the Collector.
type Conn struct {
	*grpc.ClientConn
	headers *headers
}

// Redact returns the text without the secrets that the last request carried: a
// server that quotes a token it does not like must not put it into a log. It is
// for what people read. What is done about an answer hangs on words that a
// header may have too.
func (c *Conn) Redact(text string) string { return c.headers.redact(text) }

// Dial returns a connection to the endpoint of s. It connects at the first
// request and again, with jitter, whenever it was lost. The caller closes it.
func Dial(s *settings.Settings, userAgent string) (*Conn, error) {
	creds := insecure.NewCredentials()
	if s.Endpoint.TLS {
		creds = newTLS(s.TLS)
	}
	secrets := &headers{fixed: s.Headers, file: s.HeadersFile}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithPerRPCCredentials(secrets),
		grpc.WithUserAgent(userAgent),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 15 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// A peer that vanished without a word is found out within a minute;
		// no more often than servers allow a client without streams.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute, Timeout: 20 * time.Second}),
		grpc.WithDisableServiceConfig(), // no DNS TXT record configures this client
	}
	if s.Compression == "gzip" {
		options = append(options, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	}
	conn, err := grpc.NewClient(s.Endpoint.Target, options...)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", s.Endpoint.Target, err)
	}
	return &Conn{conn, secrets}, nil
}

// Send takes a request, which is not used again.
type Send func(ctx context.Context, req *colmetricpb.ExportMetricsServiceRequest) error

// New returns an otlpmetricgrpc exporter that gives each request, finished by
// the translation, to send, once and whatever its size. It never opens a
// connection of its own: timeouts, repetitions and limits of size are those of
// whoever sends. What was collected reaches send also when the ctx of Export has
// ended meanwhile.
func New(ctx context.Context, send Send, temporality sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
	// The exporter accepts a connection, not a client; its requests are taken
	// off before they reach the connection, which is never dialled.
	conn, err := grpc.NewClient("passthrough:///taken-off",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
			request, ok := req.(*colmetricpb.ExportMetricsServiceRequest)
			if !ok {
				return status.Errorf(codes.Internal, "%s with a %T is no export of metrics", method, req)
			}
			translate.Finish(ctx, request)
			return send(ctx, request)
		}))
	if err != nil {
		return nil, err
	}
	exporter, err := otlpmetricgrpc.New(ctx,
		otlpmetricgrpc.WithGRPCConn(conn),
		otlpmetricgrpc.WithTemporalitySelector(temporality),
		otlpmetricgrpc.WithTimeout(0),        // nothing here waits for the network
		otlpmetricgrpc.WithMaxRequestSize(0), // 64 MiB otherwise, beyond which all is lost; the sender splits
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}),
	)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &handOver{exporter, conn}, nil
}

// handOver is an exporter that only hands over.
type handOver struct {
	*otlpmetricgrpc.Exporter
	conn *grpc.ClientConn
}

// Export does not heed the end of ctx: the SDK's exporter would throw away what
// a collection left no time for.
func (h *handOver) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	return h.Exporter.Export(context.WithoutCancel(ctx), rm)
}

// Shutdown also closes the connection, which the exporter does not: it was
// given it.
func (h *handOver) Shutdown(ctx context.Context) error {
	return errors.Join(h.Exporter.Shutdown(ctx), h.conn.Close())
}

// tlsFiles are transport credentials that read their files at each handshake: a
// file that appears, is mended or is rotated on disk needs no restart.
type tlsFiles struct {
	credentials.TransportCredentials
	files settings.TLSFiles
}

func newTLS(files settings.TLSFiles) credentials.TransportCredentials {
	return &tlsFiles{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), files}
}

func (t *tlsFiles) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := t.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

func (t *tlsFiles) Clone() credentials.TransportCredentials { return newTLS(t.files) }

func (t *tlsFiles) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.files.CA != "" {
		pem, err := readFile(t.files.CA)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities: %s holds no PEM certificate", t.files.CA)
		}
	}
	if t.files.Certificate != "" {
		pair, err := t.pair()
		if err != nil {
			return nil, fmt.Errorf("client certificate %s with key %s: %w", t.files.Certificate, t.files.Key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (t *tlsFiles) pair() (tls.Certificate, error) {
	cert, err := readFile(t.files.Certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readFile(t.files.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// maxFile bounds the files of certificates, keys and headers.
const maxFile = 1 << 20

// readFile reads a regular file of at most maxFile bytes. What is read at each
// request and handshake must not wait, as opening a FIFO does, nor have no end,
// as a device has.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // the settings name it
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that such a file may have", path, info.Size(), maxFile)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// headers are the headers of every request. Those of the file are read for each
// request, so that a secret can be rotated; they win.
type headers struct {
	fixed map[string]string
	file  string
	sent  atomic.Pointer[map[string]string] // by the last request
}

func (h *headers) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	all, err := h.read()
	if err != nil {
		// Unavailable: an export without its secret would be refused for good,
		// while the file may still come.
		return nil, status.Errorf(codes.Unavailable, "OTEL_EXPORTER_OTLP_HEADERS_FILE: %v", err)
	}
	h.sent.Store(&all)
	return all, nil
}

func (h *headers) read() (map[string]string, error) {
	if h.file == "" {
		return h.fixed, nil
	}
	text, err := readFile(h.file)
	if err != nil {
		return nil, err
	}
	return parseHeaders(h.fixed, string(text), h.file)
}

// redact replaces what can be secret in the headers of the last request.
func (h *headers) redact(text string) string {
	sent := h.sent.Load()
	if sent == nil {
		return text
	}
	for _, s := range secretsOf(*sent) {
		text = s.replace(text)
	}
	return text
}

// secret is a header's value or a word of it. What could be a word of any
// sentence is one only where it stands alone.
type secret struct {
	text  string
	alone bool
}

// secretsOf returns what can be secret in headers, the longest first: a secret
// may be part of another. That is, in a header whose name says so, all but the
// scheme of "Bearer TOKEN"; in others, whose names are the vendors' own, what
// looks like a key. The name of an environment or a tenant is none.
func secretsOf(headers map[string]string) []secret {
	var found []secret
	add := func(text string, named bool) {
		looks := len(text) >= 16 && strings.ContainsAny(text, "0123456789")
		if looks || named && len(text) >= 4 { // less would be every other word
			found = append(found, secret{text, !looks})
			if quoted := strconv.Quote(text); quoted[1:len(quoted)-1] != text {
				found = append(found, secret{quoted[1 : len(quoted)-1], !looks})
			}
		}
	}
	for name, value := range headers {
		named := secretName.MatchString(name)
		if scheme, rest, ok := strings.Cut(value, " "); ok && strings.HasSuffix(name, "authorization") && scheme != "" {
			value = strings.TrimSpace(rest)
		}
		add(value, named)
		if words := strings.Fields(value); len(words) > 1 {
			for _, word := range words {
				add(word, named)
			}
		}
	}
	slices.SortFunc(found, func(a, b secret) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), strings.Compare(a.text, b.text))
	})
	return found
}

var secretName = regexp.MustCompile(`auth|token|key|secret|pass|cred|cookie|session|sign|dsn`)

func (s secret) replace(text string) string {
	if !s.alone {
		return strings.ReplaceAll(text, s.text, redacted)
	}
	for from := 0; ; {
		i := strings.Index(text[from:], s.text)
		if i < 0 {
			return text
		}
		i += from
		if end := i + len(s.text); insideWord(text, i) || insideWord(text, end) {
			from = i + 1
		} else {
			text = text[:i] + redacted + text[end:]
			from = i + len(redacted)
		}
	}
}

const redacted = "[redacted]"

// insideWord reports whether a word goes on over the place i of the text.
func insideWord(text string, i int) bool {
	return i > 0 && i < len(text) && wordByte(text[i-1]) && wordByte(text[i])
}

func wordByte(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z' || b >= 0x80
}

// RequireTransportSecurity is false: whoever writes http:// beside a secret
// has a Collector on the same host.
func (h *headers) RequireTransportSecurity() bool { return false }

// parseHeaders reads one name=value a line, blank lines and # comments aside;
// the value is taken as it stands. An error shows no value.
func parseHeaders(fixed map[string]string, text, file string) (map[string]string, error) {
	all := make(map[string]string, len(fixed)+1)
	for name, value := range fixed {
		all[name] = value
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !found {
			return nil, fmt.Errorf("line %d of %s is no name=value", n, file)
		}
		value = strings.TrimSpace(value)
		header, err := settings.Header(strings.TrimSpace(name), value)
		if err != nil {
			return nil, fmt.Errorf("line %d of %s: %w", n, file, err)
		}
		all[header] = value
	}
	return all, nil
}
