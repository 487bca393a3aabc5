// Package scrape reads the metrics of one Prometheus target.
//
// A scrape is one GET of a unix socket or an http URL and returns the exposition
// as delimited protobuf. The target is not trusted: what it sends is bounded in
// time, bytes, samples and memory, and checked to be valid protobuf messages.
// The package never retries, follows no redirect and does not interpret metrics.
package scrape

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/common/expfmt"

	"otelmetricsplugin/internal/text"
)

// Accept is the Accept header of every request: delimited protobuf first,
// because only that has created timestamps, exemplars, native histograms and
// units, and costs least; text 0.0.4 from a target that has nothing else.
// OpenMetrics is not asked for: engines do not serve it.
const Accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.8," +
	"text/plain;version=0.0.4;q=0.5"

// Defaults of [Config].
const (
	DefaultTimeout       = 10 * time.Second
	DefaultMaxBytes      = 128 << 20
	DefaultMaxSamples    = 1_000_000
	DefaultMaxLabelBytes = 16 << 10
)

// Config says what to scrape and how much of it to accept. URL is required; the
// zero value of any other field is its default.
type Config struct {
	// URL is the target: unix:///path/of/socket, which is asked for /metrics,
	// or the http:// or https:// URL of an exposition. A user and a password in
	// it are sent as basic authentication.
	URL string
	// Timeout bounds one scrape, from the dial to the checked exposition. The
	// default is [DefaultTimeout].
	Timeout time.Duration
	// MaxBytes bounds the body. The default is [DefaultMaxBytes].
	MaxBytes int64
	// MaxSamples bounds the samples, counted as lines of the text format. The
	// default is [DefaultMaxSamples].
	MaxSamples int
	// MaxLabelBytes bounds a label's name and value together, and the name of
	// a family. The default is [DefaultMaxLabelBytes].
	MaxLabelBytes int
	// UserAgent is sent with each request. The default is net/http's.
	UserAgent string
}

// Scraper scrapes one target. Scrape must not be called concurrently; the other
// methods may be called at any time.
type Scraper struct {
	cfg       Config
	timeout   *LimitError // the cause of a context that took longer
	transport *http.Transport
	request   *http.Request // which each scrape sends
	dial      func(context.Context) (net.Conn, error)

	body    buffer // of the last response
	encoded buffer // from text
}

// New returns a Scraper for the target that cfg.URL names. It returns an error if
// the URL is missing or not supported, or if a limit is negative. It does not
// connect to the target.
func New(cfg Config) (*Scraper, error) {
	u, err := ParseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("invalid URL of the target: %w", err)
	}
	if cfg.Timeout < 0 || cfg.MaxBytes < 0 || cfg.MaxSamples < 0 || cfg.MaxLabelBytes < 0 {
		return nil, fmt.Errorf("negative limit: Timeout %v, MaxBytes %d, MaxSamples %d, MaxLabelBytes %d",
			cfg.Timeout, cfg.MaxBytes, cfg.MaxSamples, cfg.MaxLabelBytes)
	}
	cfg.setDefaults()

	network, address := "tcp", u.Host
	if u.Scheme == "unix" {
		network, address = "unix", u.Path
		u = &url.URL{Scheme: "http", Host: "localhost", Path: "/metrics"}
	} else if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), u.Scheme)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	return &Scraper{
		cfg:     cfg,
		timeout: &LimitError{Limit: LimitTime, Max: int64(cfg.Timeout), Err: context.DeadlineExceeded},
		request: newRequest(u, cfg.UserAgent),
		dial:    dial,
		transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			// The target is near: compression costs more than it saves, and
			// what was not asked for cannot be a decompression bomb.
			DisableCompression:     true,
			MaxIdleConns:           1,
			IdleConnTimeout:        5 * time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
			ReadBufferSize:         64 << 10,
		},
	}, nil
}

func (c *Config) setDefaults() {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxSamples == 0 {
		c.MaxSamples = DefaultMaxSamples
	}
	if c.MaxLabelBytes == 0 {
		c.MaxLabelBytes = DefaultMaxLabelBytes
	}
}

func newRequest(u *url.URL, userAgent string) *http.Request {
	r := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{"Accept": {Accept}}}
	if userAgent != "" {
		r.Header.Set("User-Agent", userAgent)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		r.SetBasicAuth(u.User.Username(), password)
	}
	return r
}

// Scrape reads the target once and returns its exposition as delimited protobuf
// messages of the type io.prometheus.client.MetricFamily. Each is one that
// proto.Unmarshal accepts, and all are within the limits; a [LimitError] says
// which was exceeded. Metric names, label names and values are not checked. The
// exposition is valid until the next call of Scrape. The error names the target,
// but never its password.
func (s *Scraper) Scrape(ctx context.Context) (exposition []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Timeout, s.timeout)
	defer cancel()

	exposition, err = s.scrape(ctx)
	if err != nil {
		s.body.release()
		s.encoded.release()
		// net/http's error for a deadline is that of the context, without
		// which one it was and how long.
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("scrape %s: %w", s, &shortError{err})
	}
	return exposition, nil
}

// shortError has a text fit for a log, whatever the target put into it.
type shortError struct{ error }

func (e *shortError) Error() string { return text.Shorten(e.error.Error(), 1<<10) }

func (e *shortError) Unwrap() error { return e.error }

func (s *Scraper) scrape(ctx context.Context) ([]byte, error) {
	// The transport alone does what is needed of a client: it follows no
	// redirect and keeps no cookie.
	response, err := s.transport.RoundTrip(s.request.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()

	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the target answered %q, want 200 OK", response.Status)
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, fmt.Errorf("the exposition has Content-Encoding %q, which was not asked for", encoding)
	}
	format := expfmt.ResponseFormat(response.Header)
	if format != expfmt.FmtProtoDelim && format != expfmt.FmtText {
		return nil, fmt.Errorf("the exposition has Content-Type %q, want delimited protobuf or text 0.0.4",
			response.Header.Get("Content-Type"))
	}
	if err := s.read(response); err != nil {
		return nil, err
	}
	return s.exposition(ctx, format)
}

// read reads the body of response.
func (s *Scraper) read(response *http.Response) error {
	err := errTooLarge
	if response.ContentLength <= s.cfg.MaxBytes {
		err = s.body.readFrom(response.Body, response.ContentLength, s.cfg.MaxBytes)
	}
	switch {
	case errors.Is(err, errTooLarge):
		return &LimitError{Limit: LimitBytes, Max: s.cfg.MaxBytes}
	case err != nil:
		return fmt.Errorf("reading the exposition after %d bytes: %w", len(s.body.data), err)
	}
	s.body.fit()
	return nil
}

// exposition checks the body, and encodes it as delimited protobuf if it is text.
func (s *Scraper) exposition(ctx context.Context, format expfmt.Format) ([]byte, error) {
	limits := limits{samples: s.cfg.MaxSamples, labelBytes: s.cfg.MaxLabelBytes}
	if format == expfmt.FmtProtoDelim {
		s.encoded.release()
		return s.body.data, checkProtobuf(ctx, s.body.data, limits)
	}
	if err := encodeText(ctx, &s.encoded, s.body.data, limits); err != nil {
		return nil, err
	}
	s.encoded.fit()
	return s.encoded.data, nil
}

// Dial connects to the target and hangs up: a cheap probe of whether anyone
// listens.
func (s *Scraper) Dial(ctx context.Context) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Close releases idle connections. The Scraper may still be used.
func (s *Scraper) Close() { s.transport.CloseIdleConnections() }

// String returns the target's URL without what may be secret in it.
func (s *Scraper) String() string { return Redact(s.cfg.URL) }
