package cmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

func newRebalance(client *clientFlags) *cobra.Command {
	c := &cobra.Command{Use: "rebalance", Short: "Look at what the balancer would do, pause it, have it do it now, and undo that"}
	c.AddCommand(newRebalancePlan(client), newRebalanceApply(client), newRebalanceUndo(client), newRebalanceStatus(client),
		newRebalanceSwitch(client, "pause", "Let nothing begin by itself; what has begun goes on", "off"),
		newRebalanceSwitch(client, "resume", "Carry plans out again", "on"))
	return c
}

func newRebalancePlan(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "plan",
		Example: `  flotilla rebalance plan`,
		Short:   "Print what would be changed now and why, and why nothing else; nothing is changed",
		Long: `Print what would be changed now and why, and why nothing else; nothing is changed.

The plan is made by the node that answers, of the load that all nodes tell it. It is
made anew each time, so after a step the rest may look different.

Exit codes: 0 the plan is printed, whether there is something to do or not (.steps of
the JSON tells), 1 failed, 2 no node answered.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, linesOrTable(), func(s *session) error {
				reply, err := s.plan()
				if err != nil {
					return err
				}
				return s.print(answer{
					message: reply,
					simple:  func() { s.printPlan(reply) },
					table: func() table.Writer {
						t := newTable("rule", "what", "why")
						for _, step := range reply.Steps {
							t.AppendRow(newRow([]string{step.Rule, s.stepText(step), step.Why}))
						}
						for _, r := range reply.Reasons {
							t.AppendRow(newRow([]string{r.Rule, "nothing else", reasonText(r)}))
						}
						return t
					},
				})
			})
		},
	}
}

func newRebalanceApply(client *clientFlags) *cobra.Command {
	var flags changeFlags
	c := &cobra.Command{
		Use:     "apply",
		Example: `  flotilla rebalance apply --wait`,
		Short:   "Plan and begin the steps of the plan, once, also while the balancer is paused",
		Long: `Plan and begin the steps of the plan, once, also while the balancer is paused.

The node that answers plans, with what the leader of the meta group knows of load and
silence. flotilla rebalance undo takes back what began. With --wait the command returns
when nothing of it is under way any more; what was given up meanwhile the next plan
shows.

Exit codes: 0 done, and the steps that have begun are printed, 1 failed, 2 no node
answered, 3 no answer came and some may have begun.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, lines(), func(s *session) error {
				reply, err := write(s, func(ctx context.Context) (*adminpb.RebalanceReply, error) {
					return s.admin().Rebalance(ctx, &adminpb.RebalanceRequest{DryRun: flags.dryRun})
				})
				if err != nil {
					return err
				}
				if err := s.print(answer{message: reply, simple: func() {
					if len(reply.Begun) == 0 {
						s.line("nothing began; flotilla rebalance plan says why")
					}
					s.printBegun(reply.Begun, flags.dryRun)
				}}); err != nil || !flags.wait {
					return err
				}
				return s.follow(reply.Begun, reply.Version)
			})
		},
	}
	flags.register(c)
	return c
}

// follow waits until all of the steps have ended. The map of the given version contains all of
// them.
func (s *session) follow(steps []*adminpb.Step, version uint64) error {
	if len(steps) == 0 {
		return nil
	}
	return s.until(func() (stage, error) {
		operators, err := s.operators()
		if err != nil || operators.Version < version { // the node that answers does not know of all yet
			return stage{}, err
		}
		shards, err := s.shards(&adminpb.ShardsRequest{})
		if err != nil {
			return stage{}, err
		}
		meta, err := s.shards(&adminpb.ShardsRequest{Id: uint64(shard.MetaID)})
		if err != nil {
			return stage{}, err
		}
		left := 0
		for _, step := range steps {
			if isUnderWay(step, operators.Operators, append(meta.Shards, shards.Shards...)) {
				left++
			}
		}
		return stage{done: left == 0, state: fmt.Sprintf("%d of %s under way", left, counted(len(steps), "step")), left: int64(left)}, nil
	})
}

// isUnderWay reports whether a step that started is still in progress. A leadership transfer is not
// an operator; one of a shard that has gone meanwhile has ended.
func isUnderWay(step *adminpb.Step, operators []*adminpb.Operator, shards []*adminpb.Shard) bool {
	if step.Kind != placement.TransferLeader.String() {
		return slices.ContainsFunc(operators, func(o *adminpb.Operator) bool { return o.Shard == step.Shard })
	}
	return slices.ContainsFunc(shards, func(d *adminpb.Shard) bool {
		return d.Id == step.Shard && d.PreferredNode == step.To && d.Leader != step.To
	})
}

func (p printer) printBegun(steps []*adminpb.Step, dryRun bool) {
	verb := "began to"
	if dryRun {
		verb = "would begin to"
	}
	for _, step := range steps {
		p.linef("%s %s: %s", verb, p.stepText(step), step.Why)
	}
}

func newRebalanceUndo(client *clientFlags) *cobra.Command {
	var flags changeFlags
	c := &cobra.Command{
		Use:     "undo",
		Example: `  flotilla rebalance undo --wait`,
		Short:   "Begin the opposite of what flotilla rebalance apply began last",
		Long: `Begin the opposite of what flotilla rebalance apply began last: replicas and leaders go
back to where they were, the halves of a shard that was split become one again, and a
shard that was merged is cut where it was, on the nodes that it is on. What others have
changed since is left, and told with the reason. So is what cannot be undone now,
because something goes on there, a node does not answer or a lock forbids it; that can
be undone later by the same command. When nothing is left to be undone it says so and
changes nothing. The balancer has to be paused, or it would begin the same again. With
--wait the command returns when nothing of what has begun is under way any more.

Exit codes: 0 done, and the steps that have begun and those that stay are printed, or
there was nothing to undo, 1 refused, 2 no node answered, 3 no answer came and some
may have begun.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, lines(), func(s *session) error {
				reply, err := write(s, func(ctx context.Context) (*adminpb.UndoReply, error) {
					return s.admin().Undo(ctx, &adminpb.UndoRequest{DryRun: flags.dryRun})
				})
				if err != nil {
					return err
				}
				if err := s.print(answer{message: reply, simple: func() { s.printUndone(reply, flags.dryRun) }}); err != nil || !flags.wait {
					return err
				}
				return s.follow(reply.Begun, reply.Version)
			})
		},
	}
	flags.register(c)
	return c
}

func (p printer) printUndone(reply *adminpb.UndoReply, dryRun bool) {
	if len(reply.Begun) == 0 && len(reply.Left) == 0 {
		p.line("nothing to undo: no plan was applied by hand, or it was undone already")
	}
	p.printBegun(reply.Begun, dryRun)
	for _, r := range reply.Left {
		p.linef("stays: %s", reasonText(r))
	}
}

func newRebalanceSwitch(client *clientFlags, name, short, value string) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     name,
		Example: "  flotilla rebalance " + name,
		Short:   short,
		Long:    short + "." + doneCodes,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, lines(), func(s *session) error {
				return s.done(unless(dryRun, fmt.Sprintf("the balancer is %s", value)), func(ctx context.Context) (*adminpb.DoneReply, error) {
					return s.admin().Set(ctx, &adminpb.SetRequest{Name: placement.SettingRebalance, Value: value, DryRun: dryRun})
				})
			})
		},
	}
	registerDryRun(c, &dryRun)
	return c
}

func newRebalanceStatus(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Example: `  flotilla rebalance status`,
		Short:   "Tell whether the balancer is on and what it waits for, and the settings that are not the default",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, lines(), func(s *session) error {
				reply, err := read(s, func(ctx context.Context) (*adminpb.SettingsReply, error) {
					return s.admin().Settings(ctx, &adminpb.SettingsRequest{})
				})
				if err != nil {
					return err
				}
				return s.print(answer{message: reply, simple: func() {
					s.linef("the balancer is %s", map[bool]string{true: "on", false: "off"}[reply.Rebalance])
					if reply.BalancerWaits != "" {
						s.linef("in its last round: %s", reply.BalancerWaits)
					}
					for _, one := range reply.Settings {
						s.linef("%s = %s", one.Name, one.Value)
					}
				}})
			})
		},
	}
}

func (s *session) plan() (*adminpb.PlanReply, error) {
	return read(s, func(ctx context.Context) (*adminpb.PlanReply, error) {
		return s.admin().Plan(ctx, &adminpb.PlanRequest{})
	})
}

func (p printer) printPlan(reply *adminpb.PlanReply) {
	if len(reply.Steps) == 0 {
		p.line("nothing to do")
	}
	for i, step := range reply.Steps {
		p.linef("%d. %s", i+1, p.stepText(step))
		p.linef("   why:    %s: %s", step.Rule, step.Why)
		p.linef("   effect: %s", step.Effect)
	}
	for _, r := range reply.Reasons {
		p.linef("- %s: %s", r.Rule, reasonText(r))
	}
}

// stepText describes a step.
func (p printer) stepText(s *adminpb.Step) string {
	copied := ""
	if s.Bytes > 0 {
		copied = ", copying " + byteSize(s.Bytes)
	}
	switch s.Kind {
	case placement.AddReplica.String():
		return fmt.Sprintf("add a replica of shard %d on %s%s", s.Shard, s.To, copied)
	case placement.RemoveReplica.String():
		return fmt.Sprintf("remove the replica of shard %d on %s", s.Shard, s.From)
	case placement.MoveReplica.String():
		return fmt.Sprintf("move a replica of shard %d from %s to %s%s", s.Shard, s.From, s.To, copied)
	case placement.TransferLeader.String():
		return fmt.Sprintf("let %s lead shard %d in place of %s", s.To, s.Shard, s.From)
	case placement.Split.String():
		return fmt.Sprintf("split shard %d at %s", s.Shard, p.quoted(s.Key))
	case placement.Merge.String():
		return fmt.Sprintf("merge shard %d into shard %d", s.With, s.Shard)
	}
	return fmt.Sprintf("%s shard %d", s.Kind, s.Shard) // of a later version
}

// reasonText is the planner's text of a reason, without its rule.
func reasonText(r *adminpb.Reason) string {
	reason := placement.Reason{Rule: placement.Rule(r.Rule), Text: r.Text}
	for _, id := range r.Shards {
		reason.Shards = append(reason.Shards, shard.ID(id))
	}
	return strings.TrimPrefix(reason.String(), r.Rule+": ")
}
