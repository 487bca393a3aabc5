// Package text shortens text of unknown origin for logs, errors and requests.
package text

import (
	"strings"
	"unicode/utf8"
)

// Truncate returns the longest prefix of s that has at most n bytes and does
// not end within a character.
func Truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Shorten returns s for a person to read: valid UTF-8, and if it has more than
// n bytes, its beginning and "...".
func Shorten(s string, n int) string {
	if len(s) <= n {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(Truncate(s, n), "\uFFFD") + "..."
}
