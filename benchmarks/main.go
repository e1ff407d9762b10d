// Command benchmarks measures Flotilla beside other systems, on one machine and
// over loopback only. See README.md for the method and its limits.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "benchmarks",
		Short:         "Measure Flotilla beside other systems",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(compareCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		stop()
		os.Exit(1)
	}
}
