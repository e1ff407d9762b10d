package cmd

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newCompaction(client *clientFlags) *cobra.Command {
	var physical bool
	c := &cobra.Command{
		Use:     "compaction REVISION",
		Example: `  flotilla compaction 1234567890`,
		Short:   "Give up the history before a revision",
		Args:    wantArgs(1, 1, "REVISION"),
		RunE: func(c *cobra.Command, args []string) error {
			rev, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return misused("revision %q: want a number, as flotilla get KEY -o json shows it", args[0])
			}
			var opts []clientv3.CompactOption
			if physical {
				opts = append(opts, clientv3.WithCompactPhysical())
			}
			return client.connected(c, lines(), func(s *session) error {
				resp, err := write(s, func(ctx context.Context) (*clientv3.CompactResponse, error) { return s.Compact(ctx, rev, opts...) })
				if err != nil {
					return err
				}
				return s.print(answer{message: resp, simple: func() { s.linef("compacted revision %d", rev) }})
			})
		},
	}
	c.Flags().BoolVar(&physical, "physical", false, "wait until the old versions are removed")
	return c
}
