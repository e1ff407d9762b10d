package cmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// checkTimeout is how long a large shard may take on busy nodes, which read it in the background.
const checkTimeout = 10 * time.Minute

func newShardCheck(client *clientFlags) *cobra.Command {
	patience := checkTimeout
	c := &cobra.Command{
		Use:     "check [ID]",
		Example: `  flotilla shard check 3`,
		Short:   "Compare what the replicas of a shard hold, or of all",
		Long: `Compare what the replicas of a shard hold, or of all shards, one after the other. Nodes
read all of their data for it, with at most a tenth of a processor. A replica that differs
from the majority is quarantined: it serves nothing any more, and is replaced.

Exit codes: 0 all replicas hold the same, 1 some differ, or it is not known of some,
2 no node answered.`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			var id uint64
			if len(args) > 0 {
				if id, err = shardArgument(args); err != nil {
					return err
				}
			}
			return client.connected(c, tableOrLines(), func(s *session) error {
				s.timeout = max(s.timeout, patience)
				checks, err := s.check(id)
				return errors.Join(err, s.printChecks(checks), failedChecks(checks))
			})
		},
	}
	c.Flags().DurationVar(&patience, "timeout", checkTimeout, "how long one shard may take")
	return c
}

// check compares one shard, or all for 0. After an error it returns those that were compared.
func (s *session) check(id uint64) (checks []*adminpb.CheckReply, err error) {
	reply, err := s.shards(&adminpb.ShardsRequest{Id: id})
	if err != nil {
		return nil, err
	}
	for _, d := range reply.Shards {
		checked, err := read(s, func(ctx context.Context) (*adminpb.CheckReply, error) {
			return s.admin().Check(ctx, &adminpb.CheckRequest{Shard: d.Id})
		})
		if err != nil {
			return checks, err
		}
		checks = append(checks, checked)
	}
	return checks, nil
}

// shardChecks is the JSON output.
type shardChecks struct {
	Shards []*adminpb.CheckReply `json:"shards"`
}

func (p printer) printChecks(checks []*adminpb.CheckReply) error {
	if len(checks) == 0 {
		return nil
	}
	var rows [][]string
	for _, c := range checks {
		for _, r := range c.Replicas {
			what, sum := r.Text, unknown
			if r.Sum != "" {
				what, sum = counted(int(r.Versions), "version")+", "+byteSize(r.Bytes), r.Sum
			}
			rows = append(rows, []string{fmt.Sprint(c.Shard), c.Verdict, fmt.Sprint(r.Id), r.Node, r.Result, sum, what})
		}
	}
	return p.print(answer{
		message: shardChecks{checks},
		simple: func() {
			for _, row := range rows {
				p.linef("%s, %s, %s, %s, %s, %s, %s", row[0], row[1], row[2], row[3], row[4], row[5], row[6])
			}
		},
		table: func() table.Writer {
			t := newTable("shard", "verdict", "replica", "node", "result", "sum", "of")
			for _, row := range rows {
				t.AppendRow(newRow(row))
			}
			return t
		},
	})
}

func failedChecks(checks []*adminpb.CheckReply) error {
	failed := 0
	for _, c := range checks {
		if c.Verdict != string(adminapi.Agree) {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %s not known to have the same on all replicas; see docs/OPERATING.md about comparing replicas", failed, counted(len(checks), "shard"))
}
