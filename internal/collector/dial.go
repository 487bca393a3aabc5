// Package collector is the way to an OpenTelemetry Collector: the gRPC
// connection with its TLS, headers and user agent, the sending of a request
// that is already encoded and perhaps compressed, and what an answer means.
//
// It never gives up because the Collector is away or a file is missing: both
// are noticed, and may be over, at the next attempt. It keeps no request and
// repeats none.
package collector

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"otelmetricsplugin/internal/settings"
)

// Conn is a connection to the Collector.
type Conn struct {
	*grpc.ClientConn
	headers *headers
}

// Redact returns the text without the secrets that the last request carried: a
// server that quotes a token it does not like must not put it into a log. It is
// for texts that people read. Classify and Diagnose need the original, whose
// words a header may contain too.
func (c *Conn) Redact(text string) string { return c.headers.redact(text) }

// Dial returns a connection to the endpoint of s. It connects at the first
// request and again, with jitter, whenever it was lost. The compression is that
// of each request. The caller closes it.
func Dial(s *settings.Settings, userAgent string) (*Conn, error) {
	creds := insecure.NewCredentials()
	if s.Endpoint.TLS {
		creds = newTLS(s.TLS)
	}
	secrets := &headers{fixed: s.Headers, file: s.HeadersFile}
	conn, err := grpc.NewClient(s.Endpoint.Target,
		grpc.WithTransportCredentials(creds),
		grpc.WithPerRPCCredentials(secrets),
		grpc.WithUserAgent(userAgent),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 15 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// On Linux, Timeout is also how long data may be unacknowledged before
		// the connection is given up: a peer that vanished silently is noticed.
		// Pings are rare, as servers allow a client without streams few.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute, Timeout: 20 * time.Second}),
		grpc.WithDisableServiceConfig(), // no DNS TXT record configures this client
	)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", s.Endpoint.Target, err)
	}
	return &Conn{conn, secrets}, nil
}
