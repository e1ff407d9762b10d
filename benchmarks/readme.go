package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/benchmarks/report"
)

// readmeCommand measures what the table of the README at the root shows, in one run.
func readmeCommand() *cobra.Command {
	var f compareFlags
	cmd := &cobra.Command{
		Use:   "readme",
		Short: "Measure what the README's table shows, and print that table",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.measure(cmd, plainly)
			if err == nil {
				fmt.Fprint(cmd.OutOrStdout(), "\n"+report.Readme(r))
			}
			return err
		},
	}
	d := usual()
	d.Duration, d.Leases = 5*time.Second, 100_000
	f.register(cmd.Flags(), report.ReadmeWorkloads(), d)
	f.registerKeys(cmd.Flags(), d)
	return cmd
}
