package cmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newPut(client *clientFlags) *cobra.Command {
	var put putFlags
	c := &cobra.Command{
		Use:   "put KEY [VALUE]",
		Short: "Write a key",
		Long: `Write a key. Without VALUE, the value is what comes from standard input. A
value that begins with a dash is written after two: flotilla put KEY -- -1`,
		Example: `  flotilla put greeting hello
  flotilla put config/app < app.yaml
  flotilla put worker/7 alive --lease 694d81417acd4754`,
		RunE: func(c *cobra.Command, args []string) error {
			op, err := put.op(args, interruptible{c.Context(), c.InOrStdin()})
			if err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error {
				resp, err := write(s, func(ctx context.Context) (clientv3.OpResponse, error) { return s.Do(ctx, op) })
				if err != nil {
					return err
				}
				return s.print(s.putAnswer(resp.Put()))
			})
		},
	}
	put.register(c.Flags())
	return c
}

// putFlags are the options of a put, here and in a transaction.
type putFlags struct {
	lease                            string
	prevKV, ignoreValue, ignoreLease bool
}

func (p *putFlags) register(f *pflag.FlagSet) {
	f.StringVar(&p.lease, "lease", "0", "ID of the lease that the key ends with, in hexadecimal")
	f.BoolVar(&p.prevKV, "prev-kv", false, "also print what was there before")
	f.BoolVar(&p.ignoreValue, "ignore-value", false, "leave the value as it is")
	f.BoolVar(&p.ignoreLease, "ignore-lease", false, "leave the lease as it is")
}

// op reads the value from stdin if the arguments have none; a transaction, whose lines come from
// stdin, passes nil.
func (p *putFlags) op(args []string, stdin io.Reader) (clientv3.Op, error) {
	var opts []clientv3.OpOption
	if p.prevKV {
		opts = append(opts, clientv3.WithPrevKV())
	}
	if p.ignoreLease {
		opts = append(opts, clientv3.WithIgnoreLease())
	}
	id, err := parseLease(p.lease)
	switch {
	case err != nil:
		return clientv3.Op{}, err
	case id != clientv3.NoLease && p.ignoreLease:
		return clientv3.Op{}, misused("--lease and --ignore-lease exclude each other")
	case id != clientv3.NoLease:
		opts = append(opts, clientv3.WithLease(id))
	}
	if p.ignoreValue {
		if len(args) != 1 {
			return clientv3.Op{}, misused("%d arguments: want KEY, since --ignore-value keeps the value", len(args))
		}
		return clientv3.OpPut(args[0], "", append(opts, clientv3.WithIgnoreValue())...), nil
	}
	switch {
	case len(args) == 2:
		return clientv3.OpPut(args[0], args[1], opts...), nil
	case len(args) == 1 && stdin != nil:
		value, err := io.ReadAll(stdin)
		if err != nil {
			return clientv3.Op{}, fmt.Errorf("read the value of %q: %w", args[0], err)
		}
		return clientv3.OpPut(args[0], string(value), opts...), nil
	}
	return clientv3.Op{}, misused("%d arguments: want KEY VALUE", len(args))
}

// putAnswer is the answer to a put.
func (s *session) putAnswer(resp *clientv3.PutResponse) answer {
	return answer{message: resp, simple: func() {
		s.line("OK")
		if resp.PrevKv != nil {
			s.pair(resp.PrevKv)
		}
	}}
}
