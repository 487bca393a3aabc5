package collector

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxFileBytes bounds the files of certificates, keys and headers.
const maxFileBytes = 1 << 20

// readFile reads a regular file of at most maxFileBytes. What is read at each
// request and handshake must not block, as opening a FIFO does, and must end,
// as a device does not.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // the settings name it
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxFileBytes:
		return nil, fmt.Errorf("%s has %d bytes; the limit is %d", path, info.Size(), maxFileBytes)
	}
	return io.ReadAll(io.LimitReader(f, maxFileBytes))
}
