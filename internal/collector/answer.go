package collector

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Outcome is what an attempt to send a request came to.
type Outcome int

// The outcomes of an attempt.
const (
	Delivered Outcome = iota
	Retry             // the same request may be accepted later
	TooLarge          // smaller requests may be accepted
	Rejected          // for good
)

// AnswerTooLarge names, for [Remedy] and the log, the refusal of a single data
// point for its size, which has several codes.
const AnswerTooLarge = "too large"

// maxRetryDelay bounds what a server may ask for with RetryInfo.
const maxRetryDelay = 5 * time.Minute

// Classify returns the outcome of an attempt that ended with err, and the pause
// that the server asks for, 0 if it does not.
//
// The codes are those of the OTLP specification, section "OTLP/gRPC Response"
// (docs/specification.md of opentelemetry-proto). They are meant for a server
// that speaks OTLP: what grpc-go reports under a final code because something
// else answered, or because the stream broke, is tried again.
func Classify(err error) (Outcome, time.Duration) {
	if err == nil {
		return Delivered, 0
	}
	st, ok := status.FromError(err)
	if !ok { // not an answer of a server
		return Retry, 0
	}
	delay, asked := retryInfo(st)
	switch st.Code() {
	case codes.OK:
		return Delivered, 0
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return Retry, delay
	case codes.ResourceExhausted:
		switch {
		case asked:
			return Retry, delay
		case saysTooLarge(st.Message()):
			return TooLarge, 0
		case streamBroke(st.Message()): // RST_STREAM with ENHANCE_YOUR_CALM
			return Retry, 0
		}
	case codes.Unknown, codes.Internal, codes.Unimplemented:
		if strings.Contains(st.Message(), "unexpected HTTP status code received from server: 413") {
			return TooLarge, 0
		}
		if streamBroke(st.Message()) {
			return Retry, 0
		}
	}
	return Rejected, 0
}

func retryInfo(st *status.Status) (time.Duration, bool) {
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return min(max(0, r.GetRetryDelay().AsDuration()), maxRetryDelay), true
		}
	}
	return 0, false
}

// saysTooLarge reports whether a ResourceExhausted means the size of the
// message and not a quota: grpc-go and C++ say "larger than max", Java and .NET
// "exceeds maximum size" and "exceeds the maximum configured message size".
func saysTooLarge(message string) bool {
	m := strings.ToLower(message)
	return strings.Contains(m, "larger than max") ||
		strings.Contains(m, "exceeds maximum size") || strings.Contains(m, "exceeds the maximum configured message size") ||
		strings.Contains(m, "message too large")
}

// streamBroke reports whether grpc-go's own message says that no OTLP server
// answered: the stream broke, or a proxy or a server of another protocol did.
func streamBroke(message string) bool {
	for _, s := range []string{
		"stream terminated by RST_STREAM",
		"server closed the stream without sending trailers",
		"unexpected HTTP status code received from server",
		"received unexpected content-type",
		"malformed header",
		"failed to unmarshal the received message",
		"error reading from server",
	} {
		if strings.Contains(message, s) {
			return true
		}
	}
	return false
}

// Code returns the name of the code of an answer. What a server sends beyond
// gRPC's codes is Unknown.
func Code(err error) string {
	code := status.Code(err)
	if code > codes.Unauthenticated {
		code = codes.Unknown
	}
	return code.String()
}

// Message returns the message of an answer, as the server or gRPC wrote it.
func Message(err error) string { return status.Convert(err).Message() }

// Remedy says what a person can do about an answer that refuses data for good:
// the name of its code, or [AnswerTooLarge], and its message.
func Remedy(answer, message string) string {
	switch answer {
	case codes.Unauthenticated.String(), codes.PermissionDenied.String():
		return "correct the token in OTEL_EXPORTER_OTLP_HEADERS_FILE; what is refused meanwhile is lost"
	case codes.Unimplemented.String():
		switch {
		case strings.Contains(message, "Decompressor"):
			return "the Collector does not know this compression: set OTEL_EXPORTER_OTLP_COMPRESSION to gzip or none"
		case strings.Contains(message, "unknown service"):
			return "the server does not accept metrics: put its otlp receiver into a metrics pipeline"
		}
	case AnswerTooLarge:
		return "raise the Collector's max_recv_msg_size_mib"
	}
	return "the Collector's own log says why"
}

// Diagnose names the reason for an attempt that is repeated, short and the same
// for the same state, and what a person can do about it.
func Diagnose(err error) (reason, remedy string) {
	st, _ := status.FromError(err)
	for _, d := range diagnoses {
		for _, s := range d.texts {
			if strings.Contains(st.Message(), s) {
				return d.reason, d.remedy
			}
		}
	}
	switch st.Code() {
	case codes.ResourceExhausted:
		return "throttled", "the Collector asks for fewer requests: give it more resources"
	case codes.DeadlineExceeded:
		return "timeout", "no answer in time: look at the network and at the Collector's load, or raise OTEL_EXPORTER_OTLP_TIMEOUT"
	}
	return "unavailable", "look at the Collector and at the network between"
}

// diagnoses is what grpc-go and crypto/tls say in the cases that have a name,
// the most specific first.
var diagnoses = []struct {
	reason, remedy string
	texts          []string
}{
	// Faults on this side: no request was sent.
	{"headers_file", "make the file of OTEL_EXPORTER_OTLP_HEADERS_FILE readable by root, one name=value a line: in a plugin it must be below /var/lib/otelmetricsplugin",
		[]string{headersFileError}},
	{"tls_file", "make the PEM file readable by root; in a plugin its path begins with /var/lib/otelmetricsplugin",
		[]string{"authentication handshake failed: " + authoritiesError, "authentication handshake failed: " + clientCertificateError}},
	{"permission_denied", "the socket must be writable for root without capabilities: start the Collector as root, or give the socket mode 0666",
		[]string{"connect: permission denied"}},

	{"tls_unknown_authority", "name the CA that signed the Collector's certificate in OTEL_EXPORTER_OTLP_CERTIFICATE",
		[]string{"x509: certificate signed by unknown authority"}},
	{"tls_expired", "renew the Collector's certificate, or correct the clock",
		[]string{"x509: certificate has expired or is not yet valid"}},
	{"tls_wrong_name", "use a host name that the Collector's certificate has in OTLP_ENDPOINT, or issue a certificate for this one",
		[]string{"x509: certificate is valid for", "x509: certificate is not valid for", "x509: cannot validate certificate for", "x509: certificate relies on legacy Common Name"}},
	{"tls_client_certificate", "the Collector wants a client certificate that it trusts: set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY",
		[]string{"tls: certificate required", "tls: bad certificate", "tls: unknown certificate", "tls: expired certificate"}},
	{"server_is_plaintext", "the server does not speak TLS: use http:// in OTLP_ENDPOINT, or give the Collector a certificate",
		[]string{"first record does not look like a TLS handshake"}},
	{"tls_failed", "the TLS handshake failed: look at the versions and certificates of both sides",
		[]string{"authentication handshake failed"}},
	{"bad_gateway", "a proxy answers in the Collector's place: look at what is behind it",
		[]string{"status code received from server: 502", "status code received from server: 503", "status code received from server: 504"}},
	{"not_otlp_grpc", "the server is not an OTLP/gRPC receiver, whose port is usually 4317; 4318 is OTLP/HTTP",
		[]string{"looked like an HTTP/1.1 header", "unexpected HTTP status code received from server", "received unexpected content-type"}},
	{"connection_refused", "nothing listens there: start the Collector, or correct OTLP_ENDPOINT or HTTPS_PROXY",
		[]string{"connection refused", "connect: no such file or directory"}},
	{"unknown_host", "the host name does not resolve: correct OTLP_ENDPOINT or the name server",
		[]string{"no such host", "produced zero addresses", "name resolver error"}},
	{"server_hangs_up", "the server ends the connection before it says anything: if it speaks TLS, use https:// in OTLP_ENDPOINT; else see that it is an OTLP/gRPC receiver",
		[]string{"error reading server preface", "http2: frame too large"}},
	{"no_route", "there is no way to the Collector's host: look at the network",
		[]string{"no route to host", "network is unreachable"}},
}
