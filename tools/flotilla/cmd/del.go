package cmd

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newDel(client *clientFlags) *cobra.Command {
	var del delFlags
	c := &cobra.Command{
		Use:   "del KEY [RANGE_END]",
		Short: "Delete a key or a range of keys",
		Example: `  flotilla del greeting
  flotilla del --prefix config/ --prev-kv`,
		RunE: func(c *cobra.Command, args []string) error {
			op, err := del.op(args)
			if err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error {
				resp, err := write(s, func(ctx context.Context) (clientv3.OpResponse, error) { return s.Do(ctx, op) })
				if err != nil {
					return err
				}
				return s.print(s.delAnswer(resp.Del()))
			})
		},
	}
	del.register(c.Flags())
	return c
}

// delFlags are the options of a deletion, here and in a transaction.
type delFlags struct {
	spanFlags
	prevKV bool
}

func (d *delFlags) register(f *pflag.FlagSet) {
	f.BoolVar(&d.prefix, "prefix", false, "all keys that begin with KEY")
	f.BoolVar(&d.fromKey, "from-key", false, "all keys from KEY on")
	f.Bool("range", false, "etcdctl's way not to be asked about a RANGE_END; here nobody is")
	f.BoolVar(&d.prevKV, "prev-kv", false, "also print what was deleted")
}

func (d *delFlags) op(args []string) (clientv3.Op, error) {
	key, opts, err := d.span(args)
	if err != nil {
		return clientv3.Op{}, err
	}
	if d.prevKV {
		opts = append(opts, clientv3.WithPrevKV())
	}
	return clientv3.OpDelete(key, opts...), nil
}

// delAnswer is the answer to a deletion.
func (s *session) delAnswer(resp *clientv3.DeleteResponse) answer {
	return answer{message: resp, simple: func() {
		s.linef("%d", resp.Deleted)
		for _, kv := range resp.PrevKvs {
			s.pair(kv)
		}
	}}
}
