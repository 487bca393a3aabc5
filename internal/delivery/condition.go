package delivery

import "time"

// condition is a state that lasts for a while and costs data points. It is
// logged when it begins and when it ends.
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

// outage is the time during which the Collector does not accept requests.
type outage struct {
	reasons map[string]bool // logged; nil while the Collector answers
	since   time.Time
	retries int64
}

// begin notes a failed attempt. It reports whether the reason is new: a
// server that ends the connection shows now as one thing and now as another.
func (o *outage) begin(reason string) bool {
	if o.reasons == nil {
		*o = outage{since: time.Now(), reasons: map[string]bool{}}
	}
	began := !o.reasons[reason]
	o.reasons[reason] = true
	o.retries++
	return began
}

func (o *outage) end() (was outage, ended bool) {
	was, ended = *o, o.reasons != nil
	*o = outage{}
	return was, ended
}

// calm is how many requests in a row the Collector must accept whole before it
// counts as no longer refusing, or warning: where one request in ten has a bad
// metric, the log says so once.
const calm = 20

// refusal is the time during which the Collector refuses some data points, or
// warns.
type refusal struct {
	answers map[string]bool // logged
	points  int
	clean   int // requests in a row that were accepted whole
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

// end notes a request that was accepted whole.
func (r *refusal) end() (points int, ended bool) {
	if r.clean++; r.answers == nil || r.clean < calm {
		return 0, false
	}
	points = r.points
	*r = refusal{}
	return points, true
}
