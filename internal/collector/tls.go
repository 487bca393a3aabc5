package collector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"

	"otelmetricsplugin/internal/settings"
)

// tlsFiles are transport credentials that read their files at each handshake: a
// file that appears, is corrected or is rotated on disk needs no restart.
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
			return nil, fmt.Errorf("%s%w", authoritiesError, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s%s has no PEM certificate", authoritiesError, t.files.CA)
		}
	}
	if t.files.Certificate != "" {
		pair, err := t.pair()
		if err != nil {
			return nil, fmt.Errorf("%s%s with key %s: %w", clientCertificateError, t.files.Certificate, t.files.Key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// How the errors of config begin; Diagnose recognizes them.
const (
	authoritiesError       = "authorities: "
	clientCertificateError = "client certificate "
)

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
