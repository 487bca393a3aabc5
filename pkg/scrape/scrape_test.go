package scrape_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/pkg/scrape"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	text      = "text/plain; version=0.0.4; charset=utf-8"
	delimited = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)

// frame is one frame of a delimited protobuf page.
func frame(message string) string {
	return string(protowire.AppendString(nil, message))
}

// decode returns the families of a delimited protobuf exposition.
func decode(t testing.TB, exposition []byte) (families []*dto.MetricFamily) {
	t.Helper()
	families, err := unmarshal(exposition)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func unmarshal(exposition []byte) (families []*dto.MetricFamily, err error) {
	for len(exposition) > 0 {
		message, n := protowire.ConsumeBytes(exposition)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		exposition = exposition[n:]
		family := new(dto.MetricFamily)
		if err := proto.Unmarshal(message, family); err != nil {
			return nil, err
		}
		families = append(families, family)
	}
	return families, nil
}

// serve serves handler over a unix socket and over http, and returns the URL
// of both.
func serve(t testing.TB, handler http.Handler) []string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)

	dir, err := os.MkdirTemp("", "scrape") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "m.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	overUnix := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
	overUnix.Start()
	t.Cleanup(overUnix.Close)
	return []string{"unix://" + socket, server.URL + "/metrics"}
}

func body(contentType, exposition string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, exposition)
	}
}

func newScraper(t testing.TB, cfg scrape.Config) *scrape.Scraper {
	t.Helper()
	s, err := scrape.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestOneGetAsksForDelimitedProtobufAndTakesText(t *testing.T) {
	requests := make(chan *http.Request, 1)
	urls := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		body(text, "# TYPE b gauge\nb 2\n# TYPE a counter\na{x=\"y\"} 1\n")(w, r)
	}))
	for _, url := range urls {
		s := newScraper(t, scrape.Config{URL: url, UserAgent: "test/1"})
		exposition, err := s.Scrape(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		families := decode(t, exposition)
		r := <-requests
		if got := r.Method + " " + r.URL.Path; got != "GET /metrics" {
			t.Errorf("%s: the request was %s", url, got)
		}
		if got := r.Header.Get("Accept"); !strings.HasPrefix(got, "application/vnd.google.protobuf;") || !strings.Contains(got, "text/plain;version=0.0.4") {
			t.Errorf("%s: Accept was %q", url, got)
		}
		if got := r.Header.Get("Accept-Encoding"); got != "" {
			t.Errorf("%s: Accept-Encoding was %q, want none", url, got)
		}
		if got := r.Header.Get("User-Agent"); got != "test/1" {
			t.Errorf("%s: User-Agent was %q", url, got)
		}
		want := []*dto.MetricFamily{
			{Name: proto.String("a"), Type: dto.MetricType_COUNTER.Enum(), Metric: []*dto.Metric{{
				Label:   []*dto.LabelPair{{Name: proto.String("x"), Value: proto.String("y")}},
				Counter: &dto.Counter{Value: proto.Float64(1)},
			}}},
			{Name: proto.String("b"), Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: proto.Float64(2)}}}},
		}
		if !slices.EqualFunc(families, want, func(a, b *dto.MetricFamily) bool { return proto.Equal(a, b) }) {
			t.Errorf("%s: families are %v, want %v", url, families, want)
		}
	}
}

// TestRealPagesAreTheSameFamiliesInBothFormats reads recorded pages of real
// engines in protobuf and in text.
func TestRealPagesAreTheSameFamiliesInBothFormats(t *testing.T) {
	for _, engine := range []string{"2010-active", "297-active"} {
		names := map[string][]string{}
		for ext, contentType := range map[string]string{"txt": text, "pb": delimited} {
			page, err := os.ReadFile(filepath.Join("..", "..", "testdata", "pages", engine+"."+ext))
			if err != nil {
				t.Fatal(err)
			}
			s := newScraper(t, scrape.Config{URL: serve(t, body(contentType, string(page)))[0]})
			exposition, err := s.Scrape(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range decode(t, exposition) {
				names[ext] = append(names[ext], fmt.Sprintf("%s %s %d", f.GetName(), f.GetType(), len(f.GetMetric())))
			}
			if !slices.IsSorted(names[ext]) {
				t.Errorf("%s.%s: families are not sorted by name", engine, ext)
			}
		}
		if len(names["pb"]) < 80 || !slices.Equal(names["txt"], names["pb"]) {
			t.Errorf("%s: %d families in text, %d in protobuf, or different ones", engine, len(names["txt"]), len(names["pb"]))
		}
	}
}

func TestWhatIsNotAnExpositionIsAnErrorThatSaysWhy(t *testing.T) {
	var protobuf strings.Builder
	for range 3 {
		if _, err := protodelim.MarshalTo(&protobuf, &dto.MetricFamily{
			Name: proto.String("a"), Type: dto.MetricType_GAUGE.Enum(),
			Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: proto.Float64(1)}}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	histogram := "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n"

	for name, test := range map[string]struct {
		handler http.Handler
		cfg     scrape.Config
		want    string       // what follows "scrape TARGET: "
		limit   scrape.Limit // of a LimitError
	}{
		"status": {
			handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
			want:    `the target answered "500 Internal Server Error", want 200 OK`,
		},
		"redirect": {
			handler: http.RedirectHandler("/elsewhere", http.StatusFound),
			want:    `the target answered "302 Found", want 200 OK`,
		},
		"content type": {
			handler: body("text/html", "<html>"),
			want:    `the exposition has Content-Type "text/html", want delimited protobuf or text 0.0.4`,
		},
		"openmetrics": {
			handler: body("application/openmetrics-text; version=1.0.0", "# EOF\n"),
			want:    `the exposition has Content-Type "application/openmetrics-text; version=1.0.0", want delimited protobuf or text 0.0.4`,
		},
		"compressed unasked, a bomb": {
			handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", text)
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				for _, err := z.Write(nil); err == nil; {
					_, err = z.Write(make([]byte, 1<<20))
				}
			}),
			want: `the exposition has Content-Encoding "gzip", which was not asked for`,
		},
		"too many bytes": {
			handler: body(text, "a 1\n"),
			cfg:     scrape.Config{MaxBytes: 3},
			want:    "the exposition has more than 3 bytes",
			limit:   scrape.LimitBytes,
		},
		"endless body": {
			handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", text)
				for {
					if _, err := io.WriteString(w, "a 1\n"); err != nil {
						return
					}
				}
			}),
			cfg:   scrape.Config{MaxBytes: 1 << 20},
			want:  "the exposition has more than 1048576 bytes",
			limit: scrape.LimitBytes,
		},
		"too many samples in text": {
			handler: body(text, "# HELP h not counted\n"+histogram+"\n"),
			cfg:     scrape.Config{MaxSamples: 3},
			want:    "the exposition has more than 3 samples",
			limit:   scrape.LimitSamples,
		},
		"too many samples in protobuf": {
			handler: body(delimited, protobuf.String()),
			cfg:     scrape.Config{MaxSamples: 2},
			want:    "the exposition has more than 2 samples",
			limit:   scrape.LimitSamples,
		},
		"label too long": {
			handler: body(text, `a{name="value"} 1`+"\n"),
			cfg:     scrape.Config{MaxLabelBytes: 8},
			want:    `a label of family "a", name and value, has more than 8 bytes`,
			limit:   scrape.LimitLabelBytes,
		},
		"family name too long": {
			handler: body(text, "long_name 1\n"),
			cfg:     scrape.Config{MaxLabelBytes: 8},
			want:    "the name of a family has more than 8 bytes",
			limit:   scrape.LimitLabelBytes,
		},
		"too much memory in text": {
			handler: body(text, strings.Repeat("a 1\n", 64<<10)),
			want:    "parsing the exposition would take more than 16777216 bytes of memory",
			limit:   scrape.LimitMemory,
		},
		"label of a later name too long in protobuf": {
			handler: body(delimited, frame(sub(4, sub(1, sub(1, "name")+sub(2, "value")))+sub(1, "a"))),
			cfg:     scrape.Config{MaxLabelBytes: 8},
			want:    `a label of family "a", name and value, has more than 8 bytes`,
			limit:   scrape.LimitLabelBytes,
		},
		"family name too long in protobuf": {
			handler: body(delimited, frame(sub(1, "long_name"))),
			cfg:     scrape.Config{MaxLabelBytes: 8},
			want:    "the name of a family has more than 8 bytes",
			limit:   scrape.LimitLabelBytes,
		},
		"text syntax": {
			handler: body(text, "good 1\nbad{ 1\n"),
			want:    `text format parsing error in line 2: invalid label name for metric "bad"`,
		},
		"protobuf cut short": {
			handler: body(delimited, protobuf.String()[:protobuf.Len()-1]),
			want:    fmt.Sprintf("family 3, at byte %d of %d, is truncated or has an invalid length", protobuf.Len()/3*2, protobuf.Len()-1),
		},
		"protobuf with a length of 2^62": {
			handler: body(delimited, "\xff\xff\xff\xff\xff\xff\xff\xff\x3f"),
			want:    "family 1, at byte 0 of 9, is truncated or has an invalid length",
		},
		"protobuf that is not valid": {
			handler: body(delimited, frame(sub(1, "a"))+frame(sub(1, "b")+sub(4, sub(2, "\x09\x00")))),
			want:    "family 2, at byte 4 of 14, is not a valid protobuf message",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, url := range serve(t, test.handler) {
				test.cfg.URL = url
				exposition, err := newScraper(t, test.cfg).Scrape(t.Context())
				if want := "scrape " + url + ": " + test.want; err == nil || err.Error() != want {
					t.Errorf("the error is\n%v, want\n%s", err, want)
				}
				var limit *scrape.LimitError
				if got, want := errors.As(err, &limit), strings.Contains(test.want, " more than "); got != want {
					t.Errorf("the error is a LimitError: %t, want %t", got, want)
				}
				if limit != nil && (limit.Limit != test.limit || !strings.Contains(test.want, fmt.Sprint(" ", limit.Max, " "))) {
					t.Errorf("the limit is %s, %d", limit.Limit, limit.Max)
				}
				if exposition != nil {
					t.Errorf("%d bytes beside the error", len(exposition))
				}
			}
		})
	}
}

func TestATargetThatHangsEndsWithTheTimeout(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"before the header": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a byte at a time": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", text)
			byteDue := time.NewTicker(time.Millisecond)
			defer byteDue.Stop()
			for {
				select {
				case <-byteDue.C:
					_, _ = io.WriteString(w, "\n")
					_ = http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				}
			}
		},
		"in the body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", text)
			_, _ = io.WriteString(w, "a 1\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, url := range serve(t, handler) {
				s := newScraper(t, scrape.Config{URL: url, Timeout: 50 * time.Millisecond})
				_, err := s.Scrape(t.Context())
				if want := "scrape " + url + ": no complete exposition within 50ms"; err == nil || err.Error() != want {
					t.Errorf("the error is %v, want %s", err, want)
				}
				var limit *scrape.LimitError
				if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &limit) || limit.Limit != scrape.LimitTime || limit.Max != int64(50*time.Millisecond) {
					t.Errorf("the error is not context.DeadlineExceeded or not a LimitError: %v", err)
				}
			}
		})
	}
}

func TestNobodyListeningIsRefusedAndHealsByItself(t *testing.T) {
	dir, err := os.MkdirTemp("", "scrape")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "m.sock")
	s := newScraper(t, scrape.Config{URL: "unix://" + socket})

	if _, err := s.Scrape(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a socket the error is %v", err)
	}
	if err := s.Dial(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a socket the probe's error is %v", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: body(text, "a 1\n")}}
	server.Start()
	defer server.Close()
	if _, err := s.Scrape(t.Context()); err != nil {
		t.Errorf("with a socket: %v", err)
	}
	if err := s.Dial(t.Context()); err != nil {
		t.Errorf("with a socket: %v", err)
	}
}

func TestAURLThatCannotBeScrapedIsRefused(t *testing.T) {
	for _, url := range []string{
		"", "metrics.sock", "/run/docker/metrics.sock", "unix://metrics.sock", "unix:metrics.sock", "unix:///a?b",
		"tcp://localhost:9323", "localhost:9323", "http://", "http:///metrics",
	} {
		if _, err := scrape.New(scrape.Config{URL: url}); err == nil ||
			err.Error() != "invalid URL of the target: want unix:///path/of/socket or http://host:port/metrics" {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := scrape.New(scrape.Config{URL: "http://user:secret@host:port\x00/"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a URL that does not parse: %v", err)
	}
}

func TestAPasswordIsSentAndNeverShown(t *testing.T) {
	auth := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		auth <- password
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	s := newScraper(t, scrape.Config{URL: "http://me:secret@" + server.Listener.Addr().String() + "/metrics"})
	_, err := s.Scrape(t.Context())
	if got := <-auth; got != "secret" {
		t.Errorf("the password sent was %q", got)
	}
	if want := "scrape http://xxxxx@" + server.Listener.Addr().String() + "/metrics: EOF"; err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	for want, cfg := range map[string]scrape.Config{
		"invalid URL of the target: want unix:///path/of/socket or http://host:port/metrics": {},
		"negative limit: Timeout -1ns, MaxBytes 0, MaxSamples 0, MaxLabelBytes 0":            {URL: "unix:///m.sock", Timeout: -1},
		"negative limit: Timeout 0s, MaxBytes -1, MaxSamples -2, MaxLabelBytes -3":           {URL: "unix:///m.sock", MaxBytes: -1, MaxSamples: -2, MaxLabelBytes: -3},
	} {
		if _, err := scrape.New(cfg); err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

// TestOneExpositionAfterAnother scrapes pages of different sizes and formats with
// one Scraper, over one connection.
func TestOneExpositionAfterAnother(t *testing.T) {
	pages := []struct {
		contentType, page string
		families          int
	}{
		{delimited, string(synthetic(t, 100_000)), 300},
		{delimited, string(synthetic(t, 500)), 3},
		{text, "a 1\nb 1\n", 2},
		{delimited, "\xff", -1},
		{delimited, frame(sub(1, "a")), 1},
		{text, "{", -1},
		{text, strings.Repeat("#\n", 1<<20) + "a 1\n", 1},
		{delimited, "", 0},
	}
	var next atomic.Int64
	var connections sync.Map
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections.Store(r.RemoteAddr, true)
		page := pages[next.Load()]
		body(page.contentType, page.page)(w, r)
	})
	for _, url := range serve(t, handler) {
		s := newScraper(t, scrape.Config{URL: url})
		for i := range pages {
			next.Store(int64(i))
			exposition, err := s.Scrape(t.Context())
			if (err != nil) != (pages[i].families < 0) {
				t.Fatalf("page %d: error %v", i, err)
			}
			if families := decode(t, exposition); err == nil && len(families) != pages[i].families {
				t.Errorf("page %d has %d families, want %d", i, len(families), pages[i].families)
			}
		}
	}
	n := 0
	connections.Range(func(any, any) bool { n++; return true })
	if n != 2 {
		t.Errorf("%d remote addresses, want one for each URL", n)
	}
}

// TestAScrapeAllocatesNothingForEachSample compares a small page and a large one,
// the second time that each is scraped.
func TestAScrapeAllocatesNothingForEachSample(t *testing.T) {
	for _, samples := range []int{500, 100_000} {
		s := newScraper(t, scrape.Config{URL: serve(t, body(delimited, string(synthetic(t, samples))))[0]})
		scrapeOnce := func() {
			if _, err := s.Scrape(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		scrapeOnce()
		scrapeOnce()
		if n := allocated(func() { scrapeOnce(); scrapeOnce() }); n > 128<<10 {
			t.Errorf("%d bytes allocated for two scrapes of %d samples", n, samples)
		}
	}
}

// BenchmarkScrape scrapes over a unix socket what a target has ready, in chunks
// of 32 KiB: time and allocations are those of the Scraper, and of the kernel.
func BenchmarkScrape(b *testing.B) {
	for name, page := range map[string][]byte{"297-active": recorded(b, "297-active.pb"), "500": synthetic(b, 500), "100000": synthetic(b, 100_000)} {
		b.Run(name, func(b *testing.B) {
			var response bytes.Buffer
			fmt.Fprintf(&response, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nDate: Wed, 25 Nov 2026 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n", delimited)
			chunked := httputil.NewChunkedWriter(&response)
			for chunk := range slices.Chunk(page, 32<<10) {
				_, _ = chunked.Write(chunk)
			}
			_ = chunked.Close()
			response.WriteString("\r\n")

			s := newScraper(b, scrape.Config{URL: respondAlways(b, response.Bytes())})
			if _, err := s.Scrape(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(page)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Scrape(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// respondAlways answers each request of one connection with the same bytes, and
// does not allocate for it.
func respondAlways(b *testing.B, response []byte) (url string) {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "m.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	b.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) > len("\r\n") {
				continue
			}
			if _, err := conn.Write(response); err != nil {
				return
			}
		}
	}()
	return "unix://" + socket
}
