package cmd

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// changeCodes documents the exit codes of commands that start operators.
const changeCodes = `

Exit codes: 0 done (with --wait: the whole of it), 1 refused, or it was given up, 2 no
node answered, 3 no answer came, so it may go on.`

// doneCodes documents the exit codes of commands whose change is immediate.
const doneCodes = `

Exit codes: 0 done, or with --dry-run: it would be, 1 refused, 2 no node answered, 3 no
answer came, so it may be done.`

func registerDryRun(c *cobra.Command, dryRun *bool) {
	c.Flags().BoolVar(dryRun, "dry-run", false, "only say whether it would be refused")
}

// changeFlags are those of commands that change where replicas are.
type changeFlags struct{ dryRun, wait bool }

func (f *changeFlags) register(c *cobra.Command) {
	registerDryRun(c, &f.dryRun)
	c.Flags().BoolVar(&f.wait, "wait", false, "return when it is done; tells on stderr how far it is")
	exclude(c, "dry-run", "wait")
}

func newShardSplit(client *clientFlags) *cobra.Command {
	var at string
	var flags changeFlags
	c := &cobra.Command{
		Use:     "split [ID]",
		Example: `  flotilla shard split --at config/m`,
		Short:   "Cut a shard in two: a key and those after it become a shard of their own",
		Long: `Cut a shard in two: a key and those after it become a shard of their own, on the same
nodes. Without --at the shard is cut where its writes divide, or else its bytes; without
ID the shard is the one that owns the key.` + changeCodes,
		RunE: func(c *cobra.Command, args []string) error {
			req := &adminpb.SplitRequest{Key: []byte(at), DryRun: flags.dryRun}
			if len(args) > 0 || at == "" {
				var err error
				if req.Shard, err = shardArgument(args); err != nil {
					return fmt.Errorf("%w, or --at", err)
				}
			}
			return client.connected(c, lines(), func(s *session) error {
				reply, err := write(s, func(ctx context.Context) (*adminpb.OperatorReply, error) { return s.admin().Split(ctx, req) })
				if err != nil {
					return err
				}
				what := fmt.Sprintf("split shard %d at %s", reply.Shard, s.quoted(reply.Key))
				return s.finish(flags, reply, what, func() (bool, uint64, error) { return s.splitIsDone(reply.Key) })
			})
		},
	}
	c.Flags().StringVar(&at, "at", "", "the first key of the new shard")
	flags.register(c)
	return c
}

// splitIsDone reports whether a shard begins at the key.
func (s *session) splitIsDone(key []byte) (done bool, version uint64, err error) {
	reply, err := s.shards(&adminpb.ShardsRequest{Span: &adminpb.Span{Start: key, End: append(slices.Clip(key), 0)}})
	if err != nil {
		return false, 0, err
	}
	if len(reply.Shards) == 0 { // a node that does not know the map yet
		return false, 0, nil
	}
	return string(reply.Shards[0].Span.Start) == string(key), reply.Version, nil
}

func newShardMerge(client *clientFlags) *cobra.Command {
	req := &adminpb.MergeRequest{}
	var flags changeFlags
	c := &cobra.Command{
		Use:     "merge ID",
		Example: `  flotilla shard merge 3`,
		Short:   "Give the keys of a shard's right neighbour to it",
		Long: `Give the keys of a shard's right neighbour to it: the two become one. Both have to be on
the same nodes.` + changeCodes,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.Shard, err = shardArgument(args); err != nil {
				return err
			}
			req.DryRun = flags.dryRun
			return client.connected(c, lines(), func(s *session) error {
				reply, err := write(s, func(ctx context.Context) (*adminpb.OperatorReply, error) { return s.admin().Merge(ctx, req) })
				if err != nil {
					return err
				}
				what := fmt.Sprintf("merge shard %d into shard %d", reply.With, reply.Shard)
				return s.finish(flags, reply, what, func() (bool, uint64, error) {
					split, version, err := s.splitIsDone(reply.Key)
					return !split, version, err
				})
			})
		},
	}
	flags.register(c)
	return c
}

func newShardMove(client *clientFlags) *cobra.Command {
	req := &adminpb.MoveRequest{}
	var flags changeFlags
	c := &cobra.Command{
		Use:     "move ID [--from NODE] [--to NODE]",
		Example: `  flotilla shard move 3 --from n1 --to n4`,
		Short:   "Move a replica of a shard from a node to another",
		Long: `Move a replica of a shard from a node to another. Without --from it has a replica more;
without --to, one less. Shard 1 is the meta group.` + changeCodes,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.Shard, err = shardArgument(args); err != nil {
				return err
			}
			if req.From == "" && req.To == "" {
				return misused("--from, --to: want the name of the node that loses its replica, of the one that gets one, or both")
			}
			req.DryRun = flags.dryRun
			return client.connected(c, lines(), func(s *session) error {
				reply, err := write(s, func(ctx context.Context) (*adminpb.OperatorReply, error) { return s.admin().Move(ctx, req) })
				if err != nil {
					return err
				}
				what := fmt.Sprintf("move a replica of shard %d%s%s", req.Shard, named(" from ", req.From), named(" to ", req.To))
				return s.finish(flags, reply, what, func() (bool, uint64, error) { return s.moveIsDone(req) })
			})
		},
	}
	c.Flags().StringVar(&req.From, "from", "", "the node that loses its replica")
	c.Flags().StringVar(&req.To, "to", "", "the node that gets one")
	c.Flags().BoolVar(&req.Force, "force", false, "also to a node that is silent, nearly full, or in a zone that has a replica")
	flags.register(c)
	return c
}

// named is a name with a word before it, empty without a name.
func named(word, name string) string {
	if name == "" {
		return ""
	}
	return word + name
}

// moveIsDone reports whether the shard's replicas are where the move was to put them.
func (s *session) moveIsDone(req *adminpb.MoveRequest) (done bool, version uint64, err error) {
	reply, err := s.shards(&adminpb.ShardsRequest{Id: req.Shard})
	if err != nil {
		return false, 0, err
	}
	on := func(node string) bool {
		return slices.ContainsFunc(reply.Shards[0].Replicas, func(r *adminpb.Replica) bool { return r.Node == node && !r.Learner })
	}
	return (req.To == "" || on(req.To)) && (req.From == "" || !on(req.From)), reply.Version, nil
}

func newShardTransfer(client *clientFlags) *cobra.Command {
	req := &adminpb.TransferRequest{}
	var flags changeFlags
	c := &cobra.Command{
		Use:     "transfer ID --to NODE",
		Example: `  flotilla shard transfer 3 --to n2`,
		Short:   "Have a node lead a shard, now and whenever it can",
		Long:    "Have a node that has a replica lead the shard, now and whenever it can." + changeCodes,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.Shard, err = shardArgument(args); err != nil {
				return err
			}
			if req.To == "" {
				return misused("--to: want the name of the node that should lead, as flotilla node ls prints it")
			}
			req.DryRun = flags.dryRun
			return client.connected(c, lines(), func(s *session) error {
				what := fmt.Sprintf("let %s lead shard %d", req.To, req.Shard)
				if err := s.done(flags.text(what), func(ctx context.Context) (*adminpb.DoneReply, error) { return s.admin().Transfer(ctx, req) }); err != nil || !flags.wait {
					return err
				}
				return s.until(func() (stage, error) {
					reply, err := s.shards(&adminpb.ShardsRequest{Id: req.Shard})
					if err != nil {
						return stage{}, err
					}
					leader := reply.Shards[0].Leader
					return stage{done: leader == req.To, state: fmt.Sprintf("%s leads shard %d", leader, req.Shard)}, nil
				})
			})
		},
	}
	c.Flags().StringVar(&req.To, "to", "", "the node that should lead")
	flags.register(c)
	return c
}

func newShardLock(client *clientFlags) *cobra.Command {
	var reason string
	var dryRun bool
	c := &cobra.Command{
		Use:     "lock ID",
		Example: `  flotilla shard lock 3 --reason "under observation"`,
		Short:   "Have a shard left where it is, by the balancer and by commands",
		Long: `Have a shard left where it is: the balancer passes it over, and commands that would split,
merge or move it or change who leads it are refused with the reason. What is under way
goes on, and a node that stops leading makes another one lead.` + doneCodes,
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return misused("--reason is empty; the plan tells it to those who ask why nothing happens")
			}
			return client.lock(c, args, reason, "locked: "+reason, dryRun)
		},
	}
	registerDryRun(c, &dryRun)
	c.Flags().StringVar(&reason, "reason", "by hand", "what the plan says of why")
	return c
}

func newShardUnlock(client *clientFlags) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     "unlock ID",
		Example: `  flotilla shard unlock 3`,
		Short:   "Give a shard back to the balancer and to commands",
		Long:    "Give a shard back to the balancer and to commands." + doneCodes,
		RunE:    func(c *cobra.Command, args []string) error { return client.lock(c, args, "", "unlocked", dryRun) },
	}
	registerDryRun(c, &dryRun)
	return c
}

func (f *clientFlags) lock(c *cobra.Command, args []string, reason, said string, dryRun bool) error {
	id, err := shardArgument(args)
	if err != nil {
		return err
	}
	return f.connected(c, lines(), func(s *session) error {
		return s.done(unless(dryRun, fmt.Sprintf("shard %d is %s", id, said)), func(ctx context.Context) (*adminpb.DoneReply, error) {
			return s.admin().Lock(ctx, &adminpb.LockRequest{Shard: id, Reason: reason, DryRun: dryRun})
		})
	})
}
