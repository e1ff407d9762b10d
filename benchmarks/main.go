// Command benchmarks measures Flotilla on one machine over loopback, in comparison with other systems
// and during events such as splits and lost nodes. See README.md for the method and its limits.
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
		Short:         "Measure Flotilla beside other systems, and while things happen to it",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(readmeCommand(), compareCommand(), rateCommand(), growCommand(), reshapeCommand(), shiftCommand(), lossCommand(),
		scaleCommand(), overloadCommand(), renewLeasesCommand(), holdFsyncsCommand(), reportCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		stop()
		os.Exit(1)
	}
}
