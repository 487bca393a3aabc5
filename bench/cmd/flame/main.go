// Command flame turns a CPU profile of the go command or of pprof into a flame graph, an SVG on stdout.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/google/pprof/profile"

	"otelmetricsplugin/bench/internal/flame"
)

func main() {
	title := flag.String("title", "CPU time", "the picture's `title`")
	root := flag.String("root", "", "keep only stacks with a function whose name contains this `word`, from there on")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: flame [-title TITLE] [-root WORD] PROFILE > flame.svg")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, flag.Arg(0), *title, *root); err != nil {
		fmt.Fprintln(os.Stderr, "flame:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, name, title, root string) error {
	file, err := os.Open(name) //nolint:gosec // the caller names it
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	p, err := profile.Parse(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return flame.Write(w, flame.FromProfile(p), title, root)
}
