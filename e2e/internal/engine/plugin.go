package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

// Plugin is a managed plugin of one engine.
type Plugin struct {
	// Name is the plugin's name with its tag, ID what the engine calls it.
	Name, ID string

	engine *Engine
}

// CreatePlugin does what `docker plugin create` does with a config.json and a
// rootfs that holds one file, the program. The plugin is removed at the end of
// the test.
func (e *Engine) CreatePlugin(t *testing.T, name string, config []byte, program string) *Plugin {
	t.Helper()
	var settings struct{ Entrypoint []string }
	if err := json.Unmarshal(config, &settings); err != nil || len(settings.Entrypoint) == 0 {
		t.Fatalf("config.json names no entrypoint (%v)", err)
	}
	binary, err := os.ReadFile(program) //nolint:gosec // the binary that the test has built
	if err != nil {
		t.Fatal(err)
	}
	archive := Archive(t,
		File{Name: "config.json", Mode: 0o644, Data: config},
		File{Name: "rootfs" + settings.Entrypoint[0], Mode: 0o755, Data: binary},
	)
	p := &Plugin{Name: name, engine: e}
	e.must(t, http.MethodPost, "/plugins/create?name="+url.QueryEscape(name), archive, nil)
	p.removeAtEnd(t)
	p.ID = p.inspect(t).ID
	return p
}

func (p *Plugin) removeAtEnd(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if err := p.remove(context.Background()); err != nil {
			t.Errorf("remove what the test made: %v", err)
		}
	})
}

// InstallPlugin does what `docker plugin install --disable --alias NAME` does
// with a reference to a registry, and grants what the plugin asks for. The
// plugin is removed at the end of the test.
func (e *Engine) InstallPlugin(t *testing.T, name, reference string) *Plugin {
	t.Helper()
	p := &Plugin{Name: name, engine: e}
	p.pull(t, "/plugins/pull?name="+url.QueryEscape(name)+"&remote=", reference)
	p.removeAtEnd(t)
	p.ID = p.inspect(t).ID
	return p
}

// Upgrade does what `docker plugin upgrade` does; the plugin must be disabled.
func (p *Plugin) Upgrade(t *testing.T, reference string) {
	t.Helper()
	p.pull(t, p.path("/upgrade?remote="), reference)
}

func (p *Plugin) pull(t *testing.T, path, reference string) {
	t.Helper()
	var privileges []any
	p.engine.must(t, http.MethodGet, "/plugins/privileges?remote="+url.QueryEscape(reference), nil, &privileges)
	p.engine.must(t, http.MethodPost, path+url.QueryEscape(reference), privileges, nil)
}

// Set does what `docker plugin set` does; the plugin must be disabled.
func (p *Plugin) Set(t *testing.T, settings ...string) {
	t.Helper()
	p.engine.must(t, http.MethodPost, p.path("/set"), settings, nil)
}

// Enable does what `docker plugin enable` does.
func (p *Plugin) Enable(t *testing.T) {
	t.Helper()
	if err := p.TryEnable(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, p.engine.Tail(20))
	}
}

// TryEnable is Enable for a plugin that may refuse.
func (p *Plugin) TryEnable(ctx context.Context) error {
	return p.engine.Do(ctx, http.MethodPost, p.path("/enable?timeout=30"), nil, nil)
}

// Disable does what `docker plugin disable` does.
func (p *Plugin) Disable(t *testing.T) {
	t.Helper()
	p.engine.must(t, http.MethodPost, p.path("/disable"), nil, nil)
}

// Enabled reports what `docker plugin ls` shows.
func (p *Plugin) Enabled(t *testing.T) bool {
	t.Helper()
	return p.inspect(t).Enabled
}

// Kill ends the plugin's process with SIGKILL, and returns when it is gone.
func (p *Plugin) Kill(t *testing.T) {
	t.Helper()
	proc, err := p.process()
	if err == nil {
		err = proc.kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Log returns the lines of the engine's log from the mark on that name the
// plugin: what it wrote itself, and what the engine has to say of it.
func (p *Plugin) Log(mark int) []string {
	return slices.DeleteFunc(p.engine.Log.Since(mark), func(line string) bool { return !strings.Contains(line, p.ID) })
}

// PID is the id of the plugin's process.
func (p *Plugin) PID(t *testing.T) int {
	t.Helper()
	proc, err := p.process()
	if err != nil {
		t.Fatal(err)
	}
	return proc.pid
}

// process is the plugin's process: the one in the plugin's cgroup.
func (p *Plugin) process() (process, error) {
	procs, err := processes()
	if err != nil {
		return process{}, err
	}
	for _, proc := range procs {
		if strings.Contains(proc.cgroup, p.ID) {
			return proc, nil
		}
	}
	return process{}, fmt.Errorf("plugin %s has no process", p.Name)
}

type plugin struct {
	ID      string `json:"Id"`
	Name    string
	Enabled bool
}

func (p *Plugin) inspect(t *testing.T) (info plugin) {
	t.Helper()
	p.engine.must(t, http.MethodGet, p.path("/json"), nil, &info)
	return info
}

func (p *Plugin) path(verb string) string { return "/plugins/" + p.Name + verb }

func (p *Plugin) remove(ctx context.Context) error {
	if p.engine.ended() {
		return nil // Close will start it once more and do so
	}
	err := ignore(p.engine.Do(ctx, http.MethodPost, p.path("/disable?force=1"), nil, nil), http.StatusConflict, http.StatusNotFound)
	return errors.Join(err, // 409: it is disabled already
		ignore(p.engine.Do(ctx, http.MethodDelete, p.path("?force=1"), nil, nil), http.StatusNotFound))
}

func (e *Engine) removePlugins() error {
	ctx := context.Background()
	var all []plugin
	if err := e.Do(ctx, http.MethodGet, "/plugins", nil, &all); err != nil {
		return err
	}
	var errs []error
	for _, info := range all {
		errs = append(errs, (&Plugin{Name: info.Name, ID: info.ID, engine: e}).remove(ctx))
	}
	return errors.Join(errs...)
}

// File is one file of an archive.
type File struct {
	Name string
	Mode int64
	Data []byte
}

// Archive makes a tar archive.
func Archive(t *testing.T, files ...File) *bytes.Buffer {
	t.Helper()
	archive := new(bytes.Buffer)
	w := tar.NewWriter(archive)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return archive
}
