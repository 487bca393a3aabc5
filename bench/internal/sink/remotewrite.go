package sink

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// RemoteWrite is a receiver of Prometheus remote write 1.0 on a loopback port. It takes snappy, and zstd as
// VictoriaMetrics does.
type RemoteWrite struct {
	// URL is where to write.
	URL string

	counter
	prefix string
	http   http.Server

	mu   sync.Mutex // of what follows, which is used again and again
	body []byte
	data []byte
	zstd *zstd.Decoder
}

// NewRemoteWrite returns a started receiver that counts samples of series whose name starts with prefix.
func NewRemoteWrite(prefix string) (*RemoteWrite, error) {
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	s := &RemoteWrite{URL: "http://" + listener.Addr().String() + "/api/v1/write", prefix: prefix, zstd: decoder}
	s.http = http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(s.serve)}
	go func() { _ = s.http.Serve(listener) }()
	return s, nil
}

// Close ends the listener and every connection.
func (s *RemoteWrite) Close() error { return s.http.Close() }

func (s *RemoteWrite) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodPost { // vmagent asks for what the receiver can do
		http.NotFound(w, r)
		return
	}
	err := s.read(r)
	if err != nil {
		s.add(0, 0, err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	samples, err := Samples(s.data, s.prefix)
	s.wire.Add(int64(len(s.body)))
	s.add(len(s.data), samples, err)
	w.WriteHeader(http.StatusNoContent)
}

func (s *RemoteWrite) read(r *http.Request) (err error) {
	s.body = s.body[:0]
	for {
		if len(s.body) == cap(s.body) {
			s.body = append(s.body, 0)[:len(s.body)]
		}
		n, err := r.Body.Read(s.body[len(s.body):cap(s.body)])
		s.body = s.body[:len(s.body)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if r.Header.Get("Content-Encoding") == "zstd" {
		s.data, err = s.zstd.DecodeAll(s.body, s.data[:0])
		return err
	}
	s.data, err = snappy.Decode(s.data[:cap(s.data)], s.body)
	return err
}
