package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/benchmarks/compare"
	"github.com/flotilla-kv/flotilla/benchmarks/report"
)

func rateCommand() *cobra.Command {
	var f compareFlags
	var share float64
	cmd := &cobra.Command{
		Use:   "rate",
		Short: "Compare latencies at the same load: a share of what the first system can do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := f.measure(cmd, func(ctx context.Context, c compare.Config, log *slog.Logger, r *report.Report, done func(compare.Measurement)) (err error) {
				r.Peaks, err = compare.AtShare(ctx, c, share, log, done)
				return err
			})
			return err
		},
	}
	f.register(cmd.Flags(), []string{"put", "get", "txn"}, usual())
	f.registerKeys(cmd.Flags(), usual())
	cmd.Flags().Float64Var(&share, "share", 0.75, "share of the first system's peak, above 0 and at most 1")
	return cmd
}
