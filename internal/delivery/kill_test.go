package delivery

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// roleAccept accepts requests, one scrape number after the other from
// DELIVERY_TEST_FROM on, writes each number before and after, and never ends
// by itself.
func roleAccept() {
	conn, err := grpc.NewClient(os.Getenv("DELIVERY_TEST_ADDR"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	q, err := Open(Config{Conn: conn, Dir: os.Getenv("DELIVERY_TEST_DIR"), Pace: 1, MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	scrape, err := strconv.Atoi(os.Getenv("DELIVERY_TEST_FROM"))
	if err != nil {
		panic(err)
	}
	for ; ; scrape++ {
		fmt.Printf("accept %d\n", scrape)
		if err := q.Accept(encode(page(scrape, 100)), 100); err != nil {
			panic(err)
		}
		fmt.Printf("accepted %d\n", scrape)
		if os.Getenv("DELIVERY_TEST_STEP") != "" { // one at a time, as the interval has it
			await(q, func(s Stats) bool { return s.QueuedRequests == 0 })
		}
	}
}

// killed starts a process that accepts, kills it at a random moment, and
// returns the numbers of the scrape that it tried last and of the last that was
// accepted.
func killed(t *testing.T, from int, env ...string) (tried, accepted int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), roleEnv+"=accept", fmt.Sprint("DELIVERY_TEST_FROM=", from)), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tried, accepted = from-1, from-1
	lines, kill := bufio.NewScanner(out), 1+rand.IntN(40)
	for n := 0; lines.Scan(); n++ {
		what, number, _ := strings.Cut(lines.Text(), " ")
		scrape, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("the process said %q", lines.Text())
		}
		if what == "accept" {
			tried = scrape
		} else {
			accepted = scrape
		}
		if n == kill { // while it goes on
			_ = cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("it ended by itself: %v", err)
	}
	return tried, accepted
}

func TestKilledFiftyTimesWithTheCollectorDownLosesNothingThatWasAccepted(t *testing.T) {
	dir := t.TempDir()
	l := listen(t, "127.0.0.1:0") // an address where nothing listens
	addr := l.Addr().String()
	_ = l.Close()
	want := ledger{}
	scrape, torn := 0, map[int]bool{}
	for range 50 {
		tried, accepted := killed(t, scrape+1, "DELIVERY_TEST_DIR="+dir, "DELIVERY_TEST_ADDR="+addr)
		for n := scrape + 1; n <= tried; n++ {
			want.add(page(n, 100))
			if n > accepted {
				torn[n] = true // in Accept when it was killed: may be there or not
			}
		}
		scrape = tried
	}
	c := newReceiver()
	q := open(t, Config{Conn: to(c), Dir: dir, Pace: 1})
	s := drained(t, q)
	if len(dropped(s)) != 0 {
		t.Errorf("dropped %v", dropped(s))
	}
	missing := absent(want, c.held)
	for n := range missing {
		if !torn[n] {
			t.Errorf("scrape %d was accepted and is lost", n)
		}
	}
	if d := compare(t, without(want, missing), c.held); d != 0 {
		t.Errorf("%d points twice", d)
	}
	t.Logf("%d scrapes, %d killed in Accept, %d of them lost", scrape, len(torn), len(missing))
}

func TestKilledFiftyTimesWithTheCollectorWellCostsAtMostTheOneInFlight(t *testing.T) {
	dir, c, want := t.TempDir(), newReceiver(), ledger{}
	l := listen(t, "127.0.0.1:0")
	c.serve(t, l)
	scrape, last := 0, map[int]bool{}
	for range 50 {
		tried, _ := killed(t, scrape+1, "DELIVERY_TEST_DIR="+dir, "DELIVERY_TEST_ADDR="+l.Addr().String(), "DELIVERY_TEST_STEP=1")
		for n := scrape + 1; n <= tried; n++ {
			want.add(page(n, 100))
		}
		last[tried] = true
		scrape = tried
	}
	q := open(t, Config{Conn: dial(t, l.Addr().String()), Dir: dir, Pace: 1})
	drained(t, q)
	missing := absent(want, c.held)
	for n := range missing {
		if !last[n] {
			t.Errorf("scrape %d is lost, and was not in flight", n)
		}
	}
	// The answer to the one in flight was cut off where it is there twice.
	if d := compare(t, without(want, missing), c.held); d > 50*100 {
		t.Errorf("%d points twice", d)
	} else {
		t.Logf("%d scrapes, %d lost in flight, %d points twice", scrape, len(missing), d)
	}
}

// absent returns the numbers of the scrapes of which held has no point.
func absent(want, held ledger) map[int]bool {
	out := map[int]bool{}
	for series, points := range want {
		have := map[string]bool{}
		for _, p := range held[series] {
			have[p] = true
		}
		for i, p := range points {
			if !have[p] {
				out[i+1] = true // scrapes are numbered from 1, and each is in want
			}
		}
	}
	return out
}

func without(l ledger, scrapes map[int]bool) ledger {
	out := ledger{}
	for series, points := range l {
		for i, p := range points {
			if !scrapes[i+1] {
				out[series] = append(out[series], p)
			}
		}
	}
	return out
}
