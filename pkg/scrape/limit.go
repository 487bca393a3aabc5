package scrape

import (
	"fmt"
	"time"
)

// Limit says which limit an exposition exceeds.
type Limit string

// The limits of a scrape. All but LimitMemory are fields of [Config].
const (
	LimitTime       Limit = "time"        // Config.Timeout
	LimitBytes      Limit = "bytes"       // Config.MaxBytes
	LimitSamples    Limit = "samples"     // Config.MaxSamples
	LimitLabelBytes Limit = "label bytes" // Config.MaxLabelBytes
	LimitMemory     Limit = "memory"      // what parsing text may allocate, for its size
)

// LimitError says that an exposition exceeds a limit.
type LimitError struct {
	Limit Limit
	// Max is the limit's value: nanoseconds, bytes or samples.
	Max int64
	// Subject is what has more than Max bytes, if that is not the exposition.
	Subject string
	// Err is context.DeadlineExceeded for LimitTime.
	Err error
}

func (e *LimitError) Error() string {
	subject, unit := e.Subject, "bytes"
	if subject == "" {
		subject = "the exposition"
	}
	switch e.Limit {
	case LimitTime:
		return fmt.Sprintf("no complete exposition within %v", time.Duration(e.Max))
	case LimitMemory:
		return fmt.Sprintf("parsing %s would take more than %d bytes of memory", subject, e.Max)
	case LimitSamples:
		unit = "samples"
	}
	return fmt.Sprintf("%s has more than %d %s", subject, e.Max, unit)
}

func (e *LimitError) Unwrap() error { return e.Err }
