//go:build !race

package delivery

// raceEnabled is whether the race detector runs, which takes memory of its own.
const raceEnabled = false
