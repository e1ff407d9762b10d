package cmd

import (
	"context"
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newGet(client *clientFlags) *cobra.Command {
	var get getFlags
	var valueOnly bool
	c := &cobra.Command{
		Use:   "get KEY [RANGE_END]",
		Short: "Read a key or a range of keys",
		Example: `  flotilla get greeting
  flotilla get --prefix config/ --keys-only
  flotilla get a m --limit 10 --order DESCEND
  FLOTILLA_USER=ann FLOTILLA_PASSWORD=secret flotilla get greeting`,
		RunE: func(c *cobra.Command, args []string) error {
			op, err := get.op(args)
			if err != nil {
				return err
			}
			return client.connected(c, linesOrTable(), func(s *session) error {
				resp, err := read(s, func(ctx context.Context) (clientv3.OpResponse, error) { return s.Do(ctx, op) })
				if err != nil {
					return err
				}
				return s.print(s.rangeAnswer(resp.Get(), get.countOnly, valueOnly))
			})
		},
	}
	get.register(c.Flags())
	c.Flags().BoolVar(&valueOnly, "print-value-only", false, "print no keys (format simple)")
	complete(c, "order", "ASCEND", "DESCEND")
	complete(c, "sort-by", "CREATE", "KEY", "MODIFY", "VALUE", "VERSION")
	complete(c, "consistency", "l", "s")
	return c
}

// getFlags are the options of a read, here and in a transaction.
type getFlags struct {
	spanFlags
	limit, rev                                             int64
	minCreateRev, maxCreateRev, minModifyRev, maxModifyRev int64
	order, sortBy, consistency                             string
	keysOnly, countOnly                                    bool
}

func (g *getFlags) register(f *pflag.FlagSet) {
	f.BoolVar(&g.prefix, "prefix", false, "all keys that begin with KEY")
	f.BoolVar(&g.fromKey, "from-key", false, "all keys from KEY on")
	f.Int64Var(&g.limit, "limit", 0, "at most so many keys (0: all)")
	f.Int64Var(&g.rev, "rev", 0, "as it was at this revision (0: now)")
	f.StringVar(&g.order, "order", "", "ASCEND or DESCEND")
	f.StringVar(&g.sortBy, "sort-by", "", "CREATE, KEY, MODIFY, VALUE or VERSION")
	f.BoolVar(&g.keysOnly, "keys-only", false, "no values")
	f.BoolVar(&g.countOnly, "count-only", false, "only how many there are")
	f.StringVar(&g.consistency, "consistency", "l", "linearizable (l), or serializable (s): from the node's own state, which may be stale")
	f.Int64Var(&g.minCreateRev, "min-create-rev", 0, "created at this revision or later")
	f.Int64Var(&g.maxCreateRev, "max-create-rev", 0, "created at this revision or before")
	f.Int64Var(&g.minModifyRev, "min-mod-rev", 0, "changed last at this revision or later")
	f.Int64Var(&g.maxModifyRev, "max-mod-rev", 0, "changed last at this revision or before")
}

func (g *getFlags) op(args []string) (clientv3.Op, error) {
	key, opts, err := g.span(args)
	if err != nil {
		return clientv3.Op{}, err
	}
	if g.keysOnly && g.countOnly {
		return clientv3.Op{}, misused("--keys-only and --count-only exclude each other")
	}
	sort, err := g.sort()
	if err != nil {
		return clientv3.Op{}, err
	}
	opts = append(opts, sort, clientv3.WithLimit(g.limit), clientv3.WithRev(g.rev),
		clientv3.WithMinCreateRev(g.minCreateRev), clientv3.WithMaxCreateRev(g.maxCreateRev),
		clientv3.WithMinModRev(g.minModifyRev), clientv3.WithMaxModRev(g.maxModifyRev))
	switch strings.ToLower(g.consistency) {
	case "s":
		opts = append(opts, clientv3.WithSerializable())
	case "l":
	default:
		return clientv3.Op{}, misused("--consistency %q: want l or s", g.consistency)
	}
	if g.keysOnly {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	if g.countOnly {
		opts = append(opts, clientv3.WithCountOnly())
	}
	return clientv3.OpGet(key, opts...), nil
}

func (g *getFlags) sort() (clientv3.OpOption, error) {
	orders := map[string]clientv3.SortOrder{"": clientv3.SortNone, "ASCEND": clientv3.SortAscend, "DESCEND": clientv3.SortDescend}
	order, ok := orders[strings.ToUpper(g.order)]
	if !ok {
		return nil, misused("--order %q: want ASCEND or DESCEND", g.order)
	}
	targets := map[string]clientv3.SortTarget{
		"": clientv3.SortByKey, "KEY": clientv3.SortByKey, "CREATE": clientv3.SortByCreateRevision,
		"MODIFY": clientv3.SortByModRevision, "VALUE": clientv3.SortByValue, "VERSION": clientv3.SortByVersion,
	}
	target, ok := targets[strings.ToUpper(g.sortBy)]
	if !ok {
		return nil, misused("--sort-by %q: want CREATE, KEY, MODIFY, VALUE or VERSION", g.sortBy)
	}
	return clientv3.WithSort(target, order), nil
}

// rangeAnswer is the answer to a read.
func (s *session) rangeAnswer(resp *clientv3.GetResponse, countOnly, valueOnly bool) answer {
	return answer{
		message: resp,
		simple: func() {
			if countOnly {
				s.linef("%d", resp.Count)
			}
			for _, kv := range resp.Kvs {
				if valueOnly {
					s.line(s.bytes(kv.Value))
					continue
				}
				s.pair(kv)
			}
		},
		table: func() table.Writer {
			if countOnly {
				t := newTable("count")
				t.AppendRow(table.Row{resp.Count})
				return t
			}
			t := newTable("key", "value", "version", "create revision", "mod revision", "lease")
			for _, kv := range resp.Kvs {
				t.AppendRow(table.Row{s.bytes(kv.Key), s.bytes(kv.Value), kv.Version, kv.CreateRevision, kv.ModRevision, leaseName(kv.Lease)})
			}
			return t
		},
	}
}

// leaseName formats a lease's ID; empty for none.
func leaseName(id int64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", id)
}
