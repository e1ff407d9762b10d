package adminapi

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// intent is an operator that is to begin, or a leadership transfer, to which neither the table nor
// a lock objects.
type intent struct {
	command *placementpb.Command
	// ready asks the shards' nodes whether they are able to make the change; nil if they need not be asked.
	ready func(context.Context, Changes) error
	// pin records that a boundary that appears or disappears must stay so; nil if there is none.
	pin *placementpb.Command
	// told is the reply to the request.
	told adminpb.OperatorReply
}

// split decides on a split that somebody asks for.
func (v *View) split(req *adminpb.SplitRequest) (*intent, error) {
	d, key, err := v.cut(req)
	if err != nil {
		return nil, err
	}
	return v.splitAt(d, key, asked(v.Now), "split by hand")
}

// splitAt decides on a split. If pin gives a reason, the balancer does not merge the new boundary
// away.
func (v *View) splitAt(d *shard.Descriptor, key []byte, why, pin string) (*intent, error) {
	i := &intent{
		command: placement.BeginSplit(d, key, why), pin: placement.Set(placement.PinSetting(key), pin),
		ready: func(ctx context.Context, c Changes) error { return c.ReadyToSplit(ctx, d) },
		told:  adminpb.OperatorReply{Shard: uint64(d.ID), Key: key},
	}
	return i, v.allows(i.command, d)
}

// merge decides on a merge that somebody asks for.
func (v *View) merge(req *adminpb.MergeRequest) (*intent, error) {
	d, err := v.find(req.Shard)
	if err != nil {
		return nil, err
	}
	right := v.Map.RightOf(d)
	if right == nil {
		return nil, refuse(codes.FailedPrecondition, "merge shard %s with its right neighbour: it is the last one and has none; name the one before it", d.ID)
	}
	return v.mergeWith(d, right, asked(v.Now))
}

// mergeWith decides on a merge. The boundary's pin is removed.
func (v *View) mergeWith(d, right *shard.Descriptor, why string) (*intent, error) {
	i := &intent{
		command: placement.BeginMerge(d, right, why), pin: placement.Set(placement.PinSetting(right.Span.Start), ""),
		ready: func(ctx context.Context, c Changes) error { return c.ReadyToMerge(ctx, d, right) },
		told:  adminpb.OperatorReply{Shard: uint64(d.ID), Key: right.Span.Start, With: uint64(right.ID)},
	}
	return i, v.allows(i.command, d, right)
}

// move decides on a move that somebody asks for.
func (v *View) move(req *adminpb.MoveRequest) (*intent, error) {
	d, err := v.group(req.Shard)
	if err != nil {
		return nil, err
	}
	from, to, err := v.ends(d, req)
	if err != nil {
		return nil, err
	}
	i, err := v.moveBetween(d, from, to, asked(v.Now))
	if err != nil {
		return nil, err
	}
	if why := placement.MoveObstacle(v.Map, v.Load, v.Now, d.ID, from, to); why != "" && !req.Force {
		return nil, refuse(codes.FailedPrecondition, "move a replica of shard %s to %s: %s; --force moves it all the same", d.ID, req.To, why)
	}
	return i, nil
}

func (v *View) moveBetween(d *shard.Descriptor, from, to shard.NodeID, why string) (*intent, error) {
	i := &intent{command: placement.BeginMove(d, from, to, why), told: adminpb.OperatorReply{Shard: uint64(d.ID)}}
	return i, v.allows(i.command, d)
}

// lead decides that another node leads the shard.
func (v *View) lead(d *shard.Descriptor, to shard.NodeID) (*intent, error) {
	i := &intent{command: placement.Prefer(d, to)}
	return i, v.allows(i.command, d)
}

// asked is the reason of an operator that only a person has requested.
func asked(now time.Time) string { return "asked for at " + now.UTC().Format(time.RFC3339) }
