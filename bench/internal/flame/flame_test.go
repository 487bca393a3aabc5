package flame

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// location is a place in so many functions, the innermost, inlined ones first.
func location(names ...string) *profile.Location {
	l := &profile.Location{}
	for _, name := range names {
		l.Line = append(l.Line, profile.Line{Function: &profile.Function{Name: name}})
	}
	return l
}

func TestWrite(t *testing.T) {
	main := location("main.main")
	p := &profile.Profile{Sample: []*profile.Sample{
		{Location: []*profile.Location{location("x/y.inlined", "x/y.outer"), main}, Value: []int64{1, 30}},
		{Location: []*profile.Location{location("x/y.outer"), main}, Value: []int64{1, 10}},
		{Location: []*profile.Location{location("x/y.other[go.shape/a.b]")}, Value: []int64{1, 60}},
	}}
	for root, want := range map[string][]string{
		"":     {"all: 100.0%", "main.main: 40.0%", "x/y.outer: 40.0%", "x/y.inlined: 30.0%", "x/y.other[go.shape/a.b]: 60.0%", ">y.other[go.shape/a.b]<"},
		"main": {"all: 100.0%", "main.main: 100.0%", "x/y.inlined: 75.0%"},
	} {
		var b bytes.Buffer
		if err := Write(&b, FromProfile(p), "a <title>", root); err != nil {
			t.Fatal(err)
		}
		for _, s := range want {
			if !strings.Contains(b.String(), s) {
				t.Errorf("from %q on, the picture does not contain %q:\n%s", root, s, &b)
			}
		}
		for decoder := xml.NewDecoder(&b); ; {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Write(io.Discard, FromProfile(p), "", "nowhere"); err == nil {
		t.Error("a picture of nothing")
	}
}

func TestFromPerf(t *testing.T) {
	text := `otelmetricsplug
	  49d3f5 runtime.memmove
	  7a1b2c otelmetricsplugin/pkg/translate.(*Translator).Translate

otelmetricsplug
	ffffffff81 __do_softirq

`
	got, err := FromPerf(strings.NewReader(text))
	want := []Stack{
		{Functions: []string{"otelmetricsplugin/pkg/translate.(*Translator).Translate", "runtime.memmove"}, Value: 1},
		{Functions: []string{"__do_softirq"}, Value: 1},
	}
	if !reflect.DeepEqual(got, want) || err != nil {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}
