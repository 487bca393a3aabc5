//go:build !linux

package sandbox

import "errors"

// Enter drops nothing: what it would drop is Linux's own.
func Enter(Paths) (Report, error) {
	return Report{Capabilities: true, CoreDumps: true}, errors.ErrUnsupported
}
