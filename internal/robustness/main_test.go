package robustness_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
)

// knobsEnv carries the planted bugs from the test to the nodes it starts. Only this
// test binary reads it; the production binary has no such door.
const knobsEnv = "FLOTILLA_TEST_KNOBS"

func TestMain(m *testing.M) {
	proccluster.Main(m, func(args []string) int {
		var knobs []string
		if list := os.Getenv(knobsEnv); list != "" {
			knobs = strings.Split(list, ",")
		}
		run := nodeEntry(knobs)
		if run == nil {
			fmt.Fprintln(os.Stderr, "this test binary has no node linked in")
			return 2
		}
		return run(args)
	})
}

// flags choose what is tested and how long.
type flags struct {
	seed     int64
	seeds    int
	duration time.Duration
	flotilla string
	etcd     string
	planted  bool
}

func readFlags() flags {
	return flags{
		seed: *seedFlag, seeds: *seedsFlag, duration: *durationFlag,
		flotilla: *flotillaFlag, etcd: *etcdFlag, planted: *plantedFlag,
	}
}

// The flag package wants its variables before TestMain runs; nothing else changes them.
var (
	seedFlag     = flag.Int64("seed", 1, "first seed")
	seedsFlag    = flag.Int("seeds", 1, "how many seeds to run, one after the other")
	durationFlag = flag.Duration("duration", 8*time.Second, "how long each run is under load")
	flotillaFlag = flag.String("flotilla", "", "flotilla binary to test, instead of the node in this test binary")
	etcdFlag     = flag.String("etcd", "", "etcd binary: prove on it that the harness raises no false alarm")
	plantedFlag  = flag.Bool("planted", false, "plant every known bug and require that it is found (minutes)")
)
