package cmd

import (
	"context"
	"errors"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newEndpointHashKV(e *endpoints) *cobra.Command {
	var rev int64
	c := &cobra.Command{
		Use:     "hashkv",
		Example: `  flotilla endpoint hashkv --cluster`,
		Short:   "Print a hash of each node's keys and values, as of one revision",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := e.prepare(c, tableOrLines())
			if err != nil {
				return err
			}
			all, err := askEach(c, e, p, func(s *session, endpoint string) (*clientv3.HashKVResponse, error) {
				return read(s, func(ctx context.Context) (*clientv3.HashKVResponse, error) { return s.HashKV(ctx, endpoint, rev) })
			})
			if err != nil {
				return err
			}
			good, failed := answered(all)
			return errors.Join(p.printHashKV(good), failed)
		},
	}
	c.Flags().Int64Var(&rev, "rev", 0, "up to this revision (0: all)")
	return c
}

// nodeHash is etcdctl's JSON form of a node's hash.
type nodeHash struct {
	Endpoint string                   `json:"Endpoint"`
	HashKV   *clientv3.HashKVResponse `json:"HashKV"`
}

func (p printer) printHashKV(all []nodeAnswer[*clientv3.HashKVResponse]) error {
	if len(all) == 0 {
		return nil
	}
	var message []nodeHash
	for _, a := range all {
		message = append(message, nodeHash{a.endpoint, a.value})
	}
	return p.print(answer{
		message: message,
		simple: func() {
			for _, m := range message {
				p.linef("%s, %d, %d", m.Endpoint, m.HashKV.Hash, m.HashKV.HashRevision)
			}
		},
		table: func() table.Writer {
			t := newTable("endpoint", "hash", "hash revision")
			for _, m := range message {
				t.AppendRow(table.Row{m.Endpoint, m.HashKV.Hash, m.HashKV.HashRevision})
			}
			return t
		},
	})
}
