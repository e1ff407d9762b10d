package robustness

import (
	"bytes"
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

// FlotillaArgs are the arguments of a flotilla node in a cluster that begins with
// one shard for each ShardCount-th of the keyspace.
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
	// shardsMax is how many shards a run makes: enough to split what was split, and few
	// enough for all of them on the processors that the processes share.
	shardsMax = 16
	// flotillaReplicas is how many a shard has when nothing is under way.
	flotillaReplicas = 3
	// orderTimeout bounds how long one node may take to accept an order: a split first
	// asks all replicas.
	orderTimeout = 2 * time.Second
	// hashTimeout is longer than a node tries, so that it says why it failed.
	hashTimeout = 10 * time.Second
	settlePoll  = 100 * time.Millisecond
)

// FlotillaLayout is the Layout of flotilla's nodes. It may be asked of any of them, so of
// one that answers.
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
		// A replica of the right shard goes where the left one has one and it has none.
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

// pair is the shard of the key and its neighbour.
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

// operate has an operator begun and waits until it has ended, whatever came of it.
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

// lacks is a node that has a replica of b and none of a, empty when there is none.
func lacks(a, b *adminpb.Shard) string {
	for _, r := range b.Replicas {
		if !hasReplica(a, r.Node) {
			return r.Node
		}
	}
	return ""
}

// indexOf is where the shard of the key is, -1 for nowhere.
func indexOf(shards []*adminpb.Shard, key string) int {
	return slices.IndexFunc(shards, func(s *adminpb.Shard) bool {
		return string(s.Span.Start) <= key && (len(s.Span.End) == 0 || key < string(s.Span.End))
	})
}

// Move implements Layout: the replica comes from the next node after it that has one.
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
		// It would be refused, or find the operator ended and the replicas not where they
		// were thought to be.
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

// order asks one node after the other until one answers, be it with a refusal.
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

// anyShards is the map of the first node that answers.
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

// shardsOf is the map of one node.
func shardsOf(ctx context.Context, cli *clientv3.Client) ([]*adminpb.Shard, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	reply, err := adminpb.NewAdminClient(cli.ActiveConnection()).Shards(ctx, &adminpb.ShardsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the shards: %w", err)
	}
	return reply.Shards, nil
}

// Settle implements Layout. Operators end, all nodes have the same map, in which shards
// cover the keyspace without overlaps, and all replicas serve and hold the same.
func (l FlotillaLayout) Settle(ctx context.Context) (err error) {
	clients := make([]*clientv3.Client, len(l.Nodes))
	for i, n := range l.Nodes {
		if clients[i], err = dial([]string{n.ClientAddr}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, clients[i].Close()) }()
	}
	// Replicas that have missed a split are replaced by the balancer. It has to look often
	// enough, and must not find that the disk of the machine has no room.
	for name, value := range map[string]string{"rebalance-interval": "1s", "low-space": "0.01"} {
		err := l.order(ctx, func(ctx context.Context, admin adminpb.AdminClient) error {
			_, err := admin.Set(ctx, &adminpb.SetRequest{Name: name, Value: value})
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := poll(ctx, func() error { return l.rest(ctx, clients) }); err != nil {
		return err
	}
	if err := l.sameContent(ctx, clients); err != nil {
		return err
	}
	return l.sameChecksums(ctx, clients[0])
}

// sameChecksums has the cluster compare its replicas by itself, with their history and
// leases, and asks whether it has ever found that some differed.
func (l FlotillaLayout) sameChecksums(ctx context.Context, cli *clientv3.Client) error {
	admin := adminpb.NewAdminClient(cli.ActiveConnection())
	err := poll(ctx, func() error {
		shards, err := shardsOf(ctx, cli)
		if err != nil {
			return err
		}
		for _, s := range shards {
			checked, err := admin.Check(ctx, &adminpb.CheckRequest{Shard: s.Id})
			if err == nil && checked.Verdict != "agree" {
				err = fmt.Errorf("the replicas of shard %d: %v", s.Id, checked)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	alarms, err := cli.AlarmList(ctx)
	if err == nil && len(alarms.Alarms) > 0 {
		err = fmt.Errorf("there are alarms: %v", alarms.Alarms)
	}
	return err
}

// rest looks at every node's map.
func (l FlotillaLayout) rest(ctx context.Context, clients []*clientv3.Client) error {
	var first string
	for i, cli := range clients {
		shards, err := shardsOf(ctx, cli)
		if err != nil {
			return fmt.Errorf("%s: %w", l.Nodes[i].Name, err)
		}
		if err := auditShards(shards); err != nil {
			return fmt.Errorf("%s: %w", l.Nodes[i].Name, err)
		}
		if all := describe(shards); i == 0 {
			first = all
		} else if all != first {
			return fmt.Errorf("the maps of %s and %s differ:\n%s\n%s", l.Nodes[0].Name, l.Nodes[i].Name, first, all)
		}
	}
	return nil
}

// auditShards says what is under way or wrong.
func auditShards(shards []*adminpb.Shard) error {
	var end []byte
	for i, s := range shards {
		voters := 0
		for _, r := range s.Replicas {
			if !r.Learner {
				voters++
			}
		}
		unfit := slices.IndexFunc(s.Replicas, func(r *adminpb.Replica) bool { return r.Unfit != "" })
		switch {
		case unfit >= 0:
			return fmt.Errorf("replica %d of shard %d serves nothing: %s", s.Replicas[unfit].Id, s.Id, s.Replicas[unfit].Unfit)
		case s.Operator != nil:
			return fmt.Errorf("operator %d of shard %d is under way: %s, %s", s.Operator.Id, s.Id, s.Operator.Kind, s.Operator.Phase)
		case i > 0 && len(end) == 0, !bytes.Equal(end, s.Span.Start):
			return fmt.Errorf("shard %d begins at %q, the one before it ends at %q", s.Id, s.Span.Start, end)
		case voters != flotillaReplicas || len(s.Replicas) != voters:
			return fmt.Errorf("shard %d has %d replicas of which %d vote", s.Id, len(s.Replicas), voters)
		}
		end = s.Span.End
	}
	if len(shards) == 0 || len(end) > 0 {
		return fmt.Errorf("the last of %d shards ends at %q", len(shards), end)
	}
	return nil
}

// describe is what all nodes have to agree on.
func describe(shards []*adminpb.Shard) string {
	var b strings.Builder
	for _, s := range shards {
		fmt.Fprintf(&b, "shard %d [%q, %q) epoch %d generation %d slot %d:", s.Id, s.Span.Start, s.Span.End, s.Epoch, s.Generation, s.Slot)
		for _, r := range s.Replicas {
			fmt.Fprintf(&b, " %d@%s", r.Id, r.Node)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// sameContent compares what all replicas hold at one revision: each node sums up its own.
func (l FlotillaLayout) sameContent(ctx context.Context, clients []*clientv3.Client) error {
	var at int64
	var first uint32
	for i, cli := range clients {
		var resp *clientv3.HashKVResponse
		err := poll(ctx, func() (err error) {
			attempt, cancel := context.WithTimeout(ctx, hashTimeout)
			defer cancel()
			resp, err = cli.HashKV(attempt, l.Nodes[i].ClientAddr, at)
			return err
		})
		if err != nil {
			return fmt.Errorf("the hash of %s at revision %d: %w", l.Nodes[i].Name, at, err)
		}
		if i == 0 {
			at, first = resp.HashRevision, resp.Hash
		} else if resp.Hash != first {
			return fmt.Errorf("at revision %d the replicas of %s are summed up as %08x, those of %s as %08x", at, l.Nodes[0].Name, first, l.Nodes[i].Name, resp.Hash)
		}
	}
	return nil
}

// poll repeats what fails until the context ends. The error is that of the last attempt
// that came to its own end.
func poll(ctx context.Context, attempt func() error) error {
	var last error
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if wait(ctx, settlePoll) != nil {
			return last
		}
	}
}
