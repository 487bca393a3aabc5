package settings

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// headers reads the headers of both standard variables, those for metrics win.
func (r *reader) headers() map[string]string {
	headers := map[string]string{}
	for _, name := range []string{exporter + "HEADERS", exporter + "METRICS_HEADERS"} {
		for _, p := range r.pairs(r.first(name)) {
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
		// Not quoted: "authorization: Bearer SECRET=" contains the secret.
		return "", errors.New("invalid header name before '='")
	case strings.HasPrefix(lower, "grpc-"), lower == "content-type", lower == "user-agent", lower == "te":
		return "", fmt.Errorf("the header %q is reserved for gRPC", name)
	}
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' {
			return "", fmt.Errorf("the value of header %q has a character that is not printable ASCII", name)
		}
	}
	return lower, nil
}
