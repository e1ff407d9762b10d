package robustness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// FlotillaArgs are the arguments of a flotilla node, in a cluster that begins with ShardCount shards of equal size.
func FlotillaArgs(node proccluster.Spec, all []proccluster.Spec) []string {
	var join []string
	for _, n := range all {
		join = append(join, n.PeerAddr)
	}
	return []string{
		"start", "--name", node.Name, "--data-dir", node.DataDir,
		"--client-addr", node.ClientAddr, "--peer-addr", node.PeerAddr, "--admin-addr", node.AdminAddr,
		"--join", strings.Join(join, ","), "--bootstrap-expect", fmt.Sprint(len(all)),
		"--initial-splits", fmt.Sprintf("uniform:%d", ShardCount),
	}
}

const (
	// shardsMax is how many shards a run may make: enough to split a shard again after a split, and few enough for
	// the CPUs that all processes share.
	shardsMax = 16
	// orderTimeout bounds how long a node may take to accept an order: a split first asks all replicas.
	orderTimeout = 2 * time.Second
)

// FlotillaLayout is the Layout of flotilla's nodes. It asks any node that answers.
type FlotillaLayout struct{ Nodes []proccluster.Spec }

// Split implements Layout.
func (l FlotillaLayout) Split(ctx context.Context, key string) error {
	shards, err := l.anyShards(ctx)
	if err != nil {
		return err
	}
	if len(shards) >= shardsMax {
		return fmt.Errorf("split at %q: there are %d shards", key, len(shards))
	}
	return l.operate(ctx, func(ctx context.Context, admin adminpb.AdminClient) (*adminpb.OperatorReply, error) {
		return admin.Split(ctx, &adminpb.SplitRequest{Key: []byte(key)})
	})
}

// Merge implements Layout.
func (l FlotillaLayout) Merge(ctx context.Context, key string) error {
	for {
		left, right, err := l.pair(ctx, key)
		if err != nil {
			return err
		}
		// Move a replica of the right shard to a node where only the left one has a replica.
		to, from := lacks(right, left), lacks(left, right)
		together := to == "" && from == ""
		err = l.operate(ctx, func(ctx context.Context, admin adminpb.AdminClient) (*adminpb.OperatorReply, error) {
			if together {
				return admin.Merge(ctx, &adminpb.MergeRequest{Shard: left.Id})
			}
			return admin.Move(ctx, &adminpb.MoveRequest{Shard: right.Id, From: from, To: to})
		})
		if err != nil || together {
			return err
		}
	}
}

// pair returns the shard of the key and its neighbour.
func (l FlotillaLayout) pair(ctx context.Context, key string) (left, right *adminpb.Shard, err error) {
	shards, err := l.anyShards(ctx)
	if err != nil {
		return nil, nil, err
	}
	i := max(indexOf(shards, key), 1)
	if i >= len(shards) {
		return nil, nil, fmt.Errorf("merge at %q: there are %d shards", key, len(shards))
	}
	left, right = shards[i-1], shards[i]
	if left.Operator != nil || right.Operator != nil {
		return nil, nil, fmt.Errorf("merge at %q: an operator of shard %d or %d is under way", key, left.Id, right.Id)
	}
	return left, right, nil
}

// operate starts an operator and waits until it has ended, whatever the result.
func (l FlotillaLayout) operate(ctx context.Context, begin func(context.Context, adminpb.AdminClient) (*adminpb.OperatorReply, error)) error {
	var begun *adminpb.OperatorReply
	err := l.order(ctx, func(ctx context.Context, admin adminpb.AdminClient) (err error) {
		begun, err = begin(ctx, admin)
		return err
	})
	if err != nil {
		return err
	}
	return poll(ctx, func() error {
		shards, err := l.anyShards(ctx)
		if err == nil && slices.ContainsFunc(shards, func(s *adminpb.Shard) bool { return s.Operator.GetId() == begun.Operator }) {
			err = fmt.Errorf("operator %d is under way", begun.Operator)
		}
		return err
	})
}

// lacks returns a node that has a replica of b and none of a; empty if there is none.
func lacks(a, b *adminpb.Shard) string {
	for _, r := range b.Replicas {
		if !hasReplica(a, r.Node) {
			return r.Node
		}
	}
	return ""
}

// indexOf returns the position of the key's shard, or -1.
func indexOf(shards []*adminpb.Shard, key string) int {
	return slices.IndexFunc(shards, func(s *adminpb.Shard) bool {
		return string(s.Span.Start) <= key && (len(s.Span.End) == 0 || key < string(s.Span.End))
	})
}

// Move implements Layout: the replica is taken from the next node that has one.
func (l FlotillaLayout) Move(ctx context.Context, key string, node int) error {
	shards, err := l.anyShards(ctx)
	if err != nil {
		return err
	}
	i := indexOf(shards, key)
	if i < 0 {
		return fmt.Errorf("move %q: no shard owns it", key)
	}
	if shards[i].Operator != nil {
		// The move would be refused, or carried out after the operator has ended and changed where the replicas are.
		return fmt.Errorf("move %q: an operator of shard %d is under way", key, shards[i].Id)
	}
	after := func(node int, has bool) (int, string) {
		for range l.Nodes {
			if name := l.Nodes[node].Name; hasReplica(shards[i], name) == has {
				return node, name
			}
			node = (node + 1) % len(l.Nodes)
		}
		return node, ""
	}
	node, to := after(node, false)
	_, from := after(node, true)
	if from == "" || to == "" {
		return fmt.Errorf("move %q: shard %d is everywhere or nowhere", key, shards[i].Id)
	}
	return l.order(ctx, func(ctx context.Context, admin adminpb.AdminClient) error {
		_, err := admin.Move(ctx, &adminpb.MoveRequest{Shard: shards[i].Id, From: from, To: to})
		return err
	})
}

func hasReplica(s *adminpb.Shard, node string) bool {
	return slices.ContainsFunc(s.Replicas, func(r *adminpb.Replica) bool { return r.Node == node })
}

// Transfer implements Layout.
func (l FlotillaLayout) Transfer(ctx context.Context, node int) error {
	shards, err := l.anyShards(ctx)
	var errs []error
	for _, s := range shards {
		if name := l.Nodes[node].Name; hasReplica(s, name) && s.Leader != name {
			errs = append(errs, l.order(ctx, func(ctx context.Context, admin adminpb.AdminClient) error {
				_, err := admin.Transfer(ctx, &adminpb.TransferRequest{Shard: s.Id, To: name})
				return err
			}))
		}
	}
	return errors.Join(append(errs, err)...)
}

// order asks one node after the other until one answers, even with a refusal.
func (l FlotillaLayout) order(ctx context.Context, ask func(context.Context, adminpb.AdminClient) error) error {
	var errs []error
	for _, n := range l.Nodes {
		cli, err := dial([]string{n.ClientAddr})
		if err != nil {
			return err
		}
		asking, cancel := context.WithTimeout(ctx, orderTimeout)
		err = ask(asking, adminpb.NewAdminClient(cli.ActiveConnection()))
		cancel()
		if err = errors.Join(err, cli.Close()); err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("through %s: %w", n.Name, err))
		if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
			break
		}
	}
	return errors.Join(errs...)
}

// anyShards returns the map of the first node that answers.
func (l FlotillaLayout) anyShards(ctx context.Context) ([]*adminpb.Shard, error) {
	var errs []error
	for _, n := range l.Nodes {
		cli, err := dial([]string{n.ClientAddr})
		if err != nil {
			return nil, err
		}
		shards, err := shardsOf(ctx, cli)
		errs = append(errs, err, cli.Close())
		if err == nil {
			return shards, nil
		}
	}
	return nil, errors.Join(errs...)
}

// shardsOf returns the map of one node.
func shardsOf(ctx context.Context, cli *clientv3.Client) ([]*adminpb.Shard, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	reply, err := adminpb.NewAdminClient(cli.ActiveConnection()).Shards(ctx, &adminpb.ShardsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the shards: %w", err)
	}
	return reply.Shards, nil
}
