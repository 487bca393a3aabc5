package collector_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/internal/collector"
	"otelmetricsplugin/internal/delivery"
	"otelmetricsplugin/internal/settings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a Collector that keeps the metadata of each request.
type server struct {
	colmetricpb.UnimplementedMetricsServiceServer
	address string
	seen    chan metadata.MD
}

func (s *server) Export(ctx context.Context, _ *colmetricpb.ExportMetricsServiceRequest) (*colmetricpb.ExportMetricsServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.seen <- md
	return &colmetricpb.ExportMetricsServiceResponse{}, nil
}

func serve(t *testing.T, network, address string, options ...grpc.ServerOption) *server {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: listener.Addr().String(), seen: make(chan metadata.MD, 10)}
	g := grpc.NewServer(options...)
	colmetricpb.RegisterMetricsServiceServer(g, s)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	return s
}

func dial(t *testing.T, s *settings.Settings) colmetricpb.MetricsServiceClient {
	t.Helper()
	conn, err := collector.Dial(s, "otelmetricsplugin/test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return colmetricpb.NewMetricsServiceClient(conn)
}

func send(t *testing.T, client colmetricpb.MetricsServiceClient) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := client.Export(ctx, &colmetricpb.ExportMetricsServiceRequest{})
	return err
}

func TestEachRequestCarriesUserAgentAndHeaders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "headers")
	write(t, file, "# a secret\n\nAuthorization = Bearer a=b,c \nx-both=file\n")
	socket := filepath.Join(shortDir(t), "c.sock")
	for _, target := range []struct {
		server   *server
		endpoint string
	}{
		{serve(t, "unix", socket), "unix://" + socket},
		{serve(t, "tcp", "127.0.0.1:0"), ""},
	} {
		s := &settings.Settings{
			Endpoint:    settings.Endpoint{Target: target.endpoint},
			Headers:     map[string]string{"x-env": "env", "x-both": "env"},
			HeadersFile: file,
		}
		if target.endpoint == "" {
			s.Endpoint.Target = "dns:///" + target.server.address
		}
		if err := send(t, dial(t, s)); err != nil {
			t.Fatal(err)
		}
		md := <-target.server.seen
		for name, want := range map[string]string{
			"authorization": "Bearer a=b,c", "x-both": "file", "x-env": "env", "grpc-accept-encoding": "gzip,zstd",
		} {
			if got := strings.Join(md.Get(name), "|"); got != want {
				t.Errorf("header %s is %q, want %q", name, got, want)
			}
		}
		if got := strings.Join(md.Get("user-agent"), ""); !strings.HasPrefix(got, "otelmetricsplugin/test grpc-go/") {
			t.Errorf("the user agent is %q", got)
		}
	}
}

func TestAHeadersFileThatIsNotThereYetHealsWithoutARestart(t *testing.T) {
	target := serve(t, "tcp", "127.0.0.1:0")
	file := filepath.Join(t.TempDir(), "headers")
	client := dial(t, &settings.Settings{Endpoint: settings.Endpoint{Target: "dns:///" + target.address}, HeadersFile: file})
	_, invalid := settings.Header("bad name", "secret")
	for _, step := range []struct{ content, want string }{
		{"", "OTEL_EXPORTER_OTLP_HEADERS_FILE: open " + file + ": no such file or directory"},
		{"authorization secret", "OTEL_EXPORTER_OTLP_HEADERS_FILE: line 1 of " + file + " is not name=value"},
		{"\nbad name=secret", "OTEL_EXPORTER_OTLP_HEADERS_FILE: line 2 of " + file + ": " + invalid.Error()},
	} {
		if step.content != "" {
			write(t, file, step.content)
		}
		err := send(t, client)
		if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != step.want {
			t.Errorf("with %q the error is\n%v, want Unavailable\n%s", step.content, err, step.want)
		}
	}
	for _, secret := range []string{"one", "two"} {
		write(t, file, "authorization="+secret)
		if err := send(t, client); err != nil {
			t.Fatal(err)
		}
		if got := (<-target.seen).Get("authorization"); len(got) != 1 || got[0] != secret {
			t.Errorf("the header is %q, want %q", got, secret)
		}
	}
}

func TestAFileThatIsNotARegularFileIsAnErrorAtOnce(t *testing.T) {
	target := serve(t, "tcp", "127.0.0.1:0")
	dir := t.TempDir()
	fifo, huge := filepath.Join(dir, "fifo"), filepath.Join(dir, "huge")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, huge, "")
	if err := os.Truncate(huge, 3<<30); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		fifo:        fifo + " is not a regular file",
		dir:         dir + " is not a regular file",
		"/dev/zero": "/dev/zero is not a regular file",
		huge:        huge + " has 3221225472 bytes; the limit is 1048576",
	} {
		err := send(t, dial(t, &settings.Settings{Endpoint: settings.Endpoint{Target: "dns:///" + target.address}, HeadersFile: path}))
		if want := "OTEL_EXPORTER_OTLP_HEADERS_FILE: " + want; status.Code(err) != codes.Unavailable || status.Convert(err).Message() != want {
			t.Errorf("the headers: %v, want %s", err, want)
		}
		err = send(t, dial(t, &settings.Settings{Endpoint: settings.Endpoint{Target: "dns:///" + target.address, TLS: true}, TLS: settings.TLSFiles{CA: path}}))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "authorities: "+want) {
			t.Errorf("the authorities: %v, want %s", err, want)
		}
	}
}

// echo is a Collector that quotes what it was sent, refusing it as a whole or in
// part.
type echo struct {
	colmetricpb.UnimplementedMetricsServiceServer
	code codes.Code
}

func (e *echo) Export(ctx context.Context, _ *colmetricpb.ExportMetricsServiceRequest) (*colmetricpb.ExportMetricsServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	quote := fmt.Sprintf("cannot say that I like %q", md.Get("authorization"))
	if e.code != codes.OK {
		return nil, status.Error(e.code, quote)
	}
	return &colmetricpb.ExportMetricsServiceResponse{PartialSuccess: &colmetricpb.ExportMetricsPartialSuccess{ErrorMessage: quote, RejectedDataPoints: 1}}, nil
}

func TestAServerThatQuotesASecretPutsItIntoNoMessage(t *testing.T) {
	for _, code := range []codes.Code{codes.OK, codes.Unauthenticated, codes.Unavailable} {
		t.Run(code.String(), func(t *testing.T) {
			log, file := &lines{written: make(chan string, 10)}, filepath.Join(t.TempDir(), "headers")
			write(t, file, "authorization=Bearer s3cr3t\n")
			q := queue(t, &echo{code: code}, &settings.Settings{HeadersFile: file}, slog.New(slog.NewTextHandler(log, nil)))
			accept(t, q)
			line := <-log.written
			if want := `cannot say that I like [\"Bearer [redacted]\"]`; !strings.Contains(line, want) || strings.Contains(line, "s3cr3t") {
				t.Errorf("the log is %s, want %s in it", line, want)
			}
		})
	}
}

// A server that ends each stream in the middle is tried again, whatever words
// of what gRPC says about it are also in a header.
func TestAHeaderThatIsAnOrdinaryWordChangesNoOutcome(t *testing.T) {
	for _, value := range []string{"edge", "stream", "RST_STREAM", "terminated"} {
		for _, name := range []string{"x-source", "x-token"} {
			t.Run(name+"="+value, func(t *testing.T) {
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				asked := make(chan struct{}, 100)
				server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					asked <- struct{}{}
					w.Header().Set("Content-Type", "application/grpc")
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler) // RST_STREAM
				})}
				server.Protocols.SetUnencryptedHTTP2(true)
				go func() { _ = server.Serve(listener) }()
				t.Cleanup(func() { _ = server.Close() })
				q := queueTo(t, listener.Addr().String(), &settings.Settings{Headers: map[string]string{name: value}}, slog.New(slog.DiscardHandler))
				accept(t, q)
				<-asked
				<-asked // it was tried again
				if s := q.Stats(); s.QueuedPoints != 1 || s.Dropped[delivery.DroppedRejected] != 0 {
					t.Errorf("the queue is %+v", s)
				}
			})
		}
	}
}

func TestWhatLooksLikeASecretIsRedactedAndOrdinaryWordsAreNot(t *testing.T) {
	const key = "hcaik_01jx0123456789abcdef"
	for _, test := range []struct{ name, value, text, want string }{
		{"authorization", "Bearer s3cr3t", "bad Bearer s3cr3t, s3cr3ts", "bad Bearer [redacted], s3cr3ts"},
		{"authorization", "Basic dXNlcjpwYXNz=", "Basic dXNlcjpwYXNz=.", "Basic [redacted]."},
		{"authorization", "word", "word swordfish words word", "[redacted] swordfish words [redacted]"},
		{"x-api-key", `pass"word`, `the key "pass\"word"`, `the key "[redacted]"`},
		{"x-token", "open open-sesame", "open-sesame open openness", "[redacted] [redacted] openness"},
		{"x-token", "open open-sesame", "open open-sesame", "[redacted]"},
		{"x-token", "abc", "abc", "abc"},
		{"x-honeycomb-team", key, `{\n` + key + "}", `{\n[redacted]}`},
		{"x-scope-orgid", "stream", "stream terminated by RST_STREAM", "stream terminated by RST_STREAM"},
		{"x-env", "us-east-1", "dial us-east-1.example.com", "dial us-east-1.example.com"},
	} {
		target := serve(t, "tcp", "127.0.0.1:0")
		conn, err := collector.Dial(&settings.Settings{Endpoint: settings.Endpoint{Target: "dns:///" + target.address}, Headers: map[string]string{test.name: test.value}}, "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if got := conn.Redact(test.text); got != test.text {
			t.Errorf("before anything was sent %q is %q", test.text, got)
		}
		if err := send(t, colmetricpb.NewMetricsServiceClient(conn)); err != nil {
			t.Fatal(err)
		}
		if got := conn.Redact(test.text); got != test.want {
			t.Errorf("with %s=%s the text %q is %q, want %q", test.name, test.value, test.text, got, test.want)
		}
	}
}

// queue returns a queue that delivers to a server of its own.
func queue(t *testing.T, service colmetricpb.MetricsServiceServer, s *settings.Settings, logger *slog.Logger) *delivery.Queue {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	colmetricpb.RegisterMetricsServiceServer(g, service)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	return queueTo(t, listener.Addr().String(), s, logger)
}

func queueTo(t *testing.T, address string, s *settings.Settings, logger *slog.Logger) *delivery.Queue {
	t.Helper()
	s.Endpoint.Target = "dns:///" + address
	conn, err := collector.Dial(s, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	q, err := delivery.Open(delivery.Config{Conn: conn, Redact: conn.Redact, Logger: logger, MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = q.Close(ended)
	})
	return q
}

// accept gives q one data point.
func accept(t *testing.T, q *delivery.Queue) {
	t.Helper()
	request, err := proto.Marshal(&colmetricpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricpb.ResourceMetrics{{ScopeMetrics: []*metricpb.ScopeMetrics{{
		Metrics: []*metricpb.Metric{{Name: "m", Data: &metricpb.Metric_Gauge{Gauge: &metricpb.Gauge{DataPoints: []*metricpb.NumberDataPoint{{TimeUnixNano: 1}}}}}}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Accept(request, 1); err != nil {
		t.Fatal(err)
	}
}

// lines hands on what is logged, as long as there is room.
type lines struct{ written chan string }

func (l *lines) Write(p []byte) (int, error) {
	select {
	case l.written <- string(p):
	default:
	}
	return len(p), nil
}

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key, a.pem, _ = issue(t, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// issue issues a certificate, signed by a or by itself.
func issue(t *testing.T, a *authority, template *x509.Certificate) (cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.NotBefore = template.NotAfter.Add(-2 * time.Hour)
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func pair(t *testing.T, a *authority, template *x509.Certificate) tls.Certificate {
	t.Helper()
	_, _, cert, key := issue(t, a, template)
	p, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func loopback() *x509.Certificate {
	return &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
}

func TestTLSFaultsNameTheCauseAndHealWithoutARestart(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	good := pair(t, ours, loopback())
	expired := loopback()
	expired.NotAfter = time.Now().Add(-time.Minute)
	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")

	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ours.pem)
	mutual := &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}

	for _, test := range []struct {
		name   string
		server *tls.Config // nil is plaintext
		files  settings.TLSFiles
		plain  bool   // the client uses plaintext
		before func() // makes the fault
		want   string
		fix    func() // nil: the server's fault, or the settings'
	}{
		{
			name: "no file of authorities yet", server: &tls.Config{Certificates: []tls.Certificate{good}}, files: settings.TLSFiles{CA: ca},
			before: func() { _ = os.Remove(ca) }, want: "authorities: open " + ca + ": no such file or directory",
			fix: func() { write(t, ca, string(ours.pem)) },
		},
		{
			name: "not a PEM file", server: &tls.Config{Certificates: []tls.Certificate{good}}, files: settings.TLSFiles{CA: ca},
			before: func() { write(t, ca, "x") }, want: "authorities: " + ca + " has no PEM certificate",
			fix: func() { write(t, ca, string(ours.pem)) },
		},
		{
			name: "wrong authority", server: &tls.Config{Certificates: []tls.Certificate{good}}, files: settings.TLSFiles{CA: ca},
			before: func() { write(t, ca, string(other.pem)) }, want: "x509: certificate signed by unknown authority",
			fix: func() { write(t, ca, string(ours.pem)) },
		},
		{
			name: "public authorities", server: &tls.Config{Certificates: []tls.Certificate{good}},
			want: "x509: certificate signed by unknown authority",
		},
		{
			name: "expired", server: &tls.Config{Certificates: []tls.Certificate{pair(t, ours, expired)}}, files: settings.TLSFiles{CA: ca},
			before: func() { write(t, ca, string(ours.pem)) }, want: "certificate has expired",
		},
		{
			name: "wrong name", server: &tls.Config{Certificates: []tls.Certificate{pair(t, ours, &x509.Certificate{DNSNames: []string{"collector"}})}},
			files: settings.TLSFiles{CA: ca}, want: "doesn't contain any IP SANs",
		},
		{
			name: "client certificate required", server: mutual, files: settings.TLSFiles{CA: ca},
			want: "certificate required",
		},
		{
			name: "client certificate not there yet", server: mutual, files: settings.TLSFiles{CA: ca, Certificate: cert, Key: key},
			want: "client certificate " + cert + " with key " + key + ": open " + cert + ": no such file or directory",
			fix: func() {
				_, _, c, k := issue(t, ours, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
				write(t, cert, string(c))
				write(t, key, string(k))
			},
		},
		{name: "plaintext server behind https", files: settings.TLSFiles{CA: ca}, want: "first record does not look like a TLS handshake"},
		{name: "TLS server behind http", server: &tls.Config{Certificates: []tls.Certificate{good}}, plain: true, want: "error reading server preface"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var options []grpc.ServerOption
			if test.server != nil {
				options = append(options, grpc.Creds(credentials.NewTLS(test.server)))
			}
			target := serve(t, "tcp", "127.0.0.1:0", options...)
			if test.before != nil {
				test.before()
			}
			client := dial(t, &settings.Settings{Endpoint: settings.Endpoint{Target: "dns:///" + target.address, TLS: !test.plain}, TLS: test.files})
			err := send(t, client)
			// A server's refusal of the client's certificate races with the
			// client's first write, whose failure says less.
			for end := time.Now().Add(20 * time.Second); !strings.Contains(fmt.Sprint(err), test.want) && time.Now().Before(end); {
				err = send(t, client)
			}
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is\n%v, want Unavailable with\n%s", err, test.want)
			}
			if test.fix == nil {
				return
			}
			test.fix()
			deadline := time.Now().Add(20 * time.Second)
			for err != nil {
				if err = send(t, client); err != nil && time.Now().After(deadline) {
					t.Fatalf("20 s after it was fixed: %v", err)
				}
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "collector")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestWhatTheSettingsAcceptCanBeDialed: gRPC parses the target as a URL once more.
func TestWhatTheSettingsAcceptCanBeDialed(t *testing.T) {
	for _, endpoint := range []string{"http://[fe80::1%25eth0]:4317", "[fe80::1%eth0]:4317", "unix:///run/a%25b%23c.sock", "dns:///[fe80::1%25eth0]:4317"} {
		s, err := settings.Read(func(name string) string {
			return map[string]string{"OTLP_ENDPOINT": endpoint}[name]
		})
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		conn, err := collector.Dial(s, "")
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
