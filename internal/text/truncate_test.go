package text_test

import (
	"testing"

	"otelmetricsplugin/internal/text"
)

func TestTruncateKeepsCharactersWhole(t *testing.T) {
	for _, test := range []struct {
		s                    string
		n                    int
		truncated, shortened string
	}{
		{"", 0, "", ""},
		{"abc", 3, "abc", "abc"},
		{"abc", 2, "ab", "ab..."},
		{"abc", 0, "", "..."},
		{"aé€", 6, "aé€", "aé€"},
		{"aé€", 5, "aé", "aé..."},
		{"aé€", 4, "aé", "aé..."},
		{"aé€", 3, "aé", "aé..."},
		{"aé€", 2, "a", "a..."},
		{"a\xffb", 9, "a\xffb", "a\uFFFDb"},
		{"a\xff\xffb", 2, "a\xff", "a\uFFFD..."},
		{"\x80\x80\x80", 2, "", "..."},
	} {
		if got := text.Truncate(test.s, test.n); got != test.truncated {
			t.Errorf("Truncate(%q, %d) is %q, want %q", test.s, test.n, got, test.truncated)
		}
		if got := text.Shorten(test.s, test.n); got != test.shortened {
			t.Errorf("Shorten(%q, %d) is %q, want %q", test.s, test.n, got, test.shortened)
		}
	}
}
