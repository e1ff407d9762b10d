// Package cmd holds the commands of the flotilla binary, one file each.
package cmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/node"
)

// Exit codes that scripts can rely on.
const (
	exitOK     = 0
	exitFailed = 1
)

// Run executes the command line and returns the exit code. Cancelling ctx asks a
// running command to stop in order.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return RunAdjusted(ctx, args, stdout, stderr, func(*node.Config) {})
}

// RunAdjusted is Run for tests that run real nodes with another clock or with bugs
// planted: adjust changes a node's configuration before it starts.
func RunAdjusted(ctx context.Context, args []string, stdout, stderr io.Writer, adjust func(*node.Config)) int {
	root := newRoot(adjust)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "flotilla:", err)
		return exitFailed
	}
	return exitOK
}

func newRoot(adjust func(*node.Config)) *cobra.Command {
	root := &cobra.Command{
		Use:           "flotilla",
		Short:         "An etcd-compatible key-value store that scales writes out",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newStart(adjust), newDemo(), newVersion())
	return root
}
