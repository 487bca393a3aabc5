// Package scrape reads one Prometheus page.
//
// In comes a target (a unix socket or an http URL); out go the metric families
// of one GET, sorted by name, or an error. The page is untrusted: it is bounded
// in time, in bytes and in samples, and any sequence of bytes gives families or
// an error. A scrape never retries and keeps nothing of the page before.
package scrape

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Accept is the Accept header of every request: delimited protobuf first,
// because it alone carries created timestamps, exemplars, native histograms and
// units, and decodes twice as fast; text 0.0.4 from a target that has only that.
// OpenMetrics is never asked for: engines do not serve it.
const Accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.8," +
	"text/plain;version=0.0.4;q=0.5"

// Defaults of [Config].
const (
	DefaultTimeout       = 10 * time.Second
	DefaultMaxBytes      = 128 << 20
	DefaultMaxSamples    = 1_000_000
	DefaultMaxLabelBytes = 16 << 10
)

// Config says what to scrape, and how much of it to believe.
type Config struct {
	// URL is the target: unix:///path/of/socket, whose page is /metrics, or
	// the http:// or https:// URL of a page.
	URL string
	// Timeout bounds one scrape, from the dial to the last family decoded; 0
	// is [DefaultTimeout].
	Timeout time.Duration
	// MaxBytes bounds the body; 0 is [DefaultMaxBytes].
	MaxBytes int64
	// MaxSamples bounds the samples on the page, counted as the lines of the
	// text format; 0 is [DefaultMaxSamples].
	MaxSamples int
	// MaxLabelBytes bounds the name and the value of one label, together; 0
	// is [DefaultMaxLabelBytes].
	MaxLabelBytes int
	// UserAgent is sent with each request.
	UserAgent string
}

// Scraper scrapes one target. It is safe for concurrent use; concurrent
// scrapes run one after the other.
type Scraper struct {
	cfg    Config
	client *http.Client
	page   string // URL of the request
	dial   func(context.Context) (net.Conn, error)

	mu   sync.Mutex
	body bytes.Buffer // the last body's memory, used again
}

// New returns a Scraper, or an error if the URL is none that can be scraped.
// It does not touch the target.
func New(cfg Config) (*Scraper, error) {
	u, err := ParseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MaxSamples == 0 {
		cfg.MaxSamples = DefaultMaxSamples
	}
	if cfg.MaxLabelBytes == 0 {
		cfg.MaxLabelBytes = DefaultMaxLabelBytes
	}

	network, address := "tcp", u.Host
	page := u.String()
	if u.Scheme == "unix" {
		network, address = "unix", u.Path
		page = "http://localhost/metrics"
	} else if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), u.Scheme)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	return &Scraper{
		cfg:  cfg,
		page: page,
		dial: dial,
		client: &http.Client{
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
				// The target is beside us: compression costs more than it
				// saves, and what is not asked for cannot be a bomb.
				DisableCompression:     true,
				MaxIdleConns:           1,
				IdleConnTimeout:        5 * time.Minute,
				MaxResponseHeaderBytes: 64 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// ParseURL parses the URL of a target; the error says what is accepted.
func ParseURL(raw string) (*url.URL, error) {
	const want = "want unix:///path/of/socket or http://host:port/metrics"
	u, err := url.Parse(raw)
	if err != nil {
		// The parser's own error quotes the URL, and with it a password.
		return nil, fmt.Errorf("not a URL; %s", want)
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path) && u.RawQuery == "" && u.Fragment == "":
		return u, nil
	case (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "":
		return u, nil
	default:
		return nil, errors.New(want)
	}
}

// Scrape reads the page once. The error names the target and what went wrong;
// it never holds the URL's password.
func (s *Scraper) Scrape(ctx context.Context) ([]*dto.MetricFamily, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Timeout, &LimitError{
		Problem: fmt.Sprintf("no whole page within %v", s.cfg.Timeout),
		Setting: "SCRAPE_TIMEOUT",
		Err:     context.DeadlineExceeded,
	})
	defer cancel()

	families, err := s.scrape(ctx)
	if err != nil {
		// What net/http says of a deadline is that the context ended; the
		// cause says which one and how long it was.
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("scrape %s: %w", s, &brief{err})
	}
	return families, nil
}

// brief is an error whose text is short whatever the page put into it: it goes
// to the log.
type brief struct{ error }

func (b *brief) Error() string {
	const most = 1 << 10
	text := b.error.Error()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

func (b *brief) Unwrap() error { return b.error }

func (s *Scraper) scrape(ctx context.Context) ([]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.page, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", Accept)
	if s.cfg.UserAgent != "" {
		req.Header.Set("User-Agent", s.cfg.UserAgent)
	}

	resp, err := s.client.Do(req)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err // the URL is named once, by Scrape
		}
		return nil, err
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the target answered %q, want 200 OK", resp.Status)
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, fmt.Errorf("the page came with Content-Encoding %q, none was asked for", enc)
	}
	format := expfmt.ResponseFormat(resp.Header)
	if t := format.FormatType(); t != expfmt.TypeProtoDelim && t != expfmt.TypeTextPlain {
		return nil, fmt.Errorf("the page has Content-Type %q, want delimited protobuf or text 0.0.4",
			resp.Header.Get("Content-Type"))
	}

	s.body.Reset()
	n, err := s.body.ReadFrom(io.LimitReader(resp.Body, s.cfg.MaxBytes+1))
	defer s.shrink(int(n))
	if err != nil {
		return nil, fmt.Errorf("after %d bytes: %w", n, err)
	}
	if n > s.cfg.MaxBytes {
		return nil, &LimitError{Problem: fmt.Sprintf("the page has more than %d bytes", s.cfg.MaxBytes), Setting: "SCRAPE_MAX_BYTES"}
	}
	return decode(ctx, s.body.Bytes(), format, Limits{Samples: s.cfg.MaxSamples, LabelBytes: s.cfg.MaxLabelBytes})
}

// shrink lets go of the body's memory where the last body, of n bytes, needed
// only a small part of it: one huge page does not weigh for ever.
func (s *Scraper) shrink(n int) {
	if s.body.Cap() > 1<<20 && s.body.Cap() > 4*n {
		s.body = bytes.Buffer{}
	}
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
func (s *Scraper) Close() { s.client.CloseIdleConnections() }

// String is the target's URL without what may be secret in it.
func (s *Scraper) String() string { return Redact(s.cfg.URL) }

// Redact is a target's URL without what may be secret in it: user, password,
// query and fragment.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return "(not a URL)"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if u.User != nil {
		shown.User = url.User("xxxxx")
	}
	if u.RawQuery != "" {
		shown.RawQuery = "xxxxx"
	}
	return shown.String()
}

// LimitError says that a page went beyond a limit.
type LimitError struct {
	// Problem names the limit and its value.
	Problem string
	// Setting is the setting of the program that raises it; "" for the limit
	// of memory, which no page of metrics reaches.
	Setting string
	// Err is context.DeadlineExceeded where the limit is one of time.
	Err error
}

func (e *LimitError) Error() string {
	if e.Setting == "" {
		return e.Problem
	}
	return fmt.Sprintf("%s; %s raises the limit", e.Problem, e.Setting)
}

func (e *LimitError) Unwrap() error { return e.Err }
