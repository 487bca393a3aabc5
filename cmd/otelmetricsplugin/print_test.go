package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// object is a JSON object of OTLP.
type object = map[string]any

// printed runs print on a recorded page and returns the request, with what
// differs from run to run replaced by words: the scrape's time and duration,
// the host's name.
func printed(t *testing.T, page string) object {
	t.Helper()
	began := time.Now()
	p := start(t, []string{"OTEL_RESOURCE_ATTRIBUTES=host.name=HOST"}, "print", "--scrape-url="+servePage(t, page))
	if code := p.code(t, 20*time.Second); code != exitDone {
		t.Fatalf("%s: the exit code is %d", page, code)
	}
	ended := time.Now()
	var request object
	if err := json.Unmarshal([]byte(p.stdout.String()), &request); err != nil {
		t.Fatalf("%s: not one JSON object: %v", page, err)
	}
	replaceTimes(request, began, ended)
	for _, m := range metrics(request)["otelmetricsplugin"] {
		if m["name"] == "scrape_duration_seconds" {
			point := m["gauge"].(object)["dataPoints"].([]any)[0].(object)
			if d := point["asDouble"].(float64); d <= 0 || d > 10 {
				t.Errorf("%s: the scrape took %v s", page, d)
			}
			point["asDouble"] = "DURATION"
		}
	}
	return request
}

// replaceTimes replaces each time that lies within the run.
func replaceTimes(v any, began, ended time.Time) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			replaceTimes(item, began, ended)
		}
	case object:
		for key, item := range v {
			if ns, err := strconv.ParseInt(fmt.Sprint(item), 10, 64); err == nil && strings.HasSuffix(key, "imeUnixNano") &&
				ns >= began.UnixNano() && ns <= ended.UnixNano() {
				v[key] = "NOW"
			}
			replaceTimes(item, began, ended)
		}
	}
}

// metrics returns the metrics of a request by the name of their scope.
func metrics(request object) map[string][]object {
	byScope := map[string][]object{}
	for _, rm := range request["resourceMetrics"].([]any) {
		for _, sm := range rm.(object)["scopeMetrics"].([]any) {
			name := sm.(object)["scope"].(object)["name"].(string)
			for _, m := range sm.(object)["metrics"].([]any) {
				byScope[name] = append(byScope[name], m.(object))
			}
		}
	}
	return byScope
}

// layOut writes a request with one line per metric, so that a golden file's
// diff names the metric that changed.
func layOut(t *testing.T, request object) []byte {
	t.Helper()
	line := func(v any) []byte {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(v); err != nil {
			t.Fatal(err)
		}
		return bytes.TrimSpace(b.Bytes())
	}
	var b bytes.Buffer
	for _, rm := range request["resourceMetrics"].([]any) {
		fmt.Fprintf(&b, "resource %s\n", line(rm.(object)["resource"]))
		for _, sm := range rm.(object)["scopeMetrics"].([]any) {
			fmt.Fprintf(&b, "scope %s\n", line(sm.(object)["scope"]))
			for _, m := range sm.(object)["metrics"].([]any) {
				fmt.Fprintf(&b, "%s\n", line(m))
			}
		}
	}
	return b.Bytes()
}

// TestPrintGivesTheGoldenRequest prints each recorded page of a real engine.
// Write the golden files anew with: go test ./cmd/otelmetricsplugin -run Golden -update.
func TestPrintGivesTheGoldenRequest(t *testing.T) {
	for _, page := range pageNames(t) {
		t.Run(page, func(t *testing.T) {
			got := layOut(t, printed(t, page))
			golden := filepath.Join("testdata", "golden", page+".json")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
			for i := range max(len(gotLines), len(wantLines)) {
				g, w := "(nothing)", "(nothing)"
				if i < len(gotLines) {
					g = gotLines[i]
				}
				if i < len(wantLines) {
					w = wantLines[i]
				}
				if g != w {
					t.Fatalf("line %d of %s differs:\n%.2000s\nwant\n%.2000s", i+1, golden, g, w)
				}
			}
		})
	}
}

// TestTextAndProtobufGiveTheSameData compares both forms of the page of one
// engine. Text carries no created timestamps, exemplars and units; and the two
// requests for the pages were made one after the other, so what moves by itself
// has moved.
func TestTextAndProtobufGiveTheSameDataApartFromWhatTextCannotCarry(t *testing.T) {
	for _, engine := range []string{"2010-active", "297-active"} {
		t.Run(engine, func(t *testing.T) {
			forms := map[string]map[string]string{}
			for _, form := range []string{"txt", "pb"} {
				forms[form] = map[string]string{}
				for scope, list := range metrics(printed(t, engine+"."+form)) {
					for _, m := range list {
						name := m["name"].(string)
						removeWhatTextLacks(m)
						if movesByItself(name) {
							removeValues(m)
						}
						text, err := json.Marshal(m)
						if err != nil {
							t.Fatal(err)
						}
						forms[form][scope+" "+name] = string(text)
					}
				}
			}
			names := slices.Sorted(maps.Keys(forms["pb"]))
			if other := slices.Sorted(maps.Keys(forms["txt"])); !slices.Equal(names, other) || len(names) < 80 {
				t.Fatalf("the forms have %d and %d metrics, or different ones", len(names), len(other))
			}
			for _, name := range names {
				if forms["pb"][name] != forms["txt"][name] {
					t.Errorf("%s: protobuf gives\n%.1500s\ntext gives\n%.1500s", name, forms["pb"][name], forms["txt"][name])
				}
			}
		})
	}
}

func removeWhatTextLacks(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			removeWhatTextLacks(item)
		}
	case object:
		delete(v, "startTimeUnixNano")
		delete(v, "exemplars")
		delete(v, "unit")
		for _, item := range v {
			removeWhatTextLacks(item)
		}
	}
}

// movesByItself reports whether a family changes between two reads of the page
// of an idle engine: Go's runtime, the process's own, and the count of reads.
func movesByItself(name string) bool {
	return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "promhttp_")
}

func removeValues(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			removeValues(item)
		}
	case object:
		for _, key := range []string{"asDouble", "asInt", "sum", "count", "bucketCounts", "quantileValues"} {
			delete(v, key)
		}
		for _, item := range v {
			removeValues(item)
		}
	}
}
