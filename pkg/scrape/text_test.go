package scrape_test

import (
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"otelmetricsplugin/pkg/scrape"
)

// TestTextIsEncodedAsItIsParsed has what an encoder might change: names that
// are not those of old, and values that are not numbers.
func TestTextIsEncodedAsItIsParsed(t *testing.T) {
	pages := map[string]string{
		"nothing":               "",
		"types without samples": "# TYPE a counter\n# HELP b no sample\n",
		"order":                 "b 1\na 1\nc 1\n",
		"UTF-8 names":           "# TYPE \"größe.in-bytes\" gauge\n{\"größe.in-bytes\",\"häuser/straße\"=\"1€\"} 1\n{\"1 with spaces\"} 2\nold:name_total 3\n",
		"values":                "a NaN\nb +Inf\nc -Inf\nd -0\ne 1e300\nf 4.9e-324\n",
		"timestamps":            "a 1 0\nb 1 -1\nc 1 1700000000000\n",
		"escapes":               "# HELP a \\\\ \\n \"\na{b=\"\\\\ \\n \\\"\",c=\"\"} 1\n",
		"duplicates":            "a{b=\"c\"} 1\na{b=\"c\"} 2\n",
		"histogram":             "# TYPE h histogram\nh_bucket{le=\"0.5\",a=\"b\"} 1\nh_bucket{le=\"+Inf\",a=\"b\"} 2\nh_sum{a=\"b\"} 3\nh_count{a=\"b\"} 2\n",
		"histogram of floats":   "# TYPE h histogram\nh_bucket{le=\"1\"} 1.5\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2.5\n",
		"half a histogram":      "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n",
		"gauge histogram":       "# TYPE h gaugehistogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n",
		"summary":               "# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 3\ns_count 2\ns{quantile=\"0.5\",a=\"b\"} 1\n",
	}
	for _, name := range []string{"297-active.txt", "2010-active.txt"} {
		pages[name] = string(recorded(t, name))
	}
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			exposition, err := scrape.Exposition(t.Context(), []byte(page), expfmt.TypeTextPlain, scrape.Config{})
			if err != nil {
				t.Fatal(err)
			}
			checkSameAsParsed(t, []byte(page), exposition)
		})
	}
}

// TestTextThatTheParserReadsWronglyIsRefused: expfmt goes by the type of the
// line before one that names its metric in braces.
func TestTextThatTheParserReadsWronglyIsRefused(t *testing.T) {
	for name, page := range map[string]string{
		"it would panic":                   "# TYPE s summary\ng 1\n{\"s\",a=\"b\"} 1\n",
		"one of a histogram":               "# TYPE s histogram\ng 1\n{\"s\",a=\"b\"} 1\n",
		"case does not matter":             "# TYPE s SUMMARY\ng 1\n{\"s\",a=\"b\"} 1\n",
		"numbers of another family":        "# TYPE s summary\n# TYPE u summary\nu_count{x=\"1\"} 7\n{\"s_count\",x=\"1\"} 5\n",
		"numbers of another series":        "# TYPE s summary\ns_count{x=\"1\"} 7\ng 1\n{\"s_count\"} 5\n",
		"a comment as long as nobody's is": "# " + strings.Repeat("x", 5000) + "\n{\"s_count\"} 5\n",
	} {
		t.Run(name, func(t *testing.T) {
			exposition, err := scrape.Exposition(t.Context(), []byte(page), expfmt.TypeTextPlain, scrape.Config{})
			if err == nil || !strings.Contains(err.Error(), "in braces") {
				t.Errorf("got %q, %v, want an error", exposition, err)
			}
		})
	}
}

// BenchmarkText is what an exposition in text costs once it has been read.
func BenchmarkText(b *testing.B) {
	page := recorded(b, "297-active.txt")
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := scrape.Exposition(b.Context(), page, expfmt.TypeTextPlain, scrape.Config{}); err != nil {
			b.Fatal(err)
		}
	}
}
