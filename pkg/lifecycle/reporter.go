package lifecycle

import (
	"log/slog"
	"maps"
	"slices"

	"otelmetricsplugin/pkg/translate"
)

// reporter logs when the state of the scrapes changes, not each of them.
type reporter struct {
	logger   *slog.Logger
	scrapes  scrapeState
	dropping bool // whether the last exposition had points that were dropped
}

// scrapeState is how the last scrape went.
type scrapeState int

const (
	unknown scrapeState = iota // there was none
	succeeding
	failing
)

func (r *reporter) report(failure error, result translate.Result) {
	r.reportScrape(failure, result)
	r.reportDropped(result.Dropped)
}

// reportScrape logs the first scrape and each change from success to failure
// and back.
func (r *reporter) reportScrape(failure error, result translate.Result) {
	before := r.scrapes
	r.scrapes = succeeding
	if failure != nil {
		r.scrapes = failing
	}
	if r.scrapes == before {
		return
	}
	if failure != nil {
		r.logger.Warn("the scrape failed; up is 0 until one succeeds", "error", failure)
		return
	}
	message := "the scrape succeeds again"
	if before == unknown {
		message = "the first page was read"
	}
	r.logger.Info(message, "samples", result.Samples, "kept", result.Kept)
	if result.Kept == 0 && result.Samples > 0 {
		r.logger.Warn("no family of the page is kept", "remedy", "check the expressions that select families: they match whole names, as engine_daemon_.*")
	}
}

// reportDropped logs when dropping starts and when it ends.
func (r *reporter) reportDropped(dropped map[string]int) {
	var faults []any
	for _, reason := range slices.Sorted(maps.Keys(dropped)) {
		if reason != translate.DropBaseline { // the first exposition of deltas: nothing is wrong
			faults = append(faults, reason, dropped[reason])
		}
	}
	switch {
	case len(faults) > 0 && !r.dropping:
		r.logger.Warn("points of the page are dropped", slog.Group("points", faults...))
	case len(faults) == 0 && r.dropping && r.scrapes == succeeding:
		r.logger.Info("no points of the page are dropped any more")
	default:
		return
	}
	r.dropping = len(faults) > 0
}
