package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/flotilla-kv/flotilla/internal/timerslack"
)

// The test binary widens its timer slack at once: otherwise the first node that a test starts in it would execute it
// anew, and all tests would run again.
func TestMain(m *testing.M) {
	if err := timerslack.Widen(); err != nil {
		fmt.Fprintln(os.Stderr, err) // a node, too, goes on without
	}
	os.Exit(m.Run())
}
