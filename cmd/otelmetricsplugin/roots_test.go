package main

import (
	"crypto/x509"
	"testing"

	"otelmetricsplugin/internal/settings"
)

func TestPublicRoots(t *testing.T) {
	if publicRoots().Equal(x509.NewCertPool()) {
		t.Error("there are none")
	}
	for _, test := range []struct {
		name string
		env  map[string]string
		want bool
	}{
		{"plaintext", nil, false},
		{"plaintext over unix", map[string]string{"OTLP_ENDPOINT": "unix:///c.sock"}, false},
		{"TLS", map[string]string{"OTLP_ENDPOINT": "https://c:4317"}, true},
		{"TLS without a scheme", map[string]string{"OTLP_ENDPOINT": "c:4317"}, true},
		{"authorities of its own", map[string]string{"OTLP_ENDPOINT": "https://c:4317", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem"}, false},
		{"a target over https", map[string]string{"SCRAPE_URL": "HTTPS://host/metrics"}, true},
	} {
		s, err := settings.Read(func(name string) string { return test.env[name] })
		if err != nil {
			t.Fatal(err)
		}
		if got := needsPublicRoots(s); got != test.want {
			t.Errorf("%s: needsPublicRoots is %v", test.name, got)
		}
	}
}
