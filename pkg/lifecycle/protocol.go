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

// maxBody limits what is read of a request's body: engines send nothing, or {}.
const maxBody = 64 << 10

// Handler returns a handler of the MetricsCollector protocol: /Plugin.Activate,
// /MetricsCollector.StartMetrics and /MetricsCollector.StopMetrics. A success is
// 200 with {"Err":""}, a failure 500 with {"Err":"..."}, the one form that
// every engine logs.
func (m *Manager) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /Plugin.Activate", func(w http.ResponseWriter, r *http.Request) {
		// Engines send it to plugins that they find by their socket, never to
		// managed ones.
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

// respond discards the request's body, calls do and writes answer.
func respond(w http.ResponseWriter, r *http.Request, answer any, do func()) {
	w.Header().Set("Content-Type", contentType)
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		answer = map[string]string{"Err": fmt.Sprintf("reading the request: %v", err)}
	} else if do != nil {
		do()
	}
	_ = json.NewEncoder(w).Encode(answer) // fails only if the engine hung up
}

// NewServer returns an HTTP server for the plugin socket, with a time limit on
// every phase of a request.
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

// Listen listens on the plugin socket. It removes the socket that an earlier
// process left there, and no other kind of file.
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
