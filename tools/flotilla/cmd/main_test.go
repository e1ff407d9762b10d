package cmd_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
	"github.com/flotilla-kv/flotilla/internal/timerslack"
	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// The test binary also is the flotilla binary, for the tests that need a process. It widens its timer slack at once:
// otherwise the first test that calls start would execute it anew, and all tests would run again.
func TestMain(m *testing.M) {
	if err := timerslack.Widen(); err != nil {
		fmt.Fprintln(os.Stderr, err) // a node, too, goes on without
	}
	proccluster.Main(m, func(args []string) int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return cmd.Run(ctx, args, os.Stdout, os.Stderr)
	})
}
