package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// contentType is the media type of the plugin protocol (moby
// pkg/plugins/transport).
const contentType = "application/vnd.docker.plugins.v1.2+json"

// maxBody bounds what is read of a request: engines send nothing, or {}.
const maxBody = 64 << 10

// Handler serves the MetricsCollector protocol: /Plugin.Activate,
// /MetricsCollector.StartMetrics and /MetricsCollector.StopMetrics. A success is
// 200 with {"Err":""}, a failure 500 with {"Err":"..."}: the one form that
// every engine logs.
func (m *Manager) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /Plugin.Activate", func(w http.ResponseWriter, r *http.Request) {
		// Sent to a plugin that was found by its socket, never to a managed one.
		respond(w, r, map[string][]string{"Implements": {"MetricsCollector"}}, nil)
	})
	mux.HandleFunc("POST /MetricsCollector.StartMetrics", func(w http.ResponseWriter, r *http.Request) {
		respond(w, r, map[string]string{"Err": ""}, m.Start)
	})
	mux.HandleFunc("POST /MetricsCollector.StopMetrics", func(w http.ResponseWriter, r *http.Request) {
		respond(w, r, map[string]string{"Err": ""}, m.Stop)
	})
	return mux
}

// respond reads the request's body away, does what was asked for and answers.
// What the body says is of no interest.
func respond(w http.ResponseWriter, r *http.Request, answer any, do func()) {
	w.Header().Set("Content-Type", contentType)
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		answer = map[string]string{"Err": fmt.Sprintf("reading the request: %v", err)}
	} else if do != nil {
		do()
	}
	_ = json.NewEncoder(w).Encode(answer) // the engine hung up: there is nobody to tell
}

// NewServer returns an HTTP server for the plugin socket, with a bound on every
// phase of a request.
func NewServer(m *Manager) *http.Server {
	return &http.Server{
		Handler:           m.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

// Listen listens on the plugin socket; a file that a process before left there
// is removed.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the engine's own mode
		return nil, fmt.Errorf("plugin socket: %w", err)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("plugin socket: %w", err)
	case info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("plugin socket: %s exists and is not a socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("plugin socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path) //nolint:noctx // listening on a path does not wait
	if err != nil {
		return nil, fmt.Errorf("plugin socket: %w", err)
	}
	return l, nil
}
