package collector

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// withRetryInfo is an error that asks for a pause.
func withRetryInfo(code codes.Code, d time.Duration) error {
	st, err := status.New(code, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func TestClassifyFollowsTheOTLPSpecification(t *testing.T) {
	for _, c := range []struct {
		err   error
		what  Outcome
		delay time.Duration
	}{
		{nil, Delivered, 0},
		// docs/specification.md of opentelemetry-proto, "OTLP/gRPC Response".
		{status.Error(codes.Canceled, ""), Retry, 0},
		{status.Error(codes.Unknown, ""), Rejected, 0},
		{status.Error(codes.InvalidArgument, ""), Rejected, 0},
		{status.Error(codes.DeadlineExceeded, ""), Retry, 0},
		{status.Error(codes.NotFound, ""), Rejected, 0},
		{status.Error(codes.AlreadyExists, ""), Rejected, 0},
		{status.Error(codes.PermissionDenied, ""), Rejected, 0},
		{status.Error(codes.ResourceExhausted, "quota"), Rejected, 0},
		{status.Error(codes.FailedPrecondition, ""), Rejected, 0},
		{status.Error(codes.Aborted, ""), Retry, 0},
		{status.Error(codes.OutOfRange, ""), Retry, 0},
		{status.Error(codes.Unimplemented, "unknown service"), Rejected, 0},
		{status.Error(codes.Internal, ""), Rejected, 0},
		{status.Error(codes.Unavailable, ""), Retry, 0},
		{status.Error(codes.DataLoss, ""), Retry, 0},
		{status.Error(codes.Unauthenticated, ""), Rejected, 0},
		// A pause that the server asks for, within reason.
		{withRetryInfo(codes.ResourceExhausted, 7*time.Second), Retry, 7 * time.Second},
		{withRetryInfo(codes.ResourceExhausted, 0), Retry, 0},
		{withRetryInfo(codes.Unavailable, 3*time.Second), Retry, 3 * time.Second},
		{withRetryInfo(codes.Unavailable, 24*time.Hour), Retry, maxRetryDelay},
		{withRetryInfo(codes.Unavailable, -time.Hour), Retry, 0},
		{withRetryInfo(codes.InvalidArgument, time.Second), Rejected, 0},
		// Too large, in the words of several servers.
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), TooLarge, 0},
		{status.Error(codes.ResourceExhausted, "grpc: received message after decompression larger than max 4194304"), TooLarge, 0},
		{status.Error(codes.ResourceExhausted, "gRPC message exceeds maximum size 4194304: 5000000"), TooLarge, 0},
		{status.Error(codes.ResourceExhausted, "Received message exceeds the maximum configured message size."), TooLarge, 0},
		{status.Error(codes.Unknown, "unexpected HTTP status code received from server: 413 (Request Entity Too Large)"), TooLarge, 0},
		// Not an OTLP server's answer, whatever the code that grpc-go gives it.
		{status.Error(codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR"), Retry, 0},
		{status.Error(codes.ResourceExhausted, "stream terminated by RST_STREAM with error code: ENHANCE_YOUR_CALM"), Retry, 0},
		{status.Error(codes.Internal, "server closed the stream without sending trailers"), Retry, 0},
		{status.Error(codes.Unimplemented, "unexpected HTTP status code received from server: 404 (Not Found)"), Retry, 0},
		{status.Error(codes.Unknown, `unexpected HTTP status code received from server: 500 (Internal Server Error); transport: received unexpected content-type "text/html"`), Retry, 0},
		{status.Error(codes.Unauthenticated, "unexpected HTTP status code received from server: 401 (Unauthorized)"), Rejected, 0},
		{errors.New("the connection's own"), Retry, 0},
		{context.DeadlineExceeded, Retry, 0},
		{fmt.Errorf("wrapped: %w", status.Error(codes.InvalidArgument, "")), Rejected, 0},
	} {
		if what, delay := Classify(c.err); what != c.what || delay != c.delay {
			t.Errorf("Classify(%v) = %v, %v; want %v, %v", c.err, what, delay, c.what, c.delay)
		}
	}
}

// The texts are those of this program, of grpc-go, crypto/tls and net, as an
// attempt returned them.
func TestDiagnoseNamesTheReasonAndTheRemedy(t *testing.T) {
	const (
		handshake = `connection error: desc = "transport: authentication handshake failed: `
		dialing   = `connection error: desc = "transport: Error while dialing: dial `
		headers   = "make the file of OTEL_EXPORTER_OTLP_HEADERS_FILE readable by root, one name=value a line: in a plugin it must be below /var/lib/otelmetricsplugin"
		pem       = "make the PEM file readable by root; in a plugin its path begins with /var/lib/otelmetricsplugin"
	)
	for _, c := range []struct {
		err            error
		reason, remedy string
	}{
		{status.Error(codes.Unavailable, "OTEL_EXPORTER_OTLP_HEADERS_FILE: open /etc/otel/headers: permission denied"),
			"headers_file", headers},
		{status.Error(codes.Unavailable, `OTEL_EXPORTER_OTLP_HEADERS_FILE: line 1 of /etc/otel/headers is not name=value`),
			"headers_file", headers},
		{status.Error(codes.Unavailable, handshake+`authorities: open /etc/ssl/ca.pem: permission denied"`),
			"tls_file", pem},
		{status.Error(codes.Unavailable, handshake+`authorities: /etc/ssl/ca.pem has no PEM certificate"`),
			"tls_file", pem},
		{status.Error(codes.Unavailable, handshake+`client certificate /c.pem with key /k.pem: open /c.pem: no such file or directory"`),
			"tls_file", pem},
		{status.Error(codes.Unavailable, dialing+`unix /run/otel.sock: connect: permission denied"`),
			"permission_denied", "the socket must be writable for root without capabilities: start the Collector as root, or give the socket mode 0666"},
		// The other side's.
		{status.Error(codes.Unavailable, handshake+`tls: failed to verify certificate: x509: certificate signed by unknown authority"`),
			"tls_unknown_authority", "name the CA that signed the Collector's certificate in OTEL_EXPORTER_OTLP_CERTIFICATE"},
		{status.Error(codes.Unavailable, handshake+`EOF"`),
			"tls_failed", "the TLS handshake failed: look at the versions and certificates of both sides"},
		{status.Error(codes.Unavailable, dialing+`tcp 127.0.0.1:4317: connect: connection refused"`),
			"connection_refused", "nothing listens there: start the Collector, or correct OTLP_ENDPOINT or HTTPS_PROXY"},
		{withRetryInfo(codes.ResourceExhausted, time.Second),
			"throttled", "the Collector asks for fewer requests: give it more resources"},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded"),
			"timeout", "no answer in time: look at the network and at the Collector's load, or raise OTEL_EXPORTER_OTLP_TIMEOUT"},
		{status.Error(codes.Unavailable, "shutting down"),
			"unavailable", "look at the Collector and at the network between"},
	} {
		if reason, remedy := Diagnose(c.err); reason != c.reason || remedy != c.remedy {
			t.Errorf("Diagnose(%v) = %q, %q; want %q, %q", c.err, reason, remedy, c.reason, c.remedy)
		}
	}
}

func TestRemedyOfARefusal(t *testing.T) {
	const (
		token = "correct the token in OTEL_EXPORTER_OTLP_HEADERS_FILE; what is refused meanwhile is lost"
		asIs  = "the Collector's own log says why"
	)
	for _, c := range []struct{ answer, message, want string }{
		{codes.Unauthenticated.String(), "no such token", token},
		{codes.PermissionDenied.String(), "", token},
		{codes.Unimplemented.String(), `grpc: Decompressor is not installed for grpc-encoding "gzip"`, "the Collector does not know this compression: set OTEL_EXPORTER_OTLP_COMPRESSION to gzip or none"},
		{codes.Unimplemented.String(), "unknown service opentelemetry.proto.collector.metrics.v1.MetricsService",
			"the server does not accept metrics: put its otlp receiver into a metrics pipeline"},
		{codes.Unimplemented.String(), "", asIs},
		{codes.InvalidArgument.String(), "bad metric", asIs},
		{"partial success", "three are bad", asIs},
		{AnswerTooLarge, "", "raise the Collector's max_recv_msg_size_mib"},
	} {
		if got := Remedy(c.answer, c.message); got != c.want {
			t.Errorf("Remedy(%q, %q) = %q, want %q", c.answer, c.message, got, c.want)
		}
	}
}
