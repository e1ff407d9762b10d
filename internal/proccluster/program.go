package proccluster

import (
	"fmt"
	"os"
	"testing"
)

// nodeEnv tells a test binary that it was started as a node.
const nodeEnv = "FLOTILLA_PROCCLUSTER_NODE"

// Program is what a node runs.
type Program struct {
	Path string
	// Env is added to the environment of the test.
	Env []string
}

// Main is the body of a TestMain whose binary also serves as Program: it runs the
// tests or, when started by Self's program, run with the node's arguments.
func Main(m *testing.M, run func(args []string) int) {
	Serve(run)
	os.Exit(m.Run())
}

// Serve is Main for a TestMain that runs the tests in a way of its own: it returns in the process of the tests only.
func Serve(run func(args []string) int) {
	if os.Getenv(nodeEnv) != "" {
		os.Exit(run(os.Args[1:]))
	}
}

// Self is the running test binary as a program. Its TestMain must call Main or Serve.
func Self(env ...string) (Program, error) {
	path, err := os.Executable()
	if err != nil {
		return Program{}, fmt.Errorf("find the test binary: %w", err)
	}
	return Program{Path: path, Env: append([]string{nodeEnv + "=1"}, env...)}, nil
}
