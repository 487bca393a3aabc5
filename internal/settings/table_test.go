package settings_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"otelmetricsplugin/internal/settings"
	"otelmetricsplugin/pkg/scrape"
)

var update = flag.Bool("update", false, "write the settings into config.json and docs/settings.md")

// compare holds what the file has between two texts against the table, or
// with -update writes it there.
func compare(t *testing.T, file, after, before, want string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(content), after)
	end := strings.Index(rest, before)
	if !found || end < 0 {
		t.Fatalf("%s does not have %q and then %q", file, after, before)
	}
	if rest[:end] == want {
		return
	}
	if !*update {
		t.Fatalf("%s has after %q\n%s\nwant\n%s\n(go test ./internal/settings -update writes it)", file, after, rest[:end], want)
	}
	if err := os.WriteFile(file, []byte(head+after+want+rest[end:]), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTable_ConfigJSON compares the plugin's configuration with the table:
// `docker plugin set` knows no other variable.
func TestTable_ConfigJSON(t *testing.T) {
	var entries []string
	for _, s := range settings.Table() {
		entries = append(entries, fmt.Sprintf("    {\n      \"name\": %q,\n      \"description\": %q,\n      \"settable\": [\"value\"],\n      \"value\": \"\"\n    }", s.Name, s.Plain()))
	}
	compare(t, "../../config.json", "\"env\": [\n", "\n  ]", strings.Join(entries, ",\n"))
}

func TestTable_Docs(t *testing.T) {
	rows := map[settings.Section]string{}
	for _, s := range settings.Table() {
		names := "`" + s.Name + "`"
		for _, winner := range settings.Table() {
			if winner.Wins == s.Name {
				names += ", `" + winner.Name + "`"
			}
		}
		if s.Wins != "" {
			continue // named beside the one that it wins over
		}
		column := func(text string) string {
			if text != "" {
				text = " " + text
			}
			return text + " |"
		}
		quoted := func(text string) string {
			if text != "" {
				text = "`" + text + "`"
			}
			return text
		}
		flagName := ""
		if s.Flag != "" {
			flagName = "--" + s.Flag
		}
		rows[s.Section] += "|" + column(names) + column(quoted(flagName)) + column(cmp.Or(quoted(s.Default), s.Unset)) + column(s.Meaning) + "\n"
	}
	for section, want := range rows {
		t.Run(string(section), func(t *testing.T) {
			content, err := os.ReadFile("../../docs/settings.md")
			if err != nil {
				t.Fatal(err)
			}
			// From the heading to the rows, which end with an empty line.
			const head = "| variable | flag | default | meaning |\n|---|---|---|---|\n"
			_, rest, _ := strings.Cut(string(content), "\n## "+string(section)+"\n")
			intro, _, found := strings.Cut(rest, head)
			if !found {
				t.Fatalf("docs/settings.md has no table under %s", section)
			}
			compare(t, "../../docs/settings.md", "\n## "+string(section)+"\n"+intro+head, "\n\n", strings.TrimSuffix(want, "\n"))
		})
	}
}

// TestTable_DefaultsOfScrape: the package scrape has defaults of its own for
// those who use it alone; they are the same.
func TestTable_DefaultsOfScrape(t *testing.T) {
	s, err := read(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := scrape.Config{
		URL: s.Scrape.URL, Timeout: scrape.DefaultTimeout,
		MaxBytes: scrape.DefaultMaxBytes, MaxSamples: scrape.DefaultMaxSamples, MaxLabelBytes: scrape.DefaultMaxLabelBytes,
	}
	if s.Scrape != want {
		t.Errorf("the defaults are %+v, want %+v", s.Scrape, want)
	}
}

func TestTable_EachNameAndFlagOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range settings.Table() {
		if s.Meaning == "" || s.Section == "" || (s.Flag != "") != (s.Value != "") || s.Default != "" && s.Unset != "" {
			t.Errorf("%+v is not complete", s)
		}
		for _, name := range []string{s.Name, s.Flag} {
			if name != "" && seen[name] {
				t.Errorf("%s is in the table twice", name)
			}
			seen[name] = true
		}
	}
	for _, name := range settings.Variables() {
		if !seen[name] || slices.Contains([]string{"HTTPS_PROXY", "NO_PROXY"}, name) {
			t.Errorf("the variable %s is not one that is read here", name)
		}
	}
}

func TestSpacesAroundAValueDoNotCount(t *testing.T) {
	s, err := read(map[string]string{"SPOOL_MAX_BYTES": " 1GiB\n", "LOG_LEVEL": "  ", "OTEL_EXPORTER_OTLP_COMPRESSION": "\tzstd "})
	if err != nil {
		t.Fatal(err)
	}
	if s.SpoolMaxBytes != 1<<30 || s.LogLevel != 0 || s.Compression != "zstd" {
		t.Errorf("settings are %+v", s)
	}
}
