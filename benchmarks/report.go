package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/benchmarks/peer"
	"github.com/flotilla-kv/flotilla/benchmarks/report"
)

// newReport begins a report of what is run now, with data in dir. Of ready binaries of
// Flotilla nobody knows what they were built from.
func newReport(ctx context.Context, dir string, binaries ...string) (report.Report, error) {
	root, _ := peer.Root(ctx) // outside of it, ready binaries can be measured all the same
	commit := report.Commit(ctx, root)
	if len(binaries) > 0 {
		commit += " of the load, servers are " + strings.Join(binaries, " and ")
	}
	machine, err := report.ThisMachine(dir)
	return report.Report{
		Version: report.FormatVersion, Started: time.Now(), Commit: commit,
		Command: "go run ./benchmarks " + strings.Join(os.Args[1:], " "),
		Machine: machine,
	}, err
}

func reportCommand() *cobra.Command {
	var readme bool
	cmd := &cobra.Command{
		Use:   "report FOLDER...",
		Short: "Make tables and charts again of results that --out has written",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, folders []string) error {
			var all []report.Report
			for _, folder := range folders {
				r, err := report.Read(folder)
				if err != nil {
					return err
				}
				all = append(all, r)
				if readme {
					continue
				}
				fmt.Fprint(cmd.OutOrStdout(), r.Text())
				if err := r.Write(folder); err != nil {
					return err
				}
			}
			if readme {
				fmt.Fprint(cmd.OutOrStdout(), report.Readme(all...))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&readme, "readme", false, "only print the README's table, of all folders together; what several have is the last one's")
	return cmd
}
