//go:build linux

// Command bench runs otelmetricsplugin beside other ways to get a metrics page into OTLP, each as a process of its own on
// the same page, and writes what they cost into docs/performance.md.
//
//	go run ./cmd/bench             all of it: about 25 minutes
//	go run ./cmd/bench -quick      one round at 10,000 samples, printed only: about 2 minutes
//	go run ./cmd/bench -soak 20m   nothing lost and nothing grows while series and the receiver come and go
//	go run ./cmd/bench -flame x.svg    a flame graph of the whole process at 100,000 samples, where perf is installed
//
// It only uses loopback and unix sockets.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are what the flags say.
type options struct {
	root     string
	program  string
	document string
	peers    string

	collectorFormat string

	sizes   []int
	rounds  int
	scrapes int
	quick   bool
	verify  bool
	memory  bool
	soak    time.Duration
	flame   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse()
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // the context's end changes nothing any more
	}
}

func parse() (o options, err error) {
	flag.StringVar(&o.root, "root", "..", "the repository's `directory`")
	flag.StringVar(&o.program, "program", "", "the otelmetricsplugin `binary`; built by make if empty")
	flag.StringVar(&o.document, "document", "docs/performance.md", "the `file` to write the tables into, below the root; none if empty")
	flag.StringVar(&o.peers, "peers", "", "run only programs whose name contains one of these `words`, separated by commas")
	flag.StringVar(&o.collectorFormat, "collector-format", "PrometheusProto", "the `format` that the Collector scrapes; PrometheusText0.0.4 costs it more")
	sizes := flag.String("sizes", "500,10000,100000,1000000", "samples of the `pages`")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each program runs on each page")
	flag.IntVar(&o.scrapes, "scrapes", 10, "scrapes that are measured in one run, at most 3 on the largest page, which has one run")
	flag.BoolVar(&o.quick, "quick", false, "one round at 10,000 samples, written nowhere")
	flag.BoolVar(&o.verify, "verify", false, "decode every request with the generated types as well; this takes CPU from the programs")
	flag.BoolVar(&o.memory, "memory", true, "run the cases of resident memory, too")
	flag.DurationVar(&o.soak, "soak", 0, "run this `long` at 100 ms instead of measuring")
	flag.StringVar(&o.flame, "flame", "", "draw where the time goes at 100,000 samples into this SVG `file`, by perf, instead of measuring")
	flag.Parse()
	if flag.NArg() != 0 {
		return o, fmt.Errorf("unknown arguments %q", flag.Args())
	}
	if o.quick {
		*sizes, o.rounds, o.scrapes, o.memory, o.document = "10000", 1, 5, false, ""
	}
	for size := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil || n < 500 || n > 1_000_000 {
			return o, fmt.Errorf("a page has 500 to 1000000 samples, not %q", size)
		}
		o.sizes = append(o.sizes, n)
	}
	o.root, err = filepath.Abs(o.root)
	return o, err
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs, err := build(ctx, o)
	if err != nil {
		return err
	}
	b := &bench{options: o, programs: programs, dir: dir}
	if o.soak > 0 {
		return b.soakTest(ctx)
	}
	if o.flame != "" {
		return b.flameGraph(ctx)
	}
	report, err := b.measureAll(ctx)
	if report != nil {
		fmt.Println(report.markdown())
	}
	if err != nil || o.document == "" {
		return err
	}
	return report.writeInto(filepath.Join(o.root, o.document))
}

// progress goes to stderr, away from the tables.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}
