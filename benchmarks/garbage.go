package main

import (
	"os"
	"runtime/debug"
)

// crowdGCPercent is for a process that is thousands of clients. Each collection looks at the stacks of all of
// them; at Go's 100 that was two fifths of the processor time of 10,000, a fifth of that of 1,000, and the servers beside
// them did not have it.
const crowdGCPercent = 800

// collectRarely leaves the choice to an operator who has made one.
func collectRarely() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(crowdGCPercent)
	}
}
