package scrape

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
)

// ParseURL parses the URL of a target; the error says what is accepted.
func ParseURL(raw string) (*url.URL, error) {
	const want = "want unix:///path/of/socket or http://host:port/metrics"
	u, err := url.Parse(raw)
	if err != nil {
		// The parser's own error quotes the URL, and with it a password.
		return nil, fmt.Errorf("not a URL; %s", want)
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path) && u.RawQuery == "" && u.Fragment == "":
		return u, nil
	case (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "":
		return u, nil
	default:
		return nil, errors.New(want)
	}
}

// Redact returns a target's URL without what may be secret in it: user,
// password, query and fragment.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return "(not a URL)"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if u.User != nil {
		shown.User = url.User("xxxxx")
	}
	if u.RawQuery != "" {
		shown.RawQuery = "xxxxx"
	}
	return shown.String()
}
