package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// maxBinary bounds the size of the stripped binary: 13 MiB.
const maxBinary = 13 << 20

// shipped is the program built as it is shipped, with what the linker says of
// what it keeps and why.
var shipped struct {
	once         sync.Once
	dir          string // removed by TestMain
	binary       string
	dependencies []byte
	err          error
}

// shippedBinary builds the program with the flags of the Makefile.
func shippedBinary(t testing.TB) string {
	t.Helper()
	shipped.once.Do(func() {
		if shipped.dir, shipped.err = os.MkdirTemp("", "otelmetricsplugin"); shipped.err != nil {
			return
		}
		shipped.binary = filepath.Join(shipped.dir, "otelmetricsplugin")
		build := exec.Command("go", "build", "-trimpath", "-tags", makefileTags(t), "-ldflags", "-s -w -funcalign=16 -dumpdep", "-o", shipped.binary, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		var output bytes.Buffer
		build.Stdout, build.Stderr = &output, &output
		shipped.err = build.Run()
		shipped.dependencies = output.Bytes()
	})
	if shipped.err != nil {
		t.Fatalf("go build: %v:\n%.4000s", shipped.err, shipped.dependencies)
	}
	return shipped.binary
}

// makefileTags returns the build tags that the Makefile sets.
func makefileTags(t testing.TB) string {
	t.Helper()
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	tags := regexp.MustCompile(`(?m)^TAGS := (\S+)$`).FindSubmatch(makefile)
	if tags == nil {
		t.Fatal("the Makefile does not set TAGS")
	}
	return string(tags[1])
}

func TestBinary_Size(t *testing.T) {
	info, err := os.Stat(shippedBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxBinary {
		t.Errorf("the binary has %d bytes, the bound is %d; go tool nm -size -sort size shows what is large", info.Size(), maxBinary)
	}
	t.Logf("the binary has %d bytes, %.2f MiB", info.Size(), float64(info.Size())/(1<<20))
}

// TestBinary_Deadcode: a function that looks methods up by a name that the linker
// cannot see makes it keep every exported method of every type in reach,
// which here are 3 MB. reflect has such functions itself; what counts is who
// calls them.
func TestBinary_Deadcode(t *testing.T) {
	shippedBinary(t)
	marked := 0
	for line := range strings.Lines(string(shipped.dependencies)) {
		from, to, found := strings.Cut(line, " -> ")
		if !found {
			continue
		}
		marked++
		if strings.Contains(from, "<ReflectMethod>") || strings.Contains(to, "<ReflectMethod>") {
			t.Errorf("the linker keeps every method because of: %s", strings.TrimSpace(line))
		}
	}
	if marked < 10_000 {
		t.Errorf("the linker named only %d dependencies", marked)
	}
}

// TestBinary_Dockerfile: the two builds have the same tags.
func TestBinary_Dockerfile(t *testing.T) {
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if want := "-tags=" + makefileTags(t) + " "; !strings.Contains(string(dockerfile), want) {
		t.Errorf("the Dockerfile does not build with %s", want)
	}
}
