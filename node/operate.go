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
	d := n.table.Map().Shard(id)
	if d == nil {
		return 0, fmt.Errorf("move a replica of shard %s: there is no such shard", id)
	}
	result, err := n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{
		ExpectedGeneration: d.Generation,
		Operator: &placementpb.Operator{
			ShardId: uint64(id), Kind: placementpb.OperatorKind_MOVE, FromNodeId: uint64(from), ToNodeId: uint64(to), Why: why,
		},
	}}})
	if err != nil {
		return 0, err
	}
	return result.OperatorId, nil
}

// Split begins to split the shard of a key there: the key and those after it become a
// shard of their own. It returns the operator's ID once the split is recorded. From then
// on it goes on by itself. It is refused while a replica of the shard does not answer.
func (n *Node) Split(ctx context.Context, key []byte, why string) (uint64, error) {
	m := n.table.Map()
	d := m.Lookup(key)
	if _, err := well(d, n.control.reports(ctx, m, d)); err != nil {
		return 0, fmt.Errorf("split shard %s at %q: all its replicas have to answer: %w", d.ID, key, err)
	}
	result, err := n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{
		ExpectedGeneration: d.Generation,
		Operator:           &placementpb.Operator{ShardId: uint64(d.ID), Kind: placementpb.OperatorKind_SPLIT, Key: key, Why: why},
	}}})
	if err != nil {
		return 0, err
	}
	return result.OperatorId, nil
}

// Prefer makes a node lead a shard whenever it is well. It needs a replica of it.
func (n *Node) Prefer(ctx context.Context, id shard.ID, leader shard.NodeID) error {
	m := n.table.Map()
	d := m.Shard(id)
	if d == nil {
		return fmt.Errorf("prefer a leader of shard %s: there is no such shard", id)
	}
	if _, err := leaderOf(n.control.reports(ctx, m, d)); err != nil { // O5
		return fmt.Errorf("prefer a leader of shard %s: %w", id, err)
	}
	next := *d
	next.PreferredNode = leader
	_, err := n.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{
		ExpectedGeneration: d.Generation, Descriptor_: next.Proto(),
	}}})
	return err
}

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
	mux.HandleFunc("POST /prefer", func(w http.ResponseWriter, r *http.Request) {
		id, err := number(r, "shard")
		leader, err2 := n.named(r, "node")
		if err = errors.Join(err, err2); err == nil {
			err = n.Prefer(r.Context(), shard.ID(id), leader)
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
	from, err := n.named(r, "from")
	to, err2 := n.named(r, "to")
	if err := errors.Join(err, err2); err != nil {
		return 0, err
	}
	return n.Move(r.Context(), shard.ID(id), from, to, askedFor())
}

// named is the node of a name in the request, 0 without one.
func (n *Node) named(r *http.Request, what string) (shard.NodeID, error) {
	name := r.FormValue(what)
	if name == "" {
		return 0, nil
	}
	found := n.table.Map().NodeByName(name)
	if found == nil {
		return 0, fmt.Errorf("%s=%s: the cluster has no node of this name", what, name)
	}
	return found.ID, nil
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
