package cmd

import (
	"os"
	"runtime/debug"
)

// gcPercent trades memory for CPU. A node's live heap is small (its block cache lies
// outside of it) and its garbage is short-lived: at Go's 100 a tenth of the CPU under
// load went into collecting it.
const gcPercent = 300

// tuneGarbageCollector leaves the choice to an operator who has made one.
func tuneGarbageCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
