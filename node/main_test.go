package node_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Every test of the package closes what it started; here it shows.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
