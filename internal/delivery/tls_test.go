package delivery

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"math/big"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// authority is a certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue returns a certificate for name that is valid from yesterday until end.
func (a authority) issue(t *testing.T, name string, end time.Time) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: end}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLSMistakesAreNamedAndLoseNothingOnceCorrected(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	later := time.Now().Add(time.Hour)
	good := ca.issue(t, "collector", later)
	server := func(cfg *tls.Config) credentials.TransportCredentials { return credentials.NewTLS(cfg) }
	client := func(certs ...tls.Certificate) credentials.TransportCredentials {
		return credentials.NewTLS(&tls.Config{RootCAs: ca.pool(), ServerName: "collector", Certificates: certs})
	}
	right := server(&tls.Config{Certificates: []tls.Certificate{good}})
	for name, c := range map[string]struct {
		client       credentials.TransportCredentials
		wrong, right credentials.TransportCredentials
		reason       string
		remedy       string
	}{
		"unknown authority": {client(), server(&tls.Config{Certificates: []tls.Certificate{other.issue(t, "collector", later)}}), right,
			"tls_unknown_authority", "name the CA that signed the Collector's certificate in OTEL_EXPORTER_OTLP_CERTIFICATE"},
		"expired": {client(), server(&tls.Config{Certificates: []tls.Certificate{ca.issue(t, "collector", time.Now().Add(-time.Hour))}}), right,
			"tls_expired", "renew the Collector's certificate, or correct the clock"},
		"wrong name": {client(), server(&tls.Config{Certificates: []tls.Certificate{ca.issue(t, "elsewhere", later)}}), right,
			"tls_wrong_name", "use a host name that the Collector's certificate has in OTLP_ENDPOINT, or issue a certificate for this one"},
		"client certificate required": {client(), server(&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}), right,
			"tls_client_certificate", "the Collector wants a client certificate that it trusts: set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY"},
		"client certificate not trusted": {client(other.issue(t, "me", later)), server(&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}), right,
			"tls_client_certificate", "the Collector wants a client certificate that it trusts: set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY"},
		"no common version": {credentials.NewTLS(&tls.Config{RootCAs: ca.pool(), ServerName: "collector", MaxVersion: tls.VersionTLS12}),
			server(&tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS13}), right,
			"tls_failed", "the TLS handshake failed: look at the versions and certificates of both sides"},
		"plaintext server behind https": {client(), insecure.NewCredentials(), right,
			"server_is_plaintext", "the server does not speak TLS: use http:// in OTLP_ENDPOINT, or give the Collector a certificate"},
		"TLS server behind http": {insecure.NewCredentials(), right, insecure.NewCredentials(),
			"server_hangs_up", "the server ends the connection before it says anything: if it speaks TLS, use https:// in OTLP_ENDPOINT; else see that it is an OTLP/gRPC receiver"},
	} {
		t.Run(name, func(t *testing.T) {
			col, want, log := newReceiver(), ledger{}, logs{}
			l := listen(t, "127.0.0.1:0")
			addr := l.Addr().String()
			s := col.serve(t, l, grpc.Creds(c.wrong))
			cfg := quick(t, dial(t, addr, grpc.WithTransportCredentials(c.client)))
			cfg.Timeout = 300 * time.Millisecond
			cfg.Logger = log.logger()
			q := open(t, cfg)
			for scrape := range 5 {
				accept(t, q, want, page(scrape, 5))
			}
			// The alert of the server may come too late for the first attempt.
			var logged map[string]any
			await(q, func(s Stats) bool {
				for _, r := range log.records() {
					if r["reason"] == c.reason {
						logged = r
					}
				}
				return s.Retries >= 3 && (logged != nil || s.Retries >= 30)
			})
			s.Stop()
			col.serve(t, listen(t, addr), grpc.Creds(c.right))
			stats := flush(t, q)
			if d := compare(t, want, col.held); d != 0 || len(dropped(stats)) != 0 {
				t.Errorf("%d points twice, dropped %v", d, dropped(stats))
			}
			t.Log(logged["error"])
			delete(logged, "error") // the words of crypto/tls
			delete(logged, "requests")
			if want := map[string]any{"level": "WARN", "msg": "the Collector does not take requests: they wait", "reason": c.reason, "remedy": c.remedy}; !maps.Equal(logged, want) {
				t.Errorf("log: %v\nwant %v", log.records(), want)
			}
		})
	}
}
