package main

import (
	"os"
	"runtime"
)

// crowdSpace is how many bytes of garbage a process of thousands of clients may have, whatever it keeps. Each collection
// scans all their stacks. At Go's default that was two fifths of the processor time of 10,000 clients and a fifth of that of
// 1,000, which the servers beside them did not have. A larger GOGC instead gives a larger crowd more memory:
// eight times as much was new to the process for most of an overload, and page faults took a fifth of its time.
const crowdSpace, crowdPiece = 512 << 20, 1 << 20

// collectRarely makes the space, until release is called. It leaves the choice to an operator who has made one.
func collectRarely() (release func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	// It is never written to, so it takes no memory. Go collects when there is as much garbage as there is other data.
	ballast := make([]byte, crowdSpace)
	// The space itself has to be the process's before anything is measured.
	for garbage := 0; garbage < crowdSpace; garbage += crowdPiece {
		clear(make([]byte, crowdPiece))
	}
	return func() { runtime.KeepAlive(ballast) }
}
