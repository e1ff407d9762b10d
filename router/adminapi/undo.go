package adminapi

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// lastApplied is the setting that holds the steps which the last Rebalance began, so that
// any node can undo them: "move 7 1 4,lead 3 1 2" are kind, shard, and the nodes from and to.
const lastApplied = "last-applied"

// stepsTextMax bounds the setting; more steps than fit are not told, and not undone.
const stepsTextMax = 4000

// stepsText writes steps for the setting.
func stepsText(steps []placement.Step) string {
	var out strings.Builder
	for i, s := range steps {
		one := fmt.Sprintf("%s %d %d %d", s.Kind, s.Shard, s.From, s.To)
		if out.Len()+len(one) > stepsTextMax {
			fmt.Fprintf(&out, ",more %d", len(steps)-i)
			break
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(one)
	}
	return out.String()
}

// recorded is a step as the setting has it.
type recorded struct {
	kind     string
	shard    shard.ID
	from, to shard.NodeID
}

// stepsOf reads the setting. Anybody may have set it.
func stepsOf(text string) ([]recorded, error) {
	var steps []recorded
	for _, one := range strings.Split(text, ",") {
		words := strings.Fields(one)
		var numbers [3]uint64
		for i := 1; i < min(len(words), 4); i++ {
			n, err := strconv.ParseUint(words[i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("setting %s: %q: %w", lastApplied, one, err)
			}
			numbers[i-1] = n
		}
		if len(words) == 0 {
			return nil, fmt.Errorf("setting %s: %q has an empty step", lastApplied, text)
		}
		steps = append(steps, recorded{words[0], shard.ID(numbers[0]), shard.NodeID(numbers[1]), shard.NodeID(numbers[2])})
	}
	return steps, nil
}

// Undo implements adminpb.AdminServer. A step that has been overtaken by others is left, as
// is one that cannot be undone.
func (s *Server) Undo(ctx context.Context, req *adminpb.UndoRequest) (*adminpb.UndoReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	text, found := v.Map.Setting(lastApplied)
	switch {
	case !found:
		return nil, refuse(codes.FailedPrecondition, "undo: no plan was applied by hand, or it was undone already")
	case v.Map.Rules().Rebalance:
		return nil, refuse(codes.FailedPrecondition, "undo: the balancer is on and would begin the same again; flotilla rebalance pause stops it")
	}
	steps, err := stepsOf(text)
	if err != nil {
		return nil, refuse(codes.FailedPrecondition, "undo: %v", err)
	}
	reply := &adminpb.UndoReply{}
	for _, step := range slices.Backward(steps) {
		back, c, why := v.inverse(step)
		if why == "" {
			if _, err := s.change(ctx, v, c, req.DryRun); isUnknown(err) {
				return nil, err
			} else if err != nil {
				why = refusalText(err)
			}
		}
		if why != "" {
			reply.Left = append(reply.Left, &adminpb.Reason{Rule: "undo", Shards: step.shards(), Text: why})
			continue
		}
		reply.Begun = append(reply.Begun, v.step(back))
	}
	if req.DryRun {
		return reply, nil
	}
	// Last: what is undone already is found done when it is asked for again.
	_, err = s.change(ctx, v, placement.Set(lastApplied, ""), false)
	return reply, err
}

func (r recorded) shards() []uint64 {
	if r.shard == 0 {
		return nil
	}
	return []uint64{uint64(r.shard)}
}

// inverse is the step that takes things back to where they were, and its command, or why
// there is none.
func (v *View) inverse(r recorded) (back placement.Step, c *placementpb.Command, why string) {
	const asked = "undo of the last plan that was applied"
	d := v.Map.Shard(r.shard)
	back = placement.Step{Shard: r.shard, From: r.to, To: r.from, Rule: "undo", Why: asked}
	switch {
	case r.kind == "more":
		return back, nil, fmt.Sprintf("%d more steps were too many to be written down", r.shard)
	case d == nil:
		return back, nil, "it is not there any more"
	case r.kind == placement.Split.String():
		return back, nil, "it was split, and no shards are put together by undo"
	case r.kind == placement.Merge.String():
		return back, nil, "it was merged; flotilla shard split cuts it again"
	case r.kind == placement.TransferLeader.String():
		back.Kind = placement.TransferLeader
		if was, has := d.ReplicaOn(r.from); !has || was.Learner || d.PreferredNode != r.to {
			return back, nil, fmt.Sprintf("%s does not lead it any more, or %s has no replica that could", v.name(r.to), v.name(r.from))
		}
		return back, placement.Prefer(d, r.from), ""
	}
	if _, has := d.ReplicaOn(r.to); r.to != 0 && !has {
		return back, nil, "it has no replica on " + v.name(r.to)
	}
	switch {
	case r.from == 0 && len(d.Replicas) <= v.Map.ReplicationFactor():
		return back, nil, fmt.Sprintf("without the replica on %s it would have fewer than %d", v.name(r.to), v.Map.ReplicationFactor())
	case r.from == 0:
		back.Kind = placement.RemoveReplica
	case r.to == 0:
		back.Kind = placement.AddReplica
	default:
		back.Kind = placement.MoveReplica
	}
	return back, placement.BeginMove(d, r.to, r.from, asked), ""
}
