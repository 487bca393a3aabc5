package collector

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"otelmetricsplugin/internal/settings"
)

// headers are the headers of every request, as per-RPC credentials. Those of
// the file are read for each request, so that a secret can be rotated; they
// win over the fixed ones.
type headers struct {
	fixed map[string]string
	file  string
	sent  atomic.Pointer[map[string]string] // by the last request
}

// headersFileError is how an error of the headers file begins; Diagnose
// recognizes it.
const headersFileError = "OTEL_EXPORTER_OTLP_HEADERS_FILE: "

func (h *headers) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	all, err := h.read()
	if err != nil {
		// Unavailable: without its secret the request would be refused for
		// good, while the file may still come.
		return nil, status.Errorf(codes.Unavailable, "%s%v", headersFileError, err)
	}
	h.sent.Store(&all)
	return all, nil
}

// RequireTransportSecurity is false: whoever writes http:// beside a secret
// has a Collector on the same host.
func (h *headers) RequireTransportSecurity() bool { return false }

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

// parseHeaders reads one name=value per line, except blank lines and #
// comments; the value is taken literally. An error shows no value.
func parseHeaders(fixed map[string]string, text, file string) (map[string]string, error) {
	all := make(map[string]string, len(fixed)+1)
	maps.Copy(all, fixed)
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !found {
			return nil, fmt.Errorf("line %d of %s is not name=value", n, file)
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
