package main

import "github.com/spf13/cobra"

func growCommand() *cobra.Command {
	var f compareFlags
	cmd := &cobra.Command{
		Use:   "grow",
		Short: "Run the same load against two systems while there are ever more keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := f.measure(cmd, plainly)
			return err
		},
	}
	f.register(cmd.Flags(), []string{"put", "get"}, usual())
	cmd.Flags().IntSliceVar(&f.grown, "keys", []int{1_000_000, 10_000_000}, "numbers of keys, ascending; each has --value bytes")
	return cmd
}
