package router

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Random tests print how to run them again with the same seed.
var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the random tests; 0 takes a few fixed ones")
	stepsFlag = flag.Int("steps", 120, "requests per client of the random tests")
)
