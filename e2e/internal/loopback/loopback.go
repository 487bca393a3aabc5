// Package loopback finds addresses for the listeners of tests.
package loopback

import (
	"net"
	"testing"
)

// FreeAddress returns a host:port of the loopback interface that nothing
// listens on.
func FreeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
