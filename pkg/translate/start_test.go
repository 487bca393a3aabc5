package translate

import (
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// A step of the wall clock cannot be made with the times that a test can make,
// so this one fills in what a page takes from them.
func TestRule05_StepOfTheClockIsNoRestart(t *testing.T) {
	const second = int64(time.Second)
	began := time.Now()
	for _, tc := range []struct {
		name  string
		step  int64 // of the wall clock between the pages, in seconds
		start int64 // of the process at the second page, in seconds after the first one
		want  bool
	}{
		{"no step, no restart", 0, -60, false},
		{"no step, restart", 0, 5, true},
		// The kernel tells a start that moved with the clock.
		{"forward by an hour, no restart", 3600, 3600 - 60, false},
		{"forward by an hour, restart", 3600, 3600 + 5, true},
		{"back by an hour, no restart", -3600, -3600 - 60, false},
		{"back by an hour, restart", -3600, -3600 + 5, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wall := began.UnixNano()
			last := page{number: 1, at: began, now: wall, processStart: wall - 60*second}
			p := page{number: 2, at: began.Add(10 * time.Second), now: wall + (10+tc.step)*second}
			start := float64(wall/second + tc.start)
			p.findProcessStart([]*dto.MetricFamily{{
				Name:   proto.String(processStartTime),
				Type:   dto.MetricType_GAUGE.Enum(),
				Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: proto.Float64(start)}}},
			}}, last)
			if p.restarted != tc.want {
				t.Errorf("restarted %v, want %v", p.restarted, tc.want)
			}
		})
	}
}
