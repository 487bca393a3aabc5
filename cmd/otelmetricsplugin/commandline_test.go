package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"otelmetricsplugin/internal/settings"
)

func TestCommandLine_Faults(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"bogus"}, "unexpected argument bogus"},
		{[]string{"bogus", "--help"}, "unexpected argument bogus"},
		{[]string{"run", "extra"}, "unexpected argument extra"},
		{[]string{"print", "a\nlevel=INFO"}, `unexpected argument "a\nlevel=INFO"`},
		{[]string{"--bogus"}, "unknown flag --bogus"},
		{[]string{"--intervall=3s"}, "unknown flag --intervall, did you mean --interval?"},
		{[]string{"run", "--scrape"}, "unknown flag --scrape, did you mean --scrape-url?"},
		{[]string{"run", "--sppol-dir", "/x"}, "unknown flag --sppol-dir, did you mean --spool-dir?"},
		{[]string{"run", "-x"}, "unknown flag -x"},
		{[]string{"run", "--interval"}, "--interval needs a value"},
		{[]string{"--log-level=debug", "run", "--interval"}, "--interval needs a value"},
		{[]string{"receive", "--json=3"}, `--json="3": want true or false`},
		{[]string{"receive", "--interval=3s"}, "unknown flag --interval"},
		{[]string{"--interval=3s", "receive"}, "receive has no flag --interval"},
		{[]string{"run", "--listen=x"}, "unknown flag --listen"},
		{[]string{"version", "--version"}, "unknown flag --version"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(test.args, &stdout, &stderr)
		want := "otelmetricsplugin: " + test.want + "; see otelmetricsplugin --help\n"
		if code != exitSettings || stderr.String() != want || stdout.Len() != 0 {
			t.Errorf("%q: exit code %d, stdout %q, stderr\n%swant\n%s", test.args, code, &stdout, &stderr, want)
		}
	}
}

func TestCommandLine_FlagsOfSettings(t *testing.T) {
	t.Setenv("SPOOL_DIR", "/of/the/environment")
	t.Setenv("LOG_FORMAT", "json")
	p := &program{given: map[string]string{}}
	line, err := p.parse([]string{"--interval", "3s", "run", "--log-level=debug", "--log-format="})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"OTEL_METRIC_EXPORT_INTERVAL": "3s", "LOG_LEVEL": "debug", "SPOOL_DIR": "/of/the/environment",
		"LOG_FORMAT": "", // a flag wins over its variable, an empty one too
	} {
		if got := p.lookup(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if line.command.name != "run" {
		t.Errorf("the command is %q", line.command.name)
	}
}

func help(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, &stdout, &stderr); code != exitDone || stderr.Len() != 0 {
		t.Fatalf("%q: exit code %d, stderr %s", args, code, &stderr)
	}
	return stdout.String()
}

// TestHelp_Settings finds each setting with its default in the help, and each
// command's own flags in the help of that command.
func TestHelp_Settings(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"run", "--help"}, {"print", "-h"}} {
		text := help(t, args...)
		words := strings.Join(strings.Fields(text), " ")
		for _, s := range settings.Table() {
			want := s.Name + " " + s.Plain()
			if s.Flag != "" {
				want = "--" + s.Flag + " " + s.Value + " " + s.Plain() + " ($" + s.Name + ")"
			}
			if !strings.Contains(words, want) {
				t.Errorf("%q does not have %q:\n%s", args, want, text)
			}
		}
		for line := range strings.Lines(text) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > helpWidth {
				t.Errorf("%q: more than %d columns: %s", args, helpWidth, line)
			}
		}
	}
	receive := help(t, "receive", "--help")
	for _, want := range []string{"--listen HOST:PORT", "default localhost:4317", "--json"} {
		if !strings.Contains(strings.Join(strings.Fields(receive), " "), want) {
			t.Errorf("the help of receive does not have %q:\n%s", want, receive)
		}
	}
	if strings.Contains(receive, "--interval") {
		t.Errorf("the help of receive has the flags of settings:\n%s", receive)
	}
}

func TestHelp_VersionFlag(t *testing.T) {
	if got, want := help(t, "--version"), help(t, "version"); got != want {
		t.Errorf("--version says %q, version says %q", got, want)
	}
}
