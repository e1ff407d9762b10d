package node_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
)

// clustersMax is how many tests run at a time unless -parallel says otherwise. Each has a
// cluster, which mostly waits for disks and elections, so more of them than there are
// processors get on at once.
const clustersMax = 4

// Every test of the package closes what it started; here it shows.
func TestMain(m *testing.M) {
	proccluster.Serve(serveOnAFaultyDisk)
	flag.Parse()
	if !given("test.parallel") {
		if err := flag.Set("test.parallel", fmt.Sprint(clustersMax)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	goleak.VerifyTestMain(m,
		// The Pebble that dragonboat's log is kept in leaves this behind when it cannot open
		// a damaged log. The process of a real node ends then.
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/vfs.(*diskHealthCheckingFS).startTickerLocked.func1"))
}

// given reports whether the flag is on the command line.
func given(name string) bool {
	found := false
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}
