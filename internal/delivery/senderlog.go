package delivery

import (
	"strings"
	"time"

	"otelmetricsplugin/internal/collector"
)

// senderLog is what a sender logs: a line when a state begins and one when it
// ends.
type senderLog struct {
	cfg *Config

	outage  outage  // the Collector does not take requests
	refusal refusal // the Collector refuses data points for good
	warning refusal // the Collector accepts all and has something to say; its points are 0
}

func (l *senderLog) fails(err error, requests int) {
	reason, remedy := collector.Diagnose(err)
	if l.outage.begin(reason) {
		l.cfg.Logger.Warn("the Collector does not take requests: they wait", "reason", reason, "remedy", remedy,
			"error", l.quote(err.Error()), "requests", requests)
	}
}

func (l *senderLog) answers(requests int) {
	if was, ended := l.outage.end(); ended {
		l.cfg.Logger.Info("the Collector answers again", "after", time.Since(was.since).Round(time.Millisecond),
			"retries", was.retries, "requests", requests)
	}
}

func (l *senderLog) smaller(bytes, limit int, err error) {
	l.cfg.Logger.Info("the Collector refuses a request for its size: smaller ones are sent",
		"bytes", bytes, "max_bytes", limit, "message", l.quote(collector.Message(err)))
}

func (l *senderLog) refused(answer, message string, points int) {
	if l.refusal.begin(answer, points) {
		l.cfg.Logger.Warn("the Collector refuses data points: they are dropped", "answer", answer, "message", l.quote(message),
			"remedy", collector.Remedy(answer, message), "points", points)
	}
}

func (l *senderLog) acceptsAll() {
	if points, ended := l.refusal.end(); ended {
		l.cfg.Logger.Info("the Collector accepts all data points again", "dropped_points", points)
	}
}

// warned notes what the Collector says about a request that it accepts, which
// may be nothing.
func (l *senderLog) warned(message string) {
	if message == "" {
		if _, ended := l.warning.end(); ended {
			l.cfg.Logger.Info("the Collector no longer warns")
		}
		return
	}
	if l.warning.begin("", 0) {
		l.cfg.Logger.Warn("the Collector warns: it accepts all data points", "message", l.quote(message))
	}
}

// quote returns a text of the server or the connection as it may be logged:
// redacted, then shortened, because half a secret is not recognized.
func (l *senderLog) quote(text string) string {
	if l.cfg.Redact != nil {
		text = l.cfg.Redact(text)
	}
	const limit = 300
	if len(text) > limit {
		return strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}
