package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"otelmetricsplugin/internal/settings"
)

// command is one command of the program.
type command struct {
	name    string // "" for the plugin
	summary string
	// settings is whether the command reads the settings, and so has their flags.
	settings bool
	// setup adds the flags that only this command has, and returns what runs it
	// once they are parsed. Its result is the exit code.
	setup func(*program, *pflag.FlagSet) func(context.Context) int
}

// commands are all of them, the one without a name first.
var commands = []command{pluginCommand, runCommand, printCommand, receiveCommand, versionCommand}

// commandLine is a parsed command line.
type commandLine struct {
	command command
	flags   *pflag.FlagSet
	run     func(context.Context) int
}

func (p *program) newLine(c command) commandLine {
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard)
	flags.Usage = func() {} // run writes the help
	if c.settings {
		for _, s := range settings.Table() {
			if s.Flag != "" {
				flags.Var(&settingFlag{s, p.given}, s.Flag, fmt.Sprintf("%s ($%s)", s.Plain(), s.Name))
			}
		}
	}
	return commandLine{c, flags, c.setup(p, flags)}
}

// settingFlag is the flag of a setting; the value is validated together with all
// others.
type settingFlag struct {
	setting settings.Setting
	given   map[string]string
}

func (f *settingFlag) Set(text string) error {
	f.given[f.setting.Name] = text
	return nil
}
func (f *settingFlag) Type() string   { return f.setting.Value }
func (f *settingFlag) String() string { return "" } // the setting's text names the default

// parse parses a command line. The flags of settings may be before the command,
// too. The error is [pflag.ErrHelp] if help was asked for.
func (p *program) parse(args []string) (commandLine, error) {
	line := p.newLine(commands[0])
	line.flags.SetInterspersed(false)
	version := line.flags.Bool("version", false, "Show what the command version shows")
	if err := line.flags.Parse(args); err != nil {
		return line, flagError(err, line.flags)
	}
	if *version {
		return p.newLine(versionCommand), nil
	}
	if line.flags.NArg() == 0 {
		return line, nil
	}
	args = line.flags.Args()
	i := slices.IndexFunc(commands[1:], func(c command) bool { return c.name == args[0] })
	if i < 0 {
		return line, fmt.Errorf("unexpected argument %s", printable(args[0]))
	}
	line = p.newLine(commands[1+i])
	for _, s := range settings.Table() {
		if _, given := p.given[s.Name]; given && !line.command.settings {
			return line, fmt.Errorf("%s has no flag --%s", line.command.name, s.Flag)
		}
	}
	if err := line.flags.Parse(args[1:]); err != nil {
		return line, flagError(err, line.flags)
	}
	if line.flags.NArg() > 0 {
		return line, fmt.Errorf("unexpected argument %s", printable(line.flags.Arg(0)))
	}
	return line, nil
}

// flagError says in our words what pflag found.
func flagError(err error, flags *pflag.FlagSet) error {
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return fmt.Errorf("unknown flag -%s", printable(unknown.GetSpecifiedShortnames()))
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if similar := similarFlag(name, flags); similar != "" {
			return fmt.Errorf("unknown flag --%s, did you mean --%s?", printable(name), similar)
		}
		return fmt.Errorf("unknown flag --%s", printable(name))
	case errors.As(err, &missing):
		return fmt.Errorf("--%s needs a value", missing.GetFlag().Name)
	case errors.As(err, &invalid):
		return fmt.Errorf("--%s=%q: want true or false", invalid.GetFlag().Name, invalid.GetValue()) // only a bool has bad values here
	}
	return err
}

// similarFlag returns the flag of which name is the beginning, or which is
// within two changed letters of it; "" if there is none.
func similarFlag(name string, flags *pflag.FlagSet) (similar string) {
	best := 3
	flags.VisitAll(func(f *pflag.Flag) {
		d := distance(name, f.Name)
		if len(name) > 2 && strings.HasPrefix(f.Name, name) {
			d = min(d, 2)
		}
		if d < best {
			best, similar = d, f.Name
		}
	})
	return similar
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// printable returns an argument as it is, or quoted if it has line breaks or the
// like.
func printable(argument string) string {
	if quoted := strconv.Quote(argument); quoted != `"`+argument+`"` {
		return quoted
	}
	return argument
}
