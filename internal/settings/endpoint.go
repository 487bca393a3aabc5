package settings

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const wantEndpoint = "want http://host:port (plaintext), https://host:port (TLS), unix:///path, dns:///host:port or host:port (TLS)"

// insecure reports whether an endpoint whose scheme does not say so is plaintext.
func (r *reader) insecure(v value) bool {
	return oneOf(r, v, option("true", true), option("false", false))
}

func (r *reader) endpoint(v value) Endpoint {
	// The setting's own check comes later in the table.
	plaintext := strings.EqualFold(r.first(ofExporter("INSECURE")...).text, "true")

	if strings.Contains(v.text, "@") {
		// Nothing of it is shown: before the @ is a password.
		r.badSecret(v.name, "the endpoint contains a user name; put credentials in OTEL_EXPORTER_OTLP_HEADERS_FILE")
		return Endpoint{}
	}
	if strings.Contains(v.text, "?") {
		r.badSecret(v.name, "a gRPC endpoint has no query; %s", wantEndpoint)
		return Endpoint{}
	}
	if !strings.Contains(v.text, "://") {
		return r.checked(v, hostPortFault(v.text), Endpoint{Target: "dns:///" + escapeZone(v.text), TLS: !plaintext})
	}
	u, err := url.Parse(v.text)
	if err != nil {
		// The value may contain a password where nobody expects one.
		r.badSecret(v.name, "not a URL; %s", wantEndpoint)
		return Endpoint{}
	}
	fault := ""
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix" && u.Scheme != "dns":
		fault = fmt.Sprintf("unknown scheme %q", u.Scheme)
	case u.Fragment != "":
		fault = "a gRPC endpoint has no fragment"
	case u.Scheme == "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/" {
			fault = "no absolute path after unix://"
		}
		return r.checked(v, fault, Endpoint{Target: "unix://" + u.EscapedPath()})
	case u.Scheme == "dns":
		if u.Host != "" {
			fault = "a host between dns:// and the path names a DNS server, which is not supported"
		} else {
			fault = hostPortFault(strings.TrimPrefix(u.Path, "/"))
		}
		return r.checked(v, fault, Endpoint{Target: "dns://" + escapeZone(u.Path), TLS: !plaintext})
	case u.Path != "" && u.Path != "/":
		fault = fmt.Sprintf("the path %q belongs to OTLP over HTTP; this is OTLP over gRPC, which has none", u.Path)
	default:
		fault = hostPortFault(u.Host)
	}
	return r.checked(v, fault, Endpoint{Target: "dns:///" + escapeZone(u.Host), TLS: u.Scheme == "https"})
}

func (r *reader) checked(v value, fault string, e Endpoint) Endpoint {
	if fault != "" {
		r.bad(v, "%s; %s", fault, wantEndpoint)
	}
	return e
}

// escapeZone escapes what separates an IPv6 zone: gRPC parses targets as URLs.
func escapeZone(address string) string { return strings.ReplaceAll(address, "%", "%25") }

// hostPortFault says what is wrong with a host:port, "" for nothing.
func hostPortFault(address string) string {
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
		return fmt.Sprintf("port %q is not a number from 1 to 65535", port)
	}
	return ""
}
