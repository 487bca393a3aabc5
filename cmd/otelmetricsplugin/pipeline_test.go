package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"otelmetricsplugin/internal/settings"
	"otelmetricsplugin/pkg/scrape"
)

// TestPipeline_WhatCannotBeBuiltIsAnError: and what was built before is closed.
func TestPipeline_WhatCannotBeBuiltIsAnError(t *testing.T) {
	target := scrape.Config{URL: "unix:///run/docker/metrics.sock"}
	for want, s := range map[string]*settings.Settings{
		"invalid URL of the target": {},
		"connection to dns:///%":    {Scrape: target, Endpoint: settings.Endpoint{Target: "dns:///%"}},
		"MaxBytes":                  {Scrape: target, Endpoint: settings.Endpoint{Target: "dns:///a:1"}, SpoolMaxBytes: -1},
		"a positive Interval":       {Scrape: target, Endpoint: settings.Endpoint{Target: "dns:///a:1"}},
	} {
		p, err := newPipeline(s, slog.New(slog.DiscardHandler), true)
		if p != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v, want an error with %q", p, err, want)
		}
	}
	p, err := newPipeline(&settings.Settings{Scrape: target, Endpoint: settings.Endpoint{Target: "dns:///a:1"}, Interval: time.Hour}, slog.New(slog.DiscardHandler), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}
