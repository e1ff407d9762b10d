package cmd_test

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// The test binary also is the flotilla binary, for the tests that need a process.
func TestMain(m *testing.M) {
	proccluster.Main(m, func(args []string) int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return cmd.Run(ctx, args, os.Stdout, os.Stderr)
	})
}
