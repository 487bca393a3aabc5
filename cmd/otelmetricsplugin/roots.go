package main

import (
	"crypto/x509"
	"fmt"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"otelmetricsplugin/internal/settings"
)

// needsPublicRoots reports whether a connection is verified by the public
// authorities. To parse them takes 4 ms and 0.7 MB, which most processes need
// not spend.
func needsPublicRoots(s *settings.Settings) bool {
	return s.Endpoint.TLS && s.TLS.CA == "" || strings.HasPrefix(strings.ToLower(s.Scrape.URL), "https:")
}

// publicRoots returns the public authorities that are compiled in; the plugin's
// file system has none. They are used where the system has none of its own,
// which [x509.SetFallbackRoots] finds out: before the sandbox hides its files.
func publicRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			panic(fmt.Sprintf("a compiled-in root certificate: %v", err)) // a test parses them all
		}
		if root.Constraint == nil {
			pool.AddCert(certificate)
		} else {
			pool.AddCertWithConstraint(certificate, root.Constraint)
		}
	}
	return pool
}
