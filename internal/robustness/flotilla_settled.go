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

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

const (
	// flotillaReplicas is how many replicas a shard has when no operator is in progress.
	flotillaReplicas = 3
	// hashTimeout is longer than a node tries, so that the node can say why it failed.
	hashTimeout = 10 * time.Second
	settlePoll  = 100 * time.Millisecond
)

// Settle implements Layout. It waits until all operators have ended and all nodes have the same map, in which shards
// cover the keyspace without overlaps, and all replicas serve and hold the same data.
func (l FlotillaLayout) Settle(ctx context.Context) (err error) {
	clients := make([]*clientv3.Client, len(l.Nodes))
	for i, n := range l.Nodes {
		if clients[i], err = dial([]string{n.ClientAddr}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, clients[i].Close()) }()
	}
	// The balancer replaces replicas that have missed a split. It has to run often enough, and must not decide that
	// the machine's disk is too full.
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

// sameChecksums makes the cluster itself compare its replicas, including history and leases, and asks whether it has
// ever found a difference.
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

// rest checks every node's map.
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

// auditShards returns what is in progress or wrong.
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

// describe writes what all nodes have to agree on.
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

// sameContent compares what all replicas hold at one revision: each node hashes its own data.
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

// poll repeats attempt while it fails, until the context ends. The error is that of the last attempt that was not cut
// short.
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
