package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"otelmetricsplugin/e2e/internal/loopback"
)

// InitSwarm makes the engine the manager of a swarm of its own, which adds
// most of what an engine's page can hold.
func (e *Engine) InitSwarm(t *testing.T) {
	t.Helper()
	// A swarm wants a bridge for its ingress network in the network namespace
	// of the machine. Under a name of its own it meets no other engine's.
	e.must(t, http.MethodPost, "/networks/create", map[string]any{
		"Name": "docker_gwbridge", "Driver": "bridge",
		"Options": map[string]string{"com.docker.network.bridge.name": e.bridge()},
	}, nil)
	e.clean = append(e.clean, func() error {
		return e.Do(context.Background(), http.MethodDelete, "/networks/docker_gwbridge", nil, nil)
	})
	listen := loopback.FreeAddress(t)
	e.must(t, http.MethodPost, "/swarm/init", map[string]any{"ListenAddr": listen, "AdvertiseAddr": listen}, nil)
	e.clean = append(e.clean, func() error {
		return e.Do(context.Background(), http.MethodPost, "/swarm/leave?force=1", nil, nil)
	})
}

func (e *Engine) bridge() string {
	name := "otm" + e.dir[strings.LastIndexByte(e.dir, '-')+1:]
	return name[:min(len(name), 15)] // IFNAMSIZ
}

// Work makes the engine count: a volume, a build that succeeds and one that
// does not, and a container that runs the program, which must be static and
// understand the argument. The name must be new to the engine.
func (e *Engine) Work(t *testing.T, name, program, argument string) {
	t.Helper()
	e.must(t, http.MethodPost, "/volumes/create", map[string]any{"Name": name}, nil)
	e.must(t, http.MethodDelete, "/volumes/"+name, nil, nil)

	binary, err := os.ReadFile(program) //nolint:gosec // the binary that the test has built
	if err != nil {
		t.Fatal(err)
	}
	e.must(t, http.MethodPost, "/build?t="+url.QueryEscape(name), Archive(t,
		File{Name: "Dockerfile", Mode: 0o644, Data: fmt.Appendf(nil, "FROM scratch\nCOPY program /program\nENTRYPOINT [\"/program\", %q]\n", argument)},
		File{Name: "program", Mode: 0o755, Data: binary},
	), nil)
	err = e.Do(t.Context(), http.MethodPost, "/build", Archive(t,
		File{Name: "Dockerfile", Mode: 0o644, Data: []byte("FROM scratch\nNONSENSE\n")}), nil)
	if answer := new(Error); !errors.As(err, &answer) || answer.Status != http.StatusBadRequest {
		t.Fatalf("a Dockerfile with an unknown instruction gave %v, want status 400", err)
	}

	var container struct{ ID string }
	e.must(t, http.MethodPost, "/containers/create?name="+name, map[string]any{
		"Image": name, "HostConfig": map[string]any{"NetworkMode": "none"},
	}, &container)
	e.must(t, http.MethodPost, "/containers/"+container.ID+"/start", nil, nil)
	var result struct{ StatusCode int }
	e.must(t, http.MethodPost, "/containers/"+container.ID+"/wait", nil, &result)
	if result.StatusCode != 0 {
		t.Fatalf("container %s ended with status %d", name, result.StatusCode)
	}
	e.must(t, http.MethodDelete, "/containers/"+container.ID, nil, nil)
	e.must(t, http.MethodDelete, "/images/"+name, nil, nil)
}
