package metricsdoc

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/internal/otlp"
	"otelmetricsplugin/pkg/scrape"
	"otelmetricsplugin/pkg/translate"
)

const document = "../../docs/metrics.md"

func readDocument(t *testing.T) (text string, families, own []row) {
	t.Helper()
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	families, own, err = parse(string(content))
	if err != nil {
		t.Fatalf("docs/metrics.md: %v", err)
	}
	return string(content), families, own
}

// page is a recorded page: its families as rows would have them.
type page struct {
	version  version
	families []row
}

// readPages reads every recorded page, in both formats.
func readPages(t *testing.T) map[string]page {
	t.Helper()
	formats := map[string]expfmt.FormatType{".pb": expfmt.TypeProtoDelim, ".txt": expfmt.TypeTextPlain}
	files, err := filepath.Glob("../../testdata/pages/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded pages: %v", err)
	}
	pages := map[string]page{}
	for _, file := range files {
		format, ok := formats[filepath.Ext(file)]
		if !ok {
			t.Fatalf("%s is in no known format", file)
		}
		p, err := newPage(scrapeFile(t, file, expfmt.NewFormat(format)))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		pages[filepath.Base(file)] = p
	}
	return pages
}

// scrapeFile returns the exposition that a scrape makes of a file.
func scrapeFile(t *testing.T, file string, format expfmt.Format) []byte {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", string(format))
		http.ServeFile(w, r, file)
	}))
	defer server.Close()
	scraper, err := scrape.New(scrape.Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer scraper.Close()
	exposition, err := scraper.Scrape(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return exposition
}

func newPage(exposition []byte) (p page, err error) {
	var families []*dto.MetricFamily
	for r := bytes.NewReader(exposition); r.Len() > 0; {
		f := &dto.MetricFamily{}
		if err := protodelim.UnmarshalFrom(r, f); err != nil {
			return page{}, err
		}
		families = append(families, f)
	}
	units := map[string]string{}
	w := otlp.NewWriter(math.MaxInt, func(request []byte, _ int) {
		var req colmetricpb.ExportMetricsServiceRequest
		err = proto.Unmarshal(request, &req)
		for _, rm := range req.GetResourceMetrics() {
			for _, sm := range rm.GetScopeMetrics() {
				for _, m := range sm.GetMetrics() {
					units[m.GetName()] = m.GetUnit()
				}
			}
		}
	})
	translate.New(translate.Config{}).Translate(exposition, time.Now(), w)
	w.Close()
	if err != nil {
		return page{}, err
	}
	for _, f := range families {
		r := row{name: f.GetName(), typ: strings.ToLower(f.GetType().String()), unit: units[f.GetName()]}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains(r.labels, l.GetName()) {
					r.labels = append(r.labels, l.GetName())
				}
				if f.GetName() == "engine_daemon_engine_info" && l.GetName() == "version" {
					if p.version, err = parseVersion(l.GetValue()); err != nil {
						return page{}, err
					}
				}
			}
		}
		slices.Sort(r.labels)
		p.families = append(p.families, r)
	}
	if p.version == nil {
		return page{}, fmt.Errorf("engine_daemon_engine_info does not tell the engine's version")
	}
	return p, nil
}

// hold returns what rows say wrongly of p.
func hold(rows []row, p page) (wrong []string) {
	sayf := func(r *row, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("line %d: %s ", r.line, r.name)+fmt.Sprintf(format, args...))
	}
	for _, f := range p.families {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == f.name })
		if i < 0 {
			f.since = []versions{{first: p.version[:min(2, len(p.version))]}}
			wrong = append(wrong, fmt.Sprintf("%s has no row, add\n%v", f.name, &f))
			continue
		}
		r := &rows[i]
		if r.typ != f.typ {
			sayf(r, "is a %s, not a %s", f.typ, r.typ)
		}
		// Hardly any family declares a unit; the others' is a reader's.
		if f.unit != "" && r.unit != f.unit {
			sayf(r, "has the unit %q, not %q", f.unit, r.unit)
		}
		if !slices.Equal(r.labels, f.labels) {
			sayf(r, "has the labels %q, not %q", f.labels, r.labels)
		}
		if !r.in(p.version) {
			sayf(r, "is there in %v already, or still", p.version)
		}
		if r.fromSource {
			sayf(r, "is on a page of %v: strike (from source)", p.version)
		}
	}
	for i := range rows {
		r := &rows[i]
		if r.in(p.version) && r.condition == "" && !r.fromSource &&
			!slices.ContainsFunc(p.families, func(f row) bool { return f.name == r.name }) {
			sayf(r, "is not there in %v: correct the versions or name the condition", p.version)
		}
	}
	return wrong
}

func TestEveryFamilyOfEveryRecordedPageIsDescribedRightly(t *testing.T) {
	_, rows, _ := readDocument(t)
	for name, p := range readPages(t) {
		for _, w := range hold(rows, p) {
			t.Errorf("testdata/pages/%s, docs/metrics.md %s", name, w)
		}
	}
}

func TestEveryRowIsOnARecordedPageOrFromSource(t *testing.T) {
	_, rows, _ := readDocument(t)
	seen := map[string]bool{}
	for _, p := range readPages(t) {
		for _, f := range p.families {
			seen[f.name] = true
		}
	}
	for _, r := range rows {
		if !seen[r.name] && !r.fromSource {
			t.Errorf("docs/metrics.md line %d: %s is on no recorded page: remove the row, or mark it (from source)", r.line, r.name)
		}
	}
}

// A unit in a name is the number's, _total or not. The pages of cgroup
// statistics that are counted in pages and named bytes have no rows.
func TestUnitsAreThoseOfTheNames(t *testing.T) {
	_, families, own := readDocument(t)
	for _, r := range slices.Concat(families, own) {
		name := strings.TrimSuffix(r.name, "_total")
		for suffix, unit := range map[string]string{"_seconds": "s", "_bytes": "By", "_microseconds": "us"} {
			if strings.HasSuffix(name, suffix) && r.unit != unit {
				t.Errorf("docs/metrics.md line %d: %s has the unit %q, not %q", r.line, r.name, unit, r.unit)
			}
		}
	}
}

var (
	queries    = regexp.MustCompile("(?s)```promql\n(.*?)```")
	comment    = regexp.MustCompile(`(?m)^#.*$`)
	rates      = regexp.MustCompile(`\b(?:rate|increase)\(\{?"?([\w.]+)`)
	identifier = regexp.MustCompile(`[A-Za-z_][\w.]*[_.]\w+`)
	quoted     = regexp.MustCompile(`=~?"[^"]*"`)
)

// TestQueriesAreOfMetricsThatExist holds every name in a query against the
// tables, and lets only counters have rates.
func TestQueriesAreOfMetricsThatExist(t *testing.T) {
	text, families, own := readDocument(t)
	known := map[string]bool{"histogram_quantile": true, "group_left": true}
	hasRate := map[string]bool{}
	for _, r := range slices.Concat(families, own) {
		for _, l := range r.labels {
			known[l] = true
		}
		parts := []string{""}
		switch r.typ {
		case "histogram":
			parts = []string{"_bucket", "_count", "_sum"}
		case "summary":
			parts = []string{"", "_count", "_sum"}
		}
		for _, part := range parts {
			known[r.name+part] = true
			hasRate[r.name+part] = part != "" || r.typ == "counter" || strings.Contains(r.text, "a counter in all but type")
		}
	}
	blocks := queries.FindAllStringSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("docs/metrics.md has no query")
	}
	for _, block := range blocks {
		query := quoted.ReplaceAllString(comment.ReplaceAllString(block[1], ""), "")
		for _, name := range identifier.FindAllString(query, -1) {
			if !known[name] {
				t.Errorf("%s is in a query and in no table:\n%s", name, block[1])
			}
		}
		for _, m := range rates.FindAllStringSubmatch(query, -1) {
			if known[m[1]] && !hasRate[m[1]] {
				t.Errorf("%s is no counter and has no rate:\n%s", m[1], block[1])
			}
		}
	}
}

func TestAWrongRowIsFound(t *testing.T) {
	good := "| `a_total` | counter | things | `x`, `y` | 20.10 | ... it tells | Nothing |"
	for _, test := range []struct {
		name, row, want string
	}{
		{"right", good, ""},
		{"none", "", "a_total has no row, add\n| `a_total` | counter | — | `x`, `y` | 27.5 | ... | ... |"},
		{"type", "| `a_total` | gauge | — | `x`, `y` | 20.10 | it tells | Nothing |", "line 3: a_total is a counter, not a gauge"},
		{"label too few", "| `a_total` | counter | — | `x` | 20.10 | it tells | Nothing |", `line 3: a_total has the labels ["x" "y"], not ["x"]`},
		{"since later", "| `a_total` | counter | — | `x`, `y` | 28.0 | it tells | Nothing |", "line 3: a_total is there in 27.5.1 already, or still"},
		{"gone", "| `a_total` | counter | — | `x`, `y` | 20.10–25.0.16 and 26.0–27.4 | it tells | Nothing |", "line 3: a_total is there in 27.5.1 already, or still"},
		{"still there", "| `a_total` | counter | — | `x`, `y` | 26.0–27.5 | it tells | Nothing |", ""},
		{"there again", "| `a_total` | counter | — | `x`, `y` | 25.0.17–25.0 and 27.5 | it tells | Nothing |", ""},
		{"recorded", "| `a_total` | counter | — | `x`, `y` | 20.10 (from source) | it tells | Nothing |", "line 3: a_total is on a page of 27.5.1: strike (from source)"},
		{"another one", good + "\n| `b` | gauge | By | — | 20.10 | it tells | Nothing |", "line 4: b is not there in 27.5.1: correct the versions or name the condition"},
		{"another one's condition", good + "\n| `b` | gauge | By | — | 20.10; on Sundays | it tells | Nothing |", ""},
		{"another one, gone", good + "\n| `b` | gauge | By | — | 20.10 only | it tells | Nothing |", ""},
		{"another one, later", good + "\n| `b` | gauge | By | — | 28.0 | it tells | Nothing |", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			rows, _, err := parse("| " + strings.Join(familyHeader, " | ") + " |\n|---|---|---|---|---|---|---|\n" + test.row)
			if err != nil {
				t.Fatal(err)
			}
			p := page{version: version{27, 5, 1}, families: []row{{name: "a_total", typ: "counter", labels: []string{"x", "y"}}}}
			if have := strings.Join(hold(rows, p), "\n"); have != test.want {
				t.Errorf("have %s\nwant %s", have, test.want)
			}
		})
	}
}

func TestWhatIsNoTableOfMetricsIsRefused(t *testing.T) {
	header := "| " + strings.Join(familyHeader, " | ") + " |\n|---|---|---|---|---|---|---|\n"
	for _, test := range []struct{ document, want string }{
		{"| Family | Type |\n|---|---|\n", `line 1: columns ["Family" "Type"], want ["Family" "Type" "Unit" "Labels" "Since" "What it tells" "When it moves"] or ["Metric" "Type" "Unit" "Attributes" "What it tells" "When it moves"]`},
		{header + "| `a` | gauge | By |", "line 3: 3 cells, want 7"},
		{header + "| `a` | gauge | By | — | 20.10 | ... | Nothing |", `line 3: "What it tells" is empty; write — for none`},
		{header + "| a | gauge | By | — | 20.10 | it tells | Nothing |", "line 3: a is no name in backquotes"},
		{header + "| `a` | gauge | By | `y`, `x` | 20.10 | it tells | Nothing |", "line 3: the labels of a are not sorted"},
		{header + "| `a` | gauge | By | — | yore | it tells | Nothing |", `line 3: "yore" is no range of versions`},
		{header + "| `a` | gauge | By | — | 20.10– and 23.0.x | it tells | Nothing |", `line 3: "23.0.x" is no range of versions`},
		{header + "| `a` | gauge | By | — | 28.0–27.4 | it tells | Nothing |", `line 3: "28.0–27.4" ends before it begins`},
		{header + "| `a` | gauge | By | — | 20.10 | it tells | Nothing |\n| `a` | gauge | By | — | 20.10 | it tells | Nothing |", "line 4: a has a row on line 3 already"},
	} {
		if _, _, err := parse(test.document); err == nil || err.Error() != test.want {
			t.Errorf("have %v\nwant %s", err, test.want)
		}
	}
}
