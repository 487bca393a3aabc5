//go:build !unix

package receive

import "os"

func terminalWidth(*os.File) int { return 0 }
