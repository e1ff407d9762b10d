package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

func newOperator(client *clientFlags) *cobra.Command {
	c := &cobra.Command{Use: "operator", Short: "Look at the changes of shards that are under way, and cancel them"}
	c.AddCommand(newOperatorList(client), newOperatorCancel(client))
	return c
}

func newOperatorList(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Example: `  flotilla operator ls`,
		Aliases: []string{"list"},
		Short:   "List what is under way, and why",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, tableOrLines(), func(s *session) error {
				reply, err := s.operators()
				if err != nil {
					return err
				}
				return s.print(answer{
					message: reply,
					simple: func() {
						for _, o := range reply.Operators {
							s.line(strings.Join(s.operatorFields(o), ", "))
						}
					},
					table: func() table.Writer {
						t := newTable("operator", "shard", "what", "why")
						for _, o := range reply.Operators {
							t.AppendRow(newRow(s.operatorFields(o)))
						}
						return t
					},
				})
			})
		},
	}
}

func (p printer) operatorFields(o *adminpb.Operator) []string {
	return []string{fmt.Sprint(o.Id), fmt.Sprint(o.Shard), p.operatorText(o), o.Why}
}

func newOperatorCancel(client *clientFlags) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     "cancel ID",
		Example: `  flotilla operator cancel 17`,
		Short:   "End one that has not come so far that it can only go on",
		Long:    "End an operator that has not come so far that it can only go on." + doneCodes,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misused("%d arguments: want the ID of an operator", len(args))
			}
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return misused("operator %q: want its ID, as flotilla operator ls prints it", args[0])
			}
			return client.connected(c, lines(), func(s *session) error {
				return s.done(unless(dryRun, fmt.Sprintf("operator %d is cancelled", id)), func(ctx context.Context) (*adminpb.DoneReply, error) {
					return s.admin().Cancel(ctx, &adminpb.CancelRequest{Operator: id, DryRun: dryRun})
				})
			})
		},
	}
	registerDryRun(c, &dryRun)
	return c
}

// unless is the message of a command after a change, or with --dry-run.
func unless(dryRun bool, said string) string {
	if dryRun {
		return "would be done: " + said
	}
	return said
}

func (s *session) operators() (*adminpb.OperatorsReply, error) {
	return read(s, func(ctx context.Context) (*adminpb.OperatorsReply, error) {
		return s.admin().Operators(ctx, &adminpb.OperatorsRequest{})
	})
}

// text is the message about a requested change.
func (f changeFlags) text(what string) string {
	if f.dryRun {
		return "would " + what
	}
	return "asked to " + what
}

// done requests a change that needs no operator, and reports that it was made.
func (s *session) done(said string, request func(context.Context) (*adminpb.DoneReply, error)) error {
	reply, err := write(s, request)
	if err != nil {
		return err
	}
	return s.print(answer{message: reply, simple: func() { s.line(said) }})
}

// finish reports what has started, and with --wait waits until it has ended.
func (s *session) finish(flags changeFlags, reply *adminpb.OperatorReply, what string, isDone verdict) error {
	if err := s.print(answer{message: reply, simple: func() {
		if flags.dryRun {
			s.line(flags.text(what))
		} else {
			s.linef("operator %d: %s", reply.Operator, what)
		}
	}}); err != nil || !flags.wait {
		return err
	}
	var done bool
	var ended uint64 // by the map of this version
	err := s.until(func() (now stage, err error) {
		if ended == 0 {
			if now, ended, err = s.hasEnded(reply.Operator); ended == 0 {
				return now, err
			}
		}
		now.state = fmt.Sprintf("operator %d has ended", reply.Operator) // also when that was seen earlier
		var version uint64
		done, version, err = isDone()
		now.done = version >= ended // else a node answered that does not know yet
		return now, err
	})
	if err == nil && !done {
		err = fmt.Errorf("operator %d ended and did not %s: it was cancelled, or given up as the log of the node that leads the meta group tells", reply.Operator, what)
	}
	return err
}

// verdict reports whether what an operator was for has been done, by a map of this version.
type verdict func() (done bool, version uint64, err error)

// hasEnded returns the progress of an operator that has started, and the version of a map in which it has
// ended, or 0.
func (s *session) hasEnded(id uint64) (now stage, version uint64, err error) {
	reply, err := s.operators()
	if err != nil {
		return stage{}, 0, err
	}
	i := slices.IndexFunc(reply.Operators, func(o *adminpb.Operator) bool { return o.Id == id })
	switch {
	case i >= 0:
		return stage{state: fmt.Sprintf("operator %d: %s", id, s.operatorText(reply.Operators[i]))}, 0, nil
	case reply.Version < id: // the node that answers does not know of it yet
		return stage{}, 0, nil
	}
	return stage{}, reply.Version, nil
}

// followPause is the pause between two polls of a command with --wait.
const followPause = 200 * time.Millisecond

// unansweredMax is how many polls in a row may get no answer. Each asks another endpoint than
// the one before, so nodes that are down or partitioned are avoided, and one that restarts is awaited.
const unansweredMax = 20

// until polls until something is done, and shows the progress on stderr.
func (s *session) until(look func() (stage, error)) (err error) {
	f := newFollower(s.err)
	defer func() { f.end(err == nil) }()
	var p patience
	for unanswered := 0; ; {
		now, err := look()
		switch {
		case err == nil:
			unanswered = 0
			now = p.temper(now)
		case exitCode(err) != exitUnavailable:
			return err
		case unanswered == unansweredMax:
			return &failure{exitUnknown, fmt.Errorf("%w; what was asked for goes on", err)}
		default:
			unanswered++
			now = stage{state: p.state, waits: []string{err.Error()}}
		}
		f.show(now)
		if now.done {
			return nil
		}
		select {
		case <-time.After(followPause):
		case <-s.ctx.Done():
			return &failure{exitUnknown, errors.New("interrupted; what was asked for goes on")}
		}
	}
}
