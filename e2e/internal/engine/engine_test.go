package engine

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestEngineWorksRestartsAndLeavesNothingBehind(t *testing.T) {
	e := Start(t)
	program := staticProgram(t)
	e.InitSwarm(t)
	e.Work(t, "first", program, "")
	e.Kill(t)
	e.Restart(t)
	e.Work(t, "second", program, "")
	e.Kill(t)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(e.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there (%v)", e.dir, err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Name == e.bridge() {
			t.Errorf("network interface %s is still there", link.Name)
		}
	}
}

// staticProgram builds a program that does nothing and needs no file.
func staticProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}
