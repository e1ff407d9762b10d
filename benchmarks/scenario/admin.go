package scenario

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// admin asks the cluster about itself, through the node that a connection leads to.
type admin struct{ adminpb.AdminClient }

func newAdmin(conn *clientv3.Client) admin {
	return admin{adminpb.NewAdminClient(conn.ActiveConnection())}
}

const (
	askEvery = 20 * time.Millisecond
	// patience is for what should take seconds.
	patience = 2 * time.Minute
)

// until asks again and again until something holds.
func until(ctx context.Context, what string, holds func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		ok, err := holds(ctx)
		if err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		}
	}
}

func (a admin) shards(ctx context.Context) ([]*adminpb.Shard, error) {
	reply, err := a.Shards(ctx, &adminpb.ShardsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list shards: %w", err)
	}
	return reply.Shards, nil
}

// nodes are ascending by ID: the first three carry the meta group.
func (a admin) nodes(ctx context.Context) ([]*adminpb.Node, error) {
	reply, err := a.Nodes(ctx, &adminpb.NodesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	return reply.Nodes, nil
}

func (a admin) set(ctx context.Context, name, value string) error {
	if _, err := a.Set(ctx, &adminpb.SetRequest{Name: name, Value: value}); err != nil {
		return fmt.Errorf("set %s to %s: %w", name, value, err)
	}
	return nil
}

// replicationFactor is what clusters start with.
const replicationFactor = 3

// whole waits until every shard has all its replicas and a leader (C2).
func (a admin) whole(ctx context.Context, nodes int) error {
	return until(ctx, "all shards are whole", func(ctx context.Context) (bool, error) {
		shards, err := a.shards(ctx)
		return err == nil && !slices.ContainsFunc(shards, func(s *adminpb.Shard) bool {
			return s.Leader == "" || healthy(s, "") < min(nodes, replicationFactor)
		}), err
	})
}

// healthy is how many replicas of the shard have a vote, are heard of and know about all
// that was committed, on nodes other than the one that is lost.
func healthy(s *adminpb.Shard, lost string) (n int) {
	const lagMax = 1000 // what the balancer calls too far behind to lead
	for _, r := range s.Replicas {
		if !r.Learner && r.Node != lost && r.HeardMillis >= 0 && r.Lag >= 0 && r.Lag <= lagMax {
			n++
		}
	}
	return n
}

// owner is the shard of a key.
func owner(shards []*adminpb.Shard, key string) *adminpb.Shard {
	i := slices.IndexFunc(shards, func(s *adminpb.Shard) bool { return owns(s, key) })
	return shards[i] // shards cover the keyspace
}

func owns(s *adminpb.Shard, key string) bool {
	return bytes.Compare(s.Span.Start, []byte(key)) <= 0 && (len(s.Span.End) == 0 || key < string(s.Span.End))
}

// ended waits until an operator is over.
func (a admin) ended(ctx context.Context, operator uint64) error {
	return until(ctx, fmt.Sprintf("operator %d has ended", operator), func(ctx context.Context) (bool, error) {
		reply, err := a.Operators(ctx, &adminpb.OperatorsRequest{})
		if err != nil {
			return false, err
		}
		return reply.Version >= operator && !slices.ContainsFunc(reply.Operators, func(o *adminpb.Operator) bool { return o.Id == operator }), nil
	})
}

func (a admin) split(ctx context.Context, id uint64, key []byte) error {
	reply, err := a.Split(ctx, &adminpb.SplitRequest{Shard: id, Key: key})
	if err != nil {
		return fmt.Errorf("split shard %d: %w", id, err)
	}
	return a.ended(ctx, reply.Operator)
}

// merge has a shard take the keys of its right neighbour.
func (a admin) merge(ctx context.Context, id uint64) error {
	reply, err := a.Merge(ctx, &adminpb.MergeRequest{Shard: id})
	if err != nil {
		return fmt.Errorf("merge shard %d with its right neighbour: %w", id, err)
	}
	return a.ended(ctx, reply.Operator)
}

func (a admin) move(ctx context.Context, id uint64, from, to string) error {
	reply, err := a.Move(ctx, &adminpb.MoveRequest{Shard: id, From: from, To: to})
	if err != nil {
		return fmt.Errorf("move shard %d from %s to %s: %w", id, from, to, err)
	}
	return a.ended(ctx, reply.Operator)
}

func (a admin) transfer(ctx context.Context, id uint64, to string) error {
	if _, err := a.Transfer(ctx, &adminpb.TransferRequest{Shard: id, To: to}); err != nil {
		return fmt.Errorf("let %s lead shard %d: %w", to, id, err)
	}
	return until(ctx, fmt.Sprintf("%s leads shard %d", to, id), func(ctx context.Context) (bool, error) {
		reply, err := a.Shards(ctx, &adminpb.ShardsRequest{Id: id})
		return err == nil && reply.Shards[0].Leader == to, err
	})
}

// drain takes all leaders off a node; the balancer must be on.
func (a admin) drain(ctx context.Context, node string) error {
	if _, err := a.SetNodeState(ctx, &adminpb.SetNodeStateRequest{Node: node, State: "draining"}); err != nil {
		return fmt.Errorf("drain %s: %w", node, err)
	}
	return until(ctx, node+" leads nothing", func(ctx context.Context) (bool, error) {
		shards, err := a.shards(ctx)
		return err == nil && !slices.ContainsFunc(shards, func(s *adminpb.Shard) bool { return s.Leader == node || s.Leader == "" }), err
	})
}
