package collector

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const redacted = "[redacted]"

// redact replaces what may be secret in the headers of the last request.
func (h *headers) redact(text string) string {
	sent := h.sent.Load()
	if sent == nil {
		return text
	}
	for _, s := range secretsOf(*sent) {
		text = s.replace(text)
	}
	return text
}

// secret is a header's value or a word of it.
type secret string

// looksLikeKey reports whether s cannot be a word of a sentence. A secret that
// can be is replaced only as a whole word.
func (s secret) looksLikeKey() bool {
	return len(s) >= 16 && strings.ContainsAny(string(s), "0123456789")
}

// secretsOf returns what may be secret in headers, the longest first, because a
// secret may be part of another. In a header whose name says that it is secret,
// that is all but the scheme of "Bearer TOKEN". In the others, whose names are
// the vendors' own, it is what looks like a key; the name of an environment or
// of a tenant does not.
func secretsOf(headers map[string]string) []secret {
	var found []secret
	add := func(text string, named bool) {
		if secret(text).looksLikeKey() || named && len(text) >= 4 { // less would be every other word
			found = append(found, secret(text))
			if quoted := strconv.Quote(text); quoted[1:len(quoted)-1] != text {
				found = append(found, secret(quoted[1:len(quoted)-1]))
			}
		}
	}
	for name, value := range headers {
		named := secretName.MatchString(name)
		if scheme, rest, ok := strings.Cut(value, " "); ok && strings.HasSuffix(name, "authorization") && scheme != "" {
			value = strings.TrimSpace(rest)
		}
		add(value, named)
		if words := strings.Fields(value); len(words) > 1 {
			for _, word := range words {
				add(word, named)
			}
		}
	}
	slices.SortFunc(found, func(a, b secret) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	return found
}

var secretName = regexp.MustCompile(`auth|token|key|secret|pass|cred|cookie|session|sign|dsn`)

func (s secret) replace(text string) string {
	if s.looksLikeKey() {
		return strings.ReplaceAll(text, string(s), redacted)
	}
	var b strings.Builder
	done := 0 // text before it is in b
	for from := 0; ; {
		i := strings.Index(text[from:], string(s))
		if i < 0 {
			b.WriteString(text[done:])
			return b.String()
		}
		i += from
		if end := i + len(s); insideWord(text, i) || insideWord(text, end) {
			from = i + 1
		} else {
			b.WriteString(text[done:i])
			b.WriteString(redacted)
			from, done = end, end
		}
	}
}

// insideWord reports whether text[i] continues the word of text[i-1].
func insideWord(text string, i int) bool {
	return i > 0 && i < len(text) && isWordByte(text[i-1]) && isWordByte(text[i])
}

func isWordByte(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z' || b >= 0x80
}
