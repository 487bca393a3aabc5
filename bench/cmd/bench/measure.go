//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/bench/internal/page"
	"otelmetricsplugin/bench/internal/proc"
	"otelmetricsplugin/bench/internal/sink"
)

// bench is one run of this command.
type bench struct {
	options
	programs
	dir string
	// large is the page of a million samples, once it is encoded.
	large *page.Set
}

// plan is how one program is measured on one page.
type plan struct {
	set      *page.Set
	interval time.Duration
	// warm scrapes come before the first reading, scrapes lie between the two.
	warm, scrapes int
}

// result is what a program cost between two points of its steady state.
type result struct {
	scrapes   int
	cpu       time.Duration
	sent      sink.Counts
	delivered float64 // of what was scraped
	rss, peak int64
}

// perScrape is the CPU time of one scrape, from the page to the answered request.
func (r result) perScrape() time.Duration { return r.cpu / time.Duration(r.scrapes) }

// measureAll runs every program on every page, in rounds, and then the cases of memory.
func (b *bench) measureAll(ctx context.Context) (*report, error) {
	peers := wanted(b.peers)
	s, err := newStation(ctx, b.dir, b.observer())
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := newReport(b)
	for _, size := range b.sizes {
		p := plan{interval: time.Second, warm: 3, scrapes: b.scrapes}
		rounds := b.rounds
		if size > 500_000 {
			// The other programs need seconds for one scrape, and the page is large.
			p.interval, p.warm, p.scrapes = 10*time.Second, 1, min(3, b.scrapes)
			rounds = 1
		}
		progress("encoding a page of %d samples", size)
		if p.set, err = page.Encode(size, p.warm+p.scrapes+2); err != nil {
			return nil, err
		}
		r.addPage(p)
		if size == million {
			b.large = p.set
		}
		for round := range rounds {
			for _, peer := range peers {
				got, err := b.measure(ctx, s, peer, p)
				if ctx.Err() != nil {
					return r, ctx.Err()
				}
				if err != nil {
					progress("round %d, %s: %v", round+1, peer.name, err)
				} else {
					progress("round %d, %s: %v per scrape, %d MiB", round+1, peer.name, got.perScrape(), got.rss>>20)
				}
				r.add(size, peer, got, err)
			}
		}
	}
	if b.memory {
		if err := b.measureMemory(ctx, r); err != nil {
			return r, err
		}
	}
	return r, nil
}

// observer holds what the sink counts against the generated types, if that is wanted.
func (b *bench) observer() func([]byte) error {
	if !b.verify {
		return nil
	}
	return func(request []byte) error {
		want, err := decodedPoints(request)
		if err != nil {
			return err
		}
		if got, err := sink.Points(request, ""); got != want || err != nil {
			progress("WRONG: counted %d data points, %v; decoded %d", got, err, want)
			return errors.New("the sink counts wrong")
		}
		return nil
	}
}

func decodedPoints(request []byte) (points int, err error) {
	var decoded collectorpb.ExportMetricsServiceRequest
	if err := proto.Unmarshal(request, &decoded); err != nil {
		return 0, err
	}
	for _, r := range decoded.GetResourceMetrics() {
		for _, s := range r.GetScopeMetrics() {
			for _, m := range s.GetMetrics() {
				points += len(m.GetGauge().GetDataPoints()) + len(m.GetSum().GetDataPoints()) + len(m.GetSummary().GetDataPoints()) +
					len(m.GetHistogram().GetDataPoints()) + len(m.GetExponentialHistogram().GetDataPoints())
			}
		}
	}
	return points, nil
}

// measure runs one program. Both readings are taken half an interval after a scrape, when its work is done.
func (b *bench) measure(ctx context.Context, s *station, peer peer, p plan) (r result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second+2*time.Duration(p.warm+p.scrapes)*p.interval)
	defer cancel()
	s.server.Show(p.set)
	defer s.server.Show(nil)
	process, err := peer.start(ctx, s, b.programs, p.interval)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, process.Stop(10*time.Second)) }()

	type reading struct {
		served int
		cpu    time.Duration
		counts sink.Counts
	}
	read := func(served int) (at reading, err error) {
		if err := waitServed(ctx, s.server, process, served); err != nil {
			return at, err
		}
		if err := sleep(ctx, p.interval/2); err != nil {
			return at, err
		}
		at.served, at.counts = s.server.Served(), peer.sink(s).Counts()
		at.cpu, err = process.CPU()
		return at, err
	}
	first, err := read(p.warm)
	if err != nil {
		return r, err
	}
	last, err := read(p.warm + p.scrapes)
	if err != nil {
		return r, err
	}
	status, err := process.Status()
	if err != nil {
		return r, err
	}
	r = result{
		scrapes: last.served - first.served,
		cpu:     last.cpu - first.cpu,
		sent:    last.counts.Sub(first.counts),
		rss:     status.RSS,
		peak:    status.Peak,
	}
	points := p.set.Points
	if peer.samples {
		points = p.set.Samples
	}
	r.delivered = float64(r.sent.Points) / float64(points*r.scrapes)
	// What is under way at one of the readings makes a difference of a scrape at each end.
	if slack := 1.1 / float64(r.scrapes); p.set.Name != "file" && (r.delivered < 1-slack || r.delivered > 1+slack || r.sent.Errors > 0) {
		return r, fmt.Errorf("not all was delivered: %.0f%% of the data points, %d bad requests; it said:\n%s", 100*r.delivered, r.sent.Errors, process.Log())
	}
	return r, nil
}

// waitServed waits until the page was served so often.
func waitServed(ctx context.Context, server *page.Server, process *proc.Process, n int) error {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for server.Served() < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("scraped %d of %d times: %w; it said:\n%s", server.Served(), n, ctx.Err(), process.Log())
		case <-process.Done():
			return fmt.Errorf("ended after %d of %d scrapes; it said:\n%s", server.Served(), n, process.Log())
		case <-ticker.C:
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
