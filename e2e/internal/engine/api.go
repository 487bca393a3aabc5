package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// apiVersion is Engine 20.10's, the oldest engine that is tried.
const apiVersion = "v1.41"

// An Error is an answer of the engine's API that is no success.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Message) }

// Do calls the engine's API. The body may be nil, an io.Reader that holds a
// tar archive, or a value to be sent as JSON; the answer is read to its end and
// decoded into out unless that is nil.
func (e *Engine) Do(ctx context.Context, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	data, err := e.call(ctx, method, path, body)
	if err == nil && out != nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		return fmt.Errorf("engine API: %s %s: %w", method, path, err)
	}
	return nil
}

func (e *Engine) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	var reader io.Reader
	contentType := "application/json"
	switch body := body.(type) {
	case nil:
	case io.Reader:
		reader, contentType = body, "application/x-tar"
	default:
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/"+apiVersion+path, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", e.Socket())
		},
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	// A long call is answered before it is done, with a stream of progress
	// that may end in an error.
	for line := range bytes.Lines(data) {
		var progress struct{ Error string }
		if json.Unmarshal(line, &progress) == nil && progress.Error != "" {
			return nil, &Error{Status: res.StatusCode, Message: progress.Error}
		}
	}
	if res.StatusCode >= http.StatusBadRequest {
		var message struct{ Message string }
		if json.Unmarshal(data, &message) != nil {
			message.Message = strings.TrimSpace(string(data))
		}
		return nil, &Error{Status: res.StatusCode, Message: message.Message}
	}
	return data, nil
}

// must calls the engine's API for a test that cannot go on without it.
func (e *Engine) must(t *testing.T, method, path string, body, out any) {
	t.Helper()
	if err := e.Do(t.Context(), method, path, body, out); err != nil {
		t.Fatal(err)
	}
}

// ignore drops the errors that mean "already so" when undoing things.
func ignore(err error, statuses ...int) error {
	var answer *Error
	if errors.As(err, &answer) {
		for _, status := range statuses {
			if answer.Status == status {
				return nil
			}
		}
	}
	return err
}
