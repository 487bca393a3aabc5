package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"otelmetricsplugin/internal/settings"
)

const (
	helpWidth  = 80
	helpColumn = 31 // where the texts start
)

// writeHelp writes the help of a command or, of the plugin, of the program.
func writeHelp(w io.Writer, line commandLine) {
	top := line.command.name == ""
	if top {
		fmt.Fprint(w, "Usage: otelmetricsplugin [command] [flags]\n\n")
	} else {
		fmt.Fprintf(w, "Usage: otelmetricsplugin %s [flags]\n\n", line.command.name)
	}
	paragraph(w, line.command.summary+".", 0)

	if top {
		fmt.Fprint(w, "\nCommands:\n")
		for _, c := range commands[1:] {
			entry(w, "  "+c.name, c.summary)
		}
	}

	fmt.Fprint(w, "\nFlags:\n")
	line.flags.VisitAll(func(f *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(f)
		if value != "" {
			value = " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" {
			usage += "; default " + f.DefValue
		}
		entry(w, "      --"+f.Name+value, usage)
	})
	entry(w, "  -h, --help", "Show this help")

	if line.command.settings {
		fmt.Fprint(w, "\nEnvironment variables without a flag:\n")
		for _, s := range settings.Table() {
			if s.Flag == "" {
				entry(w, "  "+s.Name, s.Plain())
			}
		}
	}
	if top {
		fmt.Fprint(w, "\nThe flags of a command: otelmetricsplugin <command> --help\n")
	}
}

// entry writes a name and, in a column of its own, what it means.
func entry(w io.Writer, name, text string) {
	if len(name) >= helpColumn-1 {
		fmt.Fprintln(w, name)
		name = ""
	}
	fmt.Fprintf(w, "%-*s", helpColumn, name)
	paragraph(w, text, helpColumn)
}

// paragraph writes words in lines; all but the first line are indented.
func paragraph(w io.Writer, text string, indent int) {
	column := indent
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > helpWidth:
			fmt.Fprintf(w, "\n%*s", indent, "")
			column = indent
		default:
			fmt.Fprint(w, " ")
			column++
		}
		fmt.Fprint(w, word)
		column += n
	}
	fmt.Fprintln(w)
}
