package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Move begins to move a shard's replica from a node to another; either may be 0: only a
// replica more, or one less. It returns the operator's ID once the move is recorded. From
// then on it goes on by itself.
func (n *Node) Move(ctx context.Context, id shard.ID, from, to shard.NodeID, why string) (uint64, error) {
	return n.beginMove(ctx, n.table.Map(), id, from, to, why)
}

// beginMove is Move, if the shard still is as the map has it.
func (n *Node) beginMove(ctx context.Context, m *placement.Map, id shard.ID, from, to shard.NodeID, why string) (uint64, error) {
	return n.beginOperator(ctx, m, &placementpb.Operator{
		ShardId: uint64(id), Kind: placementpb.OperatorKind_MOVE, FromNodeId: uint64(from), ToNodeId: uint64(to), Why: why,
	})
}

// Split begins to split the shard of a key there: the key and those after it become a
// shard of their own. It returns the operator's ID once the split is recorded. From then
// on it goes on by itself. It is refused while a replica of the shard does not answer.
func (n *Node) Split(ctx context.Context, key []byte, why string) (uint64, error) {
	m := n.table.Map()
	return n.beginSplit(ctx, m, m.Lookup(key), key, why)
}

// beginSplit is Split, if the shard still is as the map has it.
func (n *Node) beginSplit(ctx context.Context, m *placement.Map, d *shard.Descriptor, key []byte, why string) (uint64, error) {
	if _, err := well(d, n.control.reports(ctx, m, d)); err != nil {
		return 0, fmt.Errorf("split shard %s at %q: all its replicas have to answer: %w", d.ID, key, err)
	}
	return n.beginOperator(ctx, m, &placementpb.Operator{ShardId: uint64(d.ID), Kind: placementpb.OperatorKind_SPLIT, Key: key, Why: why})
}

func (n *Node) beginOperator(ctx context.Context, m *placement.Map, o *placementpb.Operator) (uint64, error) {
	begin := &placementpb.BeginOperator{Operator: o}
	if d := m.Shard(shard.ID(o.ShardId)); d != nil { // if there is none, the refusal says so
		begin.ExpectedGeneration = d.Generation
	}
	result, err := n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: begin}})
	return result.GetOperatorId(), err
}

// Transfer has a node lead a shard, and prefers it from now on.
func (n *Node) Transfer(ctx context.Context, id shard.ID, to shard.NodeID) error {
	return n.prefer(ctx, n.table.Map(), id, to)
}

// prefer says in the table which node should lead a shard, if the shard still is as the
// map has it; the agent of the node that leads it sees to that.
func (n *Node) prefer(ctx context.Context, m *placement.Map, id shard.ID, to shard.NodeID) error {
	d := m.Shard(id)
	if d == nil {
		return fmt.Errorf("let a node lead shard %s: there is no such shard", id)
	}
	if d.PreferredNode == to {
		return nil
	}
	next := *d
	next.PreferredNode = to
	_, err := n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{
		ExpectedGeneration: d.Generation, Descriptor_: next.Proto(),
	}}})
	return err
}

// SetState says what may be placed on a node.
func (n *Node) SetState(ctx context.Context, id shard.NodeID, state placement.NodeState) error {
	_, err := n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_UpdateNode{UpdateNode: &placementpb.UpdateNode{
		NodeId: uint64(id), State: placementpb.NodeState(state),
	}}})
	return err
}

// Set changes a setting of the cluster; an empty value removes it.
func (n *Node) Set(ctx context.Context, name, value string) error {
	_, err := n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_SetSetting{
		SetSetting: &placementpb.SetSetting{Name: name, Value: value},
	}})
	return err
}

// Rebalance does what the plan says now, once, and returns the steps that began. A node
// that has not collected load lately takes nobody for dead.
func (n *Node) Rebalance(ctx context.Context) ([]placement.Step, error) { return n.balance.round(ctx) }

// CancelOperator ends an operator that can still be undone.
func (n *Node) CancelOperator(ctx context.Context, id shard.ID, operator uint64) error {
	_, err := n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_CancelOperator{
		CancelOperator: &placementpb.CancelOperator{ShardId: uint64(id), OperatorId: operator},
	}})
	return err
}

// handlePlacement serves what there is to see and to do about the placement table.
func (n *Node) handlePlacement(mux *http.ServeMux) {
	mux.HandleFunc("GET /shards", func(w http.ResponseWriter, _ *http.Request) { writeShards(w, n.table.Map()) })
	mux.HandleFunc("POST /move", func(w http.ResponseWriter, r *http.Request) {
		operator, err := n.moveAsked(r)
		if err == nil {
			_, err = fmt.Fprintf(w, "operator %d\n", operator)
		}
		answer(w, err)
	})
	mux.HandleFunc("POST /split", func(w http.ResponseWriter, r *http.Request) {
		operator, err := n.Split(r.Context(), []byte(r.FormValue("key")), askedFor())
		if err == nil {
			_, err = fmt.Fprintf(w, "operator %d\n", operator)
		}
		answer(w, err)
	})
	mux.HandleFunc("POST /cancel", func(w http.ResponseWriter, r *http.Request) {
		id, err := number(r, "shard")
		operator, err2 := number(r, "operator")
		if err = errors.Join(err, err2); err == nil {
			err = n.CancelOperator(r.Context(), shard.ID(id), operator)
		}
		answer(w, err)
	})
}

func writeShards(w http.ResponseWriter, m *placement.Map) {
	name := func(id shard.NodeID) string {
		if node := m.Node(id); node != nil {
			return node.Name
		}
		return "-"
	}
	for _, d := range m.Shards() {
		fmt.Fprintf(w, "shard %d %s epoch %d generation %d:", d.ID, d.Span, d.Epoch, d.Generation)
		for _, r := range d.Replicas {
			fmt.Fprintf(w, " %d@%s", r.ID, name(r.Node))
			if r.Learner {
				fmt.Fprint(w, "(learner)")
			}
		}
		if o := m.Operator(d.ID); o != nil {
			fmt.Fprintf(w, "; operator %d: %s %s", o.ID, o.Kind, o.Phase)
			if o.Child != nil {
				fmt.Fprintf(w, " at %q into shard %s", o.Key, o.Child.ID)
			} else {
				fmt.Fprintf(w, " from %s to %s", name(o.From), name(o.To))
			}
			fmt.Fprintf(w, ", %s", o.Why)
		}
		fmt.Fprintln(w)
	}
}

// moveAsked begins the move that a request asks for: nodes by name.
func (n *Node) moveAsked(r *http.Request) (uint64, error) {
	id, err := number(r, "shard")
	if err != nil {
		return 0, err
	}
	var nodes [2]shard.NodeID
	for i, what := range []string{"from", "to"} {
		name := r.FormValue(what)
		if name == "" {
			continue
		}
		found := n.table.Map().NodeByName(name)
		if found == nil {
			return 0, fmt.Errorf("%s=%s: the cluster has no node of this name", what, name)
		}
		nodes[i] = found.ID
	}
	return n.Move(r.Context(), shard.ID(id), nodes[0], nodes[1], askedFor())
}

// askedFor is the reason of an operator that nothing but a person asks for.
func askedFor() string { return "asked for at " + time.Now().UTC().Format(time.RFC3339) }

func number(r *http.Request, what string) (uint64, error) {
	n, err := strconv.ParseUint(r.FormValue(what), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s=%s: want a number", what, r.FormValue(what))
	}
	return n, nil
}

// answer says why something was not done.
func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}
