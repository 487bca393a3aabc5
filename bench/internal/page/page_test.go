package page

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// TestSet_AsPromhttp holds what the server answers against what promhttp answers for the same registry.
func TestSet_AsPromhttp(t *testing.T) {
	const samples, scrapes = 500, 3
	set, err := Encode(samples, scrapes)
	if err != nil {
		t.Fatal(err)
	}
	for _, accept := range []string{
		"text/plain;version=0.0.4",
		"",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.8,text/plain;version=0.0.4;q=0.5",
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2",
	} {
		t.Run(accept, func(t *testing.T) {
			server := serve(t)
			server.Show(set)
			reference := New(samples)
			want := httptest.NewServer(promhttp.HandlerFor(reference.Registry, promhttp.HandlerOpts{DisableCompression: true}))
			defer want.Close()
			for range scrapes {
				reference.Move()
				gotType, got := get(t, server.TCP, accept)
				wantType, want := get(t, want.URL, accept)
				if gotType != wantType {
					t.Errorf("Content-Type is %q, promhttp's %q", gotType, wantType)
				}
				if timeless(t, gotType, got) != timeless(t, wantType, want) {
					t.Errorf("the body of %d bytes is not promhttp's of %d", len(got), len(want))
				}
			}
			if server.Served() != scrapes {
				t.Errorf("served %d, want %d", server.Served(), scrapes)
			}
		})
	}
}

// timeless returns text as it is, and protobuf without the created timestamps, which differ from run to run.
func timeless(t *testing.T, contentType, body string) string {
	t.Helper()
	if strings.HasPrefix(contentType, "text/") {
		return body
	}
	families, err := Decode(strings.NewReader(body), formatProtobuf)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if c := m.GetCounter(); c != nil {
				c.CreatedTimestamp = nil
			}
			if h := m.GetHistogram(); h != nil {
				h.CreatedTimestamp = nil
			}
		}
		if err := expfmt.NewEncoder(&b, formatProtobuf).Encode(family); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestPage_Composition(t *testing.T) {
	for _, samples := range []int{500, 10_000} {
		set, err := Encode(samples, 1)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "page.pb")
		if err := os.WriteFile(name, set.Protobuf[0].Bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := ReadFile(name) // counts lines and metrics
		if err != nil {
			t.Fatal(err)
		}
		if read.Samples != samples || set.Samples != samples {
			t.Errorf("%d samples: the page has %d and says %d", samples, read.Samples, set.Samples)
		}
		if read.Points != set.Points {
			t.Errorf("%d samples: the page has %d data points and says %d", samples, read.Points, set.Points)
		}
		if string(read.Text[0].Bytes) != string(set.Text[0].Bytes) {
			t.Errorf("%d samples: both formats differ", samples)
		}
		histograms := float64(len(New(samples).histograms)*histogramSamples) / float64(samples)
		if math.Abs(histograms-0.45) > 0.02 {
			t.Errorf("%d samples: %.3f of them are histograms'", samples, histograms)
		}
	}
}

func TestServer_LivePageNumbersAndChurns(t *testing.T) {
	server := serve(t)
	server.ShowLive(NewChurn(100, 10), 3, 10)
	_, first := get(t, server.TCP, "")
	_, second := get(t, server.TCP, "")
	if n := server.Numbers(); fmt.Sprint(n) != "[1 2]" {
		t.Errorf("served %v", n)
	}
	count := func(text string) (tasks int) {
		for i := range 30 {
			if strings.Contains(text, fmt.Sprintf("task-%08x", i)) {
				tasks++
			}
		}
		return tasks
	}
	if count(first) != 10 || count(second) != 10 {
		t.Errorf("%d tasks, then %d; want 10", count(first), count(second))
	}
	if strings.Contains(second, "task-00000005") || !strings.Contains(second, "task-00000006") {
		t.Error("after two scrapes with 3 replaced each, the first task must be number 6")
	}
	families, err := NewClient(server.Unix).Families(t.Context())
	if err != nil || len(families) == 0 {
		t.Errorf("over the unix socket: %d families, %v", len(families), err)
	}
}

func serve(t *testing.T) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "page") // t.TempDir is too long for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	server, err := Serve(context.Background(), filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

func get(t *testing.T, url, accept string) (contentType, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.Header.Get("Content-Type"), string(b)
}
