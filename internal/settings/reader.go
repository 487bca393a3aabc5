package settings

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"
	"go.opentelemetry.io/otel/attribute"

	"otelmetricsplugin/pkg/scrape"
)

// reader reads settings and collects what is wrong with them.
type reader struct {
	lookup   func(name string) string
	s        *Settings
	problems []string
}

// value is what was given for a setting.
type value struct {
	name     string // of the variable that it came from
	text     string // as given, or the default
	fallback string // the default
}

// first returns the value of the first of the variables that is set.
func (r *reader) first(names ...string) value {
	v := value{}
	for _, v.name = range names {
		if v.text = strings.TrimSpace(r.lookup(v.name)); v.text != "" {
			break
		}
	}
	return v
}

func (r *reader) value(s Setting) value {
	if s.from == nil {
		s.from = []string{s.Name}
	}
	v := r.first(s.from...)
	v.fallback = s.Default
	if v.text == "" {
		v.text = s.Default
	}
	return v
}

// bad notes that a setting is bad; it shows the value, quoted and cut short.
func (r *reader) bad(v value, format string, args ...any) {
	shown := strconv.Quote(v.text)
	if len(v.text) > maxShown {
		shown = strconv.Quote(v.text[:maxShown]) + "..."
	}
	r.problems = append(r.problems, fmt.Sprintf("%s=%s: %s", v.name, shown, fmt.Sprintf(format, args...)))
}

// maxShown limits what is shown of a value, in bytes.
const maxShown = 200

// badSecret notes that a setting is bad, and does not show the value.
func (r *reader) badSecret(name, format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf("%s: %s", name, fmt.Sprintf(format, args...)))
}

func (r *reader) resource(v value) []attribute.KeyValue {
	var attrs []attribute.KeyValue
	for i, p := range r.pairs(v) {
		if !utf8.ValidString(p.name) || !utf8.ValidString(p.value) {
			r.badSecret(v.name, "item %d is not UTF-8", i+1)
			continue
		}
		attrs = append(attrs, attribute.String(p.name, p.value))
	}
	return attrs
}

// serviceName comes after the other attributes of the resource, and so wins.
func (r *reader) serviceName(v value) {
	if !utf8.ValidString(v.text) {
		r.bad(v, "want UTF-8")
	}
	if v.text != "" {
		r.s.Resource = append(r.s.Resource, attribute.String("service.name", v.text))
	}
}

type pair struct{ name, value string }

// pairs reads name=value,name=value with percent-encoded values, the form that
// the specification has for headers and resource attributes.
func (r *reader) pairs(v value) (pairs []pair) {
	for i, item := range strings.Split(v.text, ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		name, encoded, found := strings.Cut(item, "=")
		name = strings.TrimSpace(name)
		decoded, err := url.PathUnescape(strings.TrimSpace(encoded))
		if !found || name == "" || err != nil {
			r.badSecret(v.name, "item %d is not name=value with a percent-encoded value; want name=value,name=value", i+1)
			continue
		}
		pairs = append(pairs, pair{name, decoded})
	}
	return pairs
}

// clientKey is read after the client's certificate.
func (r *reader) clientKey(v value) string {
	key := r.path(v)
	if (r.s.TLS.Certificate == "") != (key == "") {
		certificate := r.first(ofExporter("CLIENT_CERTIFICATE")...)
		r.badSecret(certificate.name, "a client's certificate and its key (%s) go together; set both or none", v.name)
	}
	return key
}

func (r *reader) path(v value) string {
	if v.text == "" {
		return ""
	}
	if !filepath.IsAbs(v.text) {
		r.bad(v, "want an absolute path")
	}
	return filepath.Clean(v.text)
}

func (r *reader) scrapeURL(v value) string {
	if _, err := scrape.ParseURL(v.text); err != nil {
		r.bad(value{name: v.name, text: scrape.Redact(v.text)}, "%v", err)
	}
	return v.text
}

// duration reads milliseconds, as the specification has them, or a duration
// with its unit. A bad one is noted and replaced by the default, against which
// other settings can still be checked.
func (r *reader) duration(v value, least, most time.Duration) time.Duration {
	if v.text == "" {
		v.text = v.fallback
	}
	d, err := parseDuration(v.text)
	if err != nil || d < least || d > most {
		r.bad(v, "want milliseconds, as 15000, or a duration, as 15s, from %v to %v", least, most)
		d, _ = parseDuration(v.fallback)
	}
	return d
}

func parseDuration(text string) (time.Duration, error) {
	if ms, err := strconv.ParseInt(text, 10, 32); err == nil {
		return time.Duration(ms) * time.Millisecond, nil
	}
	return time.ParseDuration(text)
}

func (r *reader) size(v value, least int64) int64 {
	n, err := units.RAMInBytes(v.text)
	if err != nil || n < least {
		r.bad(v, "want a size of at least %s, as 64MiB", units.BytesSize(float64(least)))
	}
	return n
}

func (r *reader) count(v value) int {
	n, err := strconv.Atoi(v.text)
	if err != nil || n < 1 {
		r.bad(v, "want a number of at least 1")
	}
	return n
}

func (r *reader) regexp(v value) *regexp.Regexp {
	if v.text == "" {
		return nil
	}
	_, err := regexp.Compile(v.text) // first by itself: "a)(b" would compile between the anchors
	if err != nil {
		r.bad(v, "want an RE2 expression: %s", regexpFault(err))
		return nil
	}
	anchored, err := regexp.Compile("^(?:" + v.text + ")$")
	if err != nil {
		r.bad(v, "want an RE2 expression that can be anchored: %s", regexpFault(err))
		return nil
	}
	return anchored
}

// regexpFault says what is wrong with an expression without showing it: the
// error of regexp contains it as it is, line breaks included.
func regexpFault(err error) string {
	var fault *syntax.Error
	if errors.As(err, &fault) {
		return string(fault.Code)
	}
	return "it does not compile"
}

type choice[T any] struct {
	name  string
	value T
}

func option[T any](name string, value T) choice[T] { return choice[T]{name, value} }

// oneOf reads a setting that is one of a few words, in any case.
func oneOf[T any](r *reader, v value, options ...choice[T]) (chosen T) {
	var names []string
	for _, o := range options {
		if strings.EqualFold(v.text, o.name) {
			return o.value
		}
		names = append(names, o.name)
	}
	last := len(names) - 1
	r.bad(v, "want %s or %s", strings.Join(names[:last], ", "), names[last])
	return chosen
}
