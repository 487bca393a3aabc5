//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"otelmetricsplugin/bench/internal/page"
	"otelmetricsplugin/bench/internal/sink"
)

// measureMemory runs the cases in which memory is what counts.
func (b *bench) measureMemory(ctx context.Context, r *report) error {
	if err := b.hundredScrapes(ctx, r); err != nil {
		return err
	}
	return b.largePage(ctx, r)
}

// hundredScrapes runs 100 scrapes of each page that was recorded on a busy Swarm manager, and of a page of 100,000 samples.
// The processes run at the same time, since their memory does not depend on each other.
func (b *bench) hundredScrapes(ctx context.Context, r *report) error {
	const scrapes, large = 100, 100_000
	names, err := filepath.Glob(filepath.Join(b.root, "testdata", "pages", "*active*.pb"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	progress("%d scrapes of recorded pages and of %d samples", scrapes, large)
	var group sync.WaitGroup
	defer group.Wait()
	for _, name := range names {
		set, err := page.ReadFile(name)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("recorded page %s, %d samples", strings.TrimSuffix(filepath.Base(name), ".pb"), set.Samples)
		if err := b.residentAfter(ctx, r, &group, scrapes, what, set, pluginGzip, collectorGzip); err != nil {
			return err
		}
	}
	set, err := page.Encode(large, 5)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d samples", set.Samples)
	return b.residentAfter(ctx, r, &group, scrapes, what, set, pluginPlain, pluginGzip)
}

// residentAfter starts a run of so many scrapes of a page for each of the programs, and reports their memory.
func (b *bench) residentAfter(ctx context.Context, r *report, group *sync.WaitGroup, scrapes int, what string, set *page.Set, names ...string) error {
	for _, peer := range wanted(b.peers) {
		if !slices.Contains(names, peer.name) {
			continue
		}
		s, err := newStation(ctx, b.dir, nil)
		if err != nil {
			return err
		}
		group.Go(func() {
			defer s.close()
			got, err := b.measure(ctx, s, peer, plan{set: set, interval: time.Second, warm: 1, scrapes: scrapes - 1})
			r.addMemory(memoryCase{
				program: peer.name, what: fmt.Sprintf("%s, after %d scrapes", what, scrapes),
				rss: got.rss, peak: got.peak, err: err,
			})
		})
	}
	return nil
}

// million is the size of the largest page.
const million = 1_000_000

// largePage sends a page of a million samples to a receiver with the default limit, and then one of 500 for a minute.
func (b *bench) largePage(ctx context.Context, r *report) error {
	const scrapes, interval, shrunk = 3, 10 * time.Second, time.Minute
	progress("a page of a million samples, then of 500 for a minute")
	if b.large == nil {
		set, err := page.Encode(million, scrapes)
		if err != nil {
			return err
		}
		b.large = set
	}
	large := *b.large
	large.Text = nil
	small, err := page.Encode(500, 30)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	for _, peer := range wanted(b.peers) {
		if !strings.HasPrefix(peer.name, pluginPlain) {
			continue
		}
		s, err := newStation(ctx, b.dir, b.observer())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		s.server.Show(&large)
		process, err := peer.start(ctx, s, b.programs, interval)
		if err != nil {
			cancel()
			return err
		}
		slowest, sent, err := delivery(ctx, s, peer, &large, process.Done(), scrapes)
		s.server.Show(small) // only this program's: the next one has the CPU to itself from here on
		full, statusErr := process.Status()
		c := memoryCase{
			program: peer.name,
			what:    fmt.Sprintf("1M samples, %d scrapes, each delivered whole within %.1f s in requests of at most 4 MiB", scrapes, slowest.Seconds()),
			rss:     full.RSS, peak: full.Peak, err: errors.Join(err, statusErr),
		}
		if c.err == nil {
			progress("%s: %v, %d requests, peak %d MiB", peer.name, slowest, sent.Requests, full.Peak>>20)
		} else {
			progress("%s: %v; it said:\n%s", peer.name, c.err, process.Log())
		}
		r.addMemory(c)
		group.Go(func() {
			defer s.close()
			defer cancel()
			defer func() { _ = process.Stop(10 * time.Second) }()
			if c.err != nil {
				return
			}
			err := sleep(ctx, shrunk)
			status, statusErr := process.Status()
			if s.server.Served() < 5 {
				err = errors.Join(err, fmt.Errorf("scraped the small page %d times only", s.server.Served()))
			}
			r.addMemory(memoryCase{
				program: peer.name, what: "a minute after that page shrank to 500 samples",
				rss: status.RSS, peak: status.Peak, err: errors.Join(err, statusErr),
			})
		})
	}
	return ctx.Err()
}

// delivery waits until so many pages have arrived whole, and returns the longest time from the start of a scrape until its
// last data point arrived.
func delivery(ctx context.Context, s *station, peer peer, set *page.Set, ended <-chan struct{}, scrapes int) (slowest time.Duration, sent sink.Counts, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for n := 1; n <= scrapes; {
		select {
		case <-ctx.Done():
			return slowest, sent, fmt.Errorf("%d of %d pages arrived: %w", n-1, scrapes, ctx.Err())
		case <-ended:
			return slowest, sent, fmt.Errorf("ended after %d of %d pages", n-1, scrapes)
		case <-ticker.C:
		}
		if sent = peer.sink(s).Counts(); sent.Points >= int64(n*set.Points) {
			slowest = max(slowest, time.Since(s.server.Started()[n-1]))
			n++
		}
	}
	return slowest, sent, nil
}
