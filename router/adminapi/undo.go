package adminapi

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	ruleUndo   = "undo"
	undoWhy    = "undo of the last plan that was applied"
	unmergePin = "undo of a merge"
)

// Undo implements adminpb.AdminServer. A step that later changes have overtaken is dropped. One
// that cannot be undone now stays recorded, and the next Undo tries it again.
func (s *Server) Undo(ctx context.Context, req *adminpb.UndoRequest) (*adminpb.UndoReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	text, found := v.Map.Setting(lastApplied)
	switch {
	case !found:
		return &adminpb.UndoReply{}, nil
	case v.Map.Rules().Rebalance:
		return nil, refuse(codes.FailedPrecondition, "undo: the balancer is on and would begin the same again; flotilla rebalance pause stops it")
	}
	records, err := recordsOf(text)
	if err != nil {
		return nil, refuse(codes.FailedPrecondition, "undo: %v", err)
	}
	reply := &adminpb.UndoReply{}
	var kept []record
	for _, r := range slices.Backward(records) {
		back, left, err := s.takeBack(ctx, v, r, req.DryRun)
		if err != nil {
			return nil, err
		}
		if left == nil {
			reply.Begun = append(reply.Begun, v.step(back))
			continue
		}
		reply.Left = append(reply.Left, &adminpb.Reason{Rule: ruleUndo, Shards: r.shards(), Text: left.why})
		if left.passes {
			kept = append(kept, r)
		}
	}
	if req.DryRun {
		return reply, nil
	}
	slices.Reverse(kept)
	// This comes last: if the request is repeated, steps that are already undone are recognised.
	result, err := s.change(ctx, v, placement.Set(lastApplied, recordsText(kept)), false)
	reply.Version = result.GetVersion()
	return reply, err
}

// obstacle is why a step is left as it is. A passing one may be gone the next time.
type obstacle struct {
	why    string
	passes bool
}

func overtaken(format string, args ...any) *obstacle {
	return &obstacle{why: fmt.Sprintf(format, args...)}
}

func notNow(format string, args ...any) *obstacle {
	return &obstacle{why: fmt.Sprintf(format, args...), passes: true}
}

// takeBack starts the inverse of a step, or returns why it is left. After an error the outcome is
// unknown.
func (s *Server) takeBack(ctx context.Context, v *View, r record, dryRun bool) (placement.Step, *obstacle, error) {
	back, left := v.inverse(r)
	if left != nil {
		return back, left, nil
	}
	i, err := v.intended(back)
	if err == nil {
		_, err = s.begin(ctx, v, i, dryRun)
	}
	switch {
	case isUnknown(err):
		return back, nil, err
	case err != nil:
		return back, notNow("%s", refusalText(err)), nil
	}
	return back, nil, nil
}

// intended turns a step into something to start.
func (v *View) intended(s placement.Step) (*intent, error) {
	d := v.Map.Shard(s.Shard)
	switch s.Kind {
	case placement.Merge:
		return v.mergeWith(d, v.Map.Shard(s.With), s.Why)
	case placement.Split:
		return v.splitAt(d, s.Key, s.Why, unmergePin)
	case placement.TransferLeader:
		return v.lead(d, s.To)
	default:
		return v.moveBetween(d, s.From, s.To, s.Why)
	}
}

// inverse is the step that restores the previous state, or why there is none.
func (v *View) inverse(r record) (placement.Step, *obstacle) {
	back := placement.Step{Shard: r.shard, Rule: ruleUndo, Why: undoWhy}
	d := v.Map.Shard(r.shard)
	switch {
	case r.kind == kindMore:
		return back, overtaken("%d more steps were too many to be written down", r.more)
	case d == nil:
		return back, overtaken("it is not there any more")
	}
	if o := v.Map.Operator(d.ID); o != nil {
		return back, notNow("operator %d (%s, %s) is under way; undo again when it has ended", o.ID, o.Kind, o.Phase)
	}
	switch r.kind {
	case placement.Split.String():
		return v.rejoin(back, r, d)
	case placement.Merge.String():
		return v.recut(back, r, d)
	case placement.TransferLeader.String():
		return v.leadBack(back, r, d)
	default:
		return v.moveBack(back, r, d)
	}
}

// rejoin merges two halves into one shard, if neither was split or merged since.
func (v *View) rejoin(back placement.Step, r record, d *shard.Descriptor) (placement.Step, *obstacle) {
	if d.Epoch < r.epoch {
		return back, overtaken("its split was given up; there is nothing to undo")
	}
	right := v.Map.RightOf(d)
	if d.Epoch > r.epoch || !bytes.Equal(d.Span.End, r.key) || right == nil || right.Parent != d.ID || right.Epoch != r.epoch {
		return back, overtaken("it was split at %q, and one of the halves was split or merged again since", r.key)
	}
	if why, pinned := v.Map.Rules().Pinned[string(r.key)]; pinned {
		return back, overtaken("it was split at %q, and that boundary is pinned: %s; flotilla shard merge %s takes it away", r.key, why, d.ID)
	}
	back.Kind, back.With, back.Key = placement.Merge, right.ID, r.key
	return back, nil
}

// recut splits a shard where its right neighbour began, if it was not split or merged since. Merged
// shards are on the same nodes, so both halves are where the two were.
func (v *View) recut(back placement.Step, r record, d *shard.Descriptor) (placement.Step, *obstacle) {
	switch {
	case d.Epoch < r.epoch:
		return back, overtaken("its merge was given up; there is nothing to undo")
	case d.Epoch > r.epoch:
		return back, overtaken("it was merged at %q, and was split or merged again since", r.key)
	}
	back.Kind, back.Key = placement.Split, r.key
	return back, nil
}

func (v *View) leadBack(back placement.Step, r record, d *shard.Descriptor) (placement.Step, *obstacle) {
	back.Kind, back.From, back.To = placement.TransferLeader, r.to, r.from
	if was, has := d.ReplicaOn(r.from); !has || was.Learner || d.PreferredNode != r.to {
		return back, overtaken("%s does not lead it any more, or %s has no replica that could", v.name(r.to), v.name(r.from))
	}
	if n := v.Map.Node(r.from); n.State != placement.Active {
		return back, notNow("%s is %s and takes nothing", n.Name, n.State)
	}
	return back, nil
}

func (v *View) moveBack(back placement.Step, r record, d *shard.Descriptor) (placement.Step, *obstacle) {
	back.From, back.To = r.to, r.from
	_, there := d.ReplicaOn(r.to)
	_, again := d.ReplicaOn(r.from)
	switch {
	case r.to != 0 && !there:
		return back, overtaken("it has no replica on %s", v.name(r.to))
	case r.from != 0 && again:
		return back, overtaken("it has a replica on %s again", v.name(r.from))
	case r.from == 0 && len(d.Replicas) <= v.Map.ReplicationFactor():
		return back, overtaken("without the replica on %s it would have fewer than %d", v.name(r.to), v.Map.ReplicationFactor())
	case r.from == 0:
		back.Kind = placement.RemoveReplica
	case r.to == 0:
		back.Kind = placement.AddReplica
	default:
		back.Kind = placement.MoveReplica
	}
	if why := placement.MoveObstacle(v.Map, v.Load, v.Now, d.ID, r.to, r.from); why != "" {
		return back, notNow("%s", why)
	}
	return back, nil
}
