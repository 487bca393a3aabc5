package delivery

import "time"

// states is what the log has told of: each condition is told when it begins
// and when it ends.
type states struct {
	disk    condition // the spool cannot be written
	full    condition // the oldest is dropped for want of space
	unfit   condition // data points that cannot be sent are dropped
	damaged condition // files of the spool are damaged
	unread  condition // the spool cannot be read at the moment
	away    away      // the Collector does not take requests
	refusal refusal   // the Collector refuses data points for good
	warning refusal   // the Collector accepts and has something to say; its points are 0
}

// condition is something that holds for a while and costs data points.
type condition struct {
	holds  bool
	points int
}

// begin notes that the condition holds and cost so many points. It reports
// whether that is new.
func (c *condition) begin(points int) bool {
	c.points += points
	began := !c.holds
	c.holds = true
	return began
}

// end notes that the condition does not hold. It reports whether that is new,
// and what it cost altogether.
func (c *condition) end() (points int, ended bool) {
	points, ended = c.points, c.holds
	*c = condition{}
	return points, ended
}

type away struct {
	reasons map[string]bool // told of; nil while the Collector answers
	since   time.Time
	retries int64
}

// begin notes a failed attempt. It reports whether the reason is new: a
// server that ends the connection shows now as one thing and now as another.
func (a *away) begin(reason string) bool {
	if a.reasons == nil {
		*a = away{since: time.Now(), reasons: map[string]bool{}}
	}
	began := !a.reasons[reason]
	a.reasons[reason] = true
	a.retries++
	return began
}

func (a *away) end() (was away, ended bool) {
	was, ended = *a, a.reasons != nil
	*a = away{}
	return was, ended
}

// calm is how many requests in a row the Collector must take whole before it
// counts as refusing, or warning, no more: where one request in ten has a bad metric, the
// log is to say so once.
const calm = 20

type refusal struct {
	answers map[string]bool // told of
	points  int
	clean   int // requests in a row that were taken whole
}

// begin notes an answer that refused so many points. It reports whether this
// answer is new.
func (r *refusal) begin(answer string, points int) bool {
	if r.answers == nil {
		r.answers = map[string]bool{}
	}
	r.points += points
	r.clean = 0
	began := !r.answers[answer]
	r.answers[answer] = true
	return began
}

// end notes a request that was taken whole.
func (r *refusal) end() (points int, ended bool) {
	if r.clean++; r.answers == nil || r.clean < calm {
		return 0, false
	}
	points = r.points
	*r = refusal{}
	return points, true
}
