package delivery

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// verdict is what becomes of a request after an attempt.
type verdict int

const (
	delivered verdict = iota
	retry
	tooLarge // smaller requests may be taken
	rejected
)

// tooLargeAnswer is what the log calls the refusal of a single data point for
// its size, which has several codes.
const tooLargeAnswer = "too large"

// maxRetryDelay bounds what a server may ask for with RetryInfo.
const maxRetryDelay = 5 * time.Minute

// judge says what becomes of a request whose attempt ended with err, and the
// pause that the server asks for, 0 when it does not.
//
// The codes are those of the OTLP specification, section "OTLP/gRPC Response"
// (docs/specification.md of opentelemetry-proto). They are meant for a server
// that speaks OTLP: what grpc-go reports under a final code because something
// else answered, or because the stream broke, is tried again.
func judge(err error) (verdict, time.Duration) {
	if err == nil {
		return delivered, 0
	}
	st, ok := status.FromError(err)
	if !ok { // not a server's answer
		return retry, 0
	}
	delay, asked := retryInfo(st)
	switch st.Code() {
	case codes.OK:
		return delivered, 0
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return retry, delay
	case codes.ResourceExhausted:
		switch {
		case asked:
			return retry, delay
		case saysTooLarge(st.Message()):
			return tooLarge, 0
		case broken(st.Message()): // RST_STREAM with ENHANCE_YOUR_CALM
			return retry, 0
		}
	case codes.Unknown, codes.Internal, codes.Unimplemented:
		if strings.Contains(st.Message(), "unexpected HTTP status code received from server: 413") {
			return tooLarge, 0
		}
		if broken(st.Message()) {
			return retry, 0
		}
	}
	return rejected, 0
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

// broken reports whether grpc-go's own message says that no OTLP server
// answered: the stream broke, or a proxy or another protocol's server is there.
func broken(message string) bool {
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

// mend says what a person can do about an answer that refuses data for good.
func mend(answer, message string) string {
	switch answer {
	case codes.Unauthenticated.String(), codes.PermissionDenied.String():
		return "correct the token in OTEL_EXPORTER_OTLP_HEADERS_FILE; what is refused meanwhile is lost"
	case codes.Unimplemented.String():
		switch {
		case strings.Contains(message, "Decompressor"):
			return "set OTEL_EXPORTER_OTLP_COMPRESSION=none"
		case strings.Contains(message, "unknown service"):
			return "what listens there takes no metrics: put its otlp receiver into a pipeline of metrics"
		}
	case tooLargeAnswer:
		return "raise the Collector's max_recv_msg_size_mib"
	}
	return "the Collector's own log says why"
}

// explain names the reason for an attempt that is repeated, short and the same
// for the same state, and what a person can do about it.
func explain(err error) (reason, remedy string) {
	st, _ := status.FromError(err)
	for _, k := range known {
		for _, s := range k.texts {
			if strings.Contains(st.Message(), s) {
				return k.reason, k.remedy
			}
		}
	}
	switch st.Code() {
	case codes.ResourceExhausted:
		return "throttled", "the Collector asks for fewer requests: give it more resources"
	case codes.DeadlineExceeded:
		return "timeout", "no answer in time: look at the network and at the Collector's load, or raise OTEL_EXPORTER_OTLP_TIMEOUT"
	}
	return "unavailable", "look at the Collector and at what is between"
}

// known is what grpc-go and crypto/tls say in the cases that have a name, the
// more telling first.
var known = []struct {
	reason, remedy string
	texts          []string
}{
	// Faults of this side: no request left it.
	{"headers_file", "make the file of OTEL_EXPORTER_OTLP_HEADERS_FILE readable by root, one name=value a line: in a plugin it must be below /var/lib/otelmetricsplugin",
		[]string{"OTEL_EXPORTER_OTLP_HEADERS_FILE: "}},
	{"tls_file", "make the PEM file readable by root; in a plugin its path begins with /var/lib/otelmetricsplugin",
		[]string{"authentication handshake failed: authorities: ", "authentication handshake failed: client certificate "}},
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
	{"not_otlp_grpc", "what listens there is no OTLP/gRPC receiver: its port is usually 4317, and 4318 is OTLP/HTTP",
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

// quote makes of a server's or the connection's text what may be logged.
func (q *Queue) quote(text string) string {
	if q.cfg.Redact != nil {
		text = q.cfg.Redact(text) // before it is cut: half a secret is not found
	}
	return clip(text)
}

// clip shortens a message for the log.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
