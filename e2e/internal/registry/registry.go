// Package registry serves plugins to an engine as a container registry does,
// from memory and for pulls alone.
package registry

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Media types of a plugin in a registry (moby distribution, plugin).
const (
	typeManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeConfig   = "application/vnd.docker.plugin.v1+json"
	typeLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Registry is a registry on a loopback port. An engine takes one there without
// TLS.
type Registry struct {
	host string

	mu    sync.Mutex
	blobs map[string]blob // by the end of their URL: blobs/DIGEST, manifests/DIGEST, manifests/TAG
}

type blob struct {
	mediaType string
	data      []byte
}

// Start serves an empty registry until the end of the test.
func Start(t *testing.T) *Registry {
	t.Helper()
	r := &Registry{blobs: map[string]blob{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// Push does what `docker plugin push` does with a config.json and a tar archive
// of the rootfs, and returns the reference to pull.
func (r *Registry) Push(t *testing.T, name, tag string, config []byte, rootfs []byte) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(config, &fields); err != nil {
		t.Fatal(err)
	}
	fields["rootfs"] = map[string]any{"type": "layers", "diff_ids": []string{digest(rootfs)}}
	layer := new(bytes.Buffer)
	w := gzip.NewWriter(layer)
	if _, err := w.Write(rootfs); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	manifest := marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest,
		"config": r.add(typeConfig, marshal(t, fields)),
		"layers": []any{r.add(typeLayer, layer.Bytes())},
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reference := range []string{tag, digest(manifest)} {
		r.blobs["manifests/"+reference] = blob{typeManifest, manifest}
	}
	return r.host + "/" + name + ":" + tag
}

// add keeps a blob and returns its descriptor.
func (r *Registry) add(mediaType string, data []byte) map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs["blobs/"+digest(data)] = blob{"application/octet-stream", data}
	return map[string]any{"mediaType": mediaType, "size": len(data), "digest": digest(data)}
}

// ServeHTTP answers /v2/ and /v2/NAME/{blobs,manifests}/REFERENCE.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if req.URL.Path == "/v2/" {
		return
	}
	parts := strings.Split(req.URL.Path, "/")
	r.mu.Lock()
	b, ok := r.blobs[strings.Join(parts[max(0, len(parts)-2):], "/")]
	r.mu.Unlock()
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", b.mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b.data)))
	w.Header().Set("Docker-Content-Digest", digest(b.data))
	_, _ = w.Write(b.data) // for HEAD this writes nothing; an engine that hangs up will ask again
}

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
