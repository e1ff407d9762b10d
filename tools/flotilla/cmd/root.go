// Package cmd holds the commands of the flotilla binary, one file each.
package cmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Exit codes that scripts can rely on.
const (
	exitOK     = 0
	exitFailed = 1
)

// Run executes the command line and returns the exit code. Cancelling ctx asks a
// running command to stop in order.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "flotilla:", err)
		return exitFailed
	}
	return exitOK
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "flotilla",
		Short:         "An etcd-compatible key-value store that scales writes out",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newStart(), newDemo(), newVersion())
	return root
}
