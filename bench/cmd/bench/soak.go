//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/bench/internal/page"
	"otelmetricsplugin/bench/internal/proc"
)

// The soak's page: so many samples, and short-lived series some of which are replaced before each scrape.
const (
	soakInterval  = 100 * time.Millisecond
	soakSamples   = 500
	soakTransient = 100
	soakReplaced  = 5
)

// Within a minute the receiver answers, is away, refuses and answers again. A sample is taken just before it goes.
const (
	soakCycle    = time.Minute
	soakAwayAt   = 35 * time.Second
	soakRefuseAt = 50 * time.Second
	soakBackAt   = 55 * time.Second
)

// ledger keeps which expositions arrived.
type ledger struct {
	mu        sync.Mutex
	refuse    bool
	arrived   map[int]int    // number of the exposition: how often
	failed    map[int64]bool // times of scrapes that failed, up = 0
	malformed int
}

// observe reads a request; an error is what the receiver answers.
func (l *ledger) observe(request []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse {
		return errors.New("not now")
	}
	var decoded collectorpb.ExportMetricsServiceRequest
	if err := proto.Unmarshal(request, &decoded); err != nil {
		l.malformed++
		return nil
	}
	for _, r := range decoded.GetResourceMetrics() {
		for _, s := range r.GetScopeMetrics() {
			for _, m := range s.GetMetrics() {
				switch m.GetName() {
				case page.NumberName:
					for _, p := range m.GetSum().GetDataPoints() {
						l.arrived[int(p.GetAsDouble()+float64(p.GetAsInt()))]++
					}
				case "up":
					for _, p := range m.GetGauge().GetDataPoints() {
						if p.GetAsDouble() == 0 && p.GetAsInt() == 0 {
							l.failed[int64(p.GetTimeUnixNano())] = true
						}
					}
				}
			}
		}
	}
	return nil
}

func (l *ledger) setRefuse(refuse bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

// compare returns how many of the served expositions are missing, and how many came more than once.
func (l *ledger) compare(served []int) (missing, repeated, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range served {
		switch times := l.arrived[n]; {
		case times == 0:
			missing++
		case times > 1:
			repeated++
		}
	}
	return missing, repeated, len(l.failed)
}

// soakTest runs the program for a long time and returns an error if anything was lost or grows.
func (b *bench) soakTest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.soak+5*time.Minute)
	defer cancel()
	l := &ledger{arrived: map[int]int{}, failed: map[int64]bool{}}
	s, err := newStation(ctx, b.dir, l.observe)
	if err != nil {
		return err
	}
	defer s.close()
	s.server.ShowLive(page.NewChurn(soakSamples, soakTransient), soakReplaced, soakTransient)
	process, err := startPlugin("gzip")(ctx, s, b.programs, soakInterval)
	if err != nil {
		return err
	}
	defer func() { _ = process.Stop(10 * time.Second) }()

	fmt.Println("| minute | served | missing now | repeated | resident MiB | threads | file descriptors |\n|---:|---:|---:|---:|---:|---:|---:|")
	var samples []soakSample
	for begun := time.Now(); time.Since(begun) < b.soak; {
		sample, err := b.soakMinute(ctx, s, l, process)
		if err != nil {
			return fmt.Errorf("%w; it said:\n%s", err, process.Log())
		}
		samples = append(samples, sample)
		served := s.server.Numbers()
		missing, repeated, _ := l.compare(served)
		fmt.Printf("| %d | %d | %d | %d | %s | %d | %d |\n", len(samples), len(served), missing, repeated,
			mib(float64(sample.RSS)), sample.Threads, sample.files)
	}
	return verdict(ctx, s, l, process, samples)
}

type soakSample struct {
	proc.Status
	files int
}

// soakMinute is one cycle of the receiver.
func (b *bench) soakMinute(ctx context.Context, s *station, l *ledger, process *proc.Process) (sample soakSample, err error) {
	wait := func(d time.Duration) {
		if err == nil {
			err = sleep(ctx, d)
		}
	}
	wait(soakAwayAt)
	if err != nil {
		return sample, err
	}
	if sample.Status, err = process.Status(); err != nil {
		return sample, err
	}
	if sample.files, err = process.Files(); err != nil {
		return sample, err
	}
	s.strict.Stop()
	wait(soakRefuseAt - soakAwayAt)
	l.setRefuse(true)
	if startErr := s.strict.Start(); startErr != nil {
		return sample, startErr
	}
	wait(soakBackAt - soakRefuseAt)
	l.setRefuse(false)
	wait(soakCycle - soakBackAt)
	return sample, err
}

// verdict waits until everything that was served until now has arrived, for two minutes at most.
func verdict(ctx context.Context, s *station, l *ledger, process *proc.Process, samples []soakSample) error {
	served := s.server.Numbers()
	missing, repeated, failed := l.compare(served)
	for end := time.Now().Add(2 * time.Minute); missing > 0 && time.Now().Before(end); missing, repeated, failed = l.compare(served) {
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	fmt.Printf("\n%d expositions were served, %d of them did not arrive, %d arrived more than once; %d scrapes failed by the program's own account (up = 0); %d requests were malformed.\n",
		len(served), missing, repeated, failed, l.malformed)
	var faults []error
	// A scrape that the program gave up after the page was written has up = 0 and no exposition.
	if missing > failed {
		faults = append(faults, fmt.Errorf("%d expositions were lost", missing-failed))
	}
	if l.malformed > 0 {
		faults = append(faults, errors.New("malformed requests"))
	}
	if len(served) == 0 {
		faults = append(faults, errors.New("nothing was scraped"))
	}
	faults = append(faults, flat(samples))
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("verdict: %w; it said:\n%s", err, process.Log())
	}
	fmt.Println("Verdict: nothing was lost; memory, threads and file descriptors are flat.")
	return nil
}

// flat compares the last quarter of the samples with the second: the first is the warm-up.
func flat(samples []soakSample) error {
	quarter := max(1, len(samples)/4)
	if len(samples) < 2*quarter+1 {
		return nil // too short to say anything
	}
	most := func(samples []soakSample) (m soakSample) {
		for _, s := range samples {
			m.RSS, m.Threads, m.files = max(m.RSS, s.RSS), max(m.Threads, s.Threads), max(m.files, s.files)
		}
		return m
	}
	early, late := most(samples[quarter:2*quarter]), most(samples[len(samples)-quarter:])
	var faults []error
	if late.RSS > early.RSS*5/4+2<<20 {
		faults = append(faults, fmt.Errorf("resident memory grew from %d to %d bytes", early.RSS, late.RSS))
	}
	if late.Threads > early.Threads+3 {
		faults = append(faults, fmt.Errorf("threads grew from %d to %d", early.Threads, late.Threads))
	}
	if late.files > early.files+4 {
		faults = append(faults, fmt.Errorf("file descriptors grew from %d to %d", early.files, late.files))
	}
	return errors.Join(faults...)
}
