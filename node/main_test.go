package node_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Every test of the package closes what it started; here it shows.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The Pebble that dragonboat's log is kept in leaves this behind when it cannot open
		// a damaged log. The process of a real node ends then.
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/vfs.(*diskHealthCheckingFS).startTickerLocked.func1"))
}
