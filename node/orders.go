package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Orders make a node act on its replica of a shard. How a node carries one out is in direct.go.

// orderTimeout bounds one order.
const orderTimeout = 5 * time.Second

// client returns the client of a node, this one included.
func (c *controller) client(m *placement.Map, id shard.NodeID) (routerpb.PeerClient, error) {
	n := m.Node(id)
	if n == nil || n.State == placement.Removed {
		return nil, fmt.Errorf("node %s is not part of the cluster", id)
	}
	return routerpb.NewPeerClient(c.node.peers.at(n.PeerAddr).Conn()), nil
}

// order makes the node act on its replica of a shard.
func (c *controller) order(ctx context.Context, m *placement.Map, id shard.NodeID, req *routerpb.DirectRequest) error {
	_, err := c.direct(ctx, m, id, req)
	return err
}

// direct is order that returns the answer.
func (c *controller) direct(ctx context.Context, m *placement.Map, id shard.NodeID, req *routerpb.DirectRequest) (*routerpb.DirectReply, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	if id == c.node.self.NodeID {
		return (&peerServer{node: c.node}).Direct(ctx, req)
	}
	client, err := c.client(m, id)
	if err != nil {
		return nil, err
	}
	reply, err := client.Direct(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", id, err)
	}
	return reply, nil
}

// orderLeader gives an order to the leader of a shard.
func (c *controller) orderLeader(ctx context.Context, m *placement.Map, d *shard.Descriptor, req *routerpb.DirectRequest) error {
	leader, err := leaderOf(c.reports(ctx, m, d))
	if err != nil {
		return err
	}
	req.Shard = uint64(d.ID)
	return c.order(ctx, m, leader.Node, req)
}

// orderTransfer makes a shard's leader, which is on the node, transfer leadership to another
// replica.
func (c *controller) orderTransfer(ctx context.Context, m *placement.Map, id shard.ID, leader shard.NodeID, heir shard.ReplicaID) error {
	return c.order(ctx, m, leader, &routerpb.DirectRequest{
		Shard: uint64(id), Order: &routerpb.DirectRequest_Transfer{Transfer: &routerpb.Member{Replica: uint64(heir)}},
	})
}

// orderAll gives an order to all nodes of a shard concurrently, repeating it to each until it has
// been carried out there or patience ends.
func (c *controller) orderAll(ctx context.Context, m *placement.Map, d *shard.Descriptor, patience time.Duration, req *routerpb.DirectRequest) tally {
	return c.orderEach(ctx, d, patience, func(ctx context.Context, at shard.NodeID) error {
		return until(ctx, func() error { return c.order(ctx, m, at, req) })
	})
}

// orderRunning is like orderAll, but does not repeat the order to a node whose process has ended. It is for what such
// a node makes up for when it is back. A node that is only slow or cut off is given all the patience.
func (c *controller) orderRunning(ctx context.Context, m *placement.Map, d *shard.Descriptor, patience time.Duration, req *routerpb.DirectRequest) tally {
	return c.orderEach(ctx, d, patience, func(ctx context.Context, at shard.NodeID) error {
		var ended error
		err := until(ctx, func() error {
			err := c.order(ctx, m, at, req)
			if err != nil && c.node.departed.has(at) {
				ended = err
				return nil
			}
			return err
		})
		return errors.Join(ended, err)
	})
}

// orderEach gives an order to all nodes of a shard concurrently. give ends with its context, when patience does.
func (c *controller) orderEach(ctx context.Context, d *shard.Descriptor, patience time.Duration, give func(ctx context.Context, at shard.NodeID) error) tally {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	errs := make([]error, len(d.Replicas))
	var asking sync.WaitGroup
	for i, r := range d.Replicas {
		asking.Go(func() { errs[i] = give(ctx, r.Node) })
	}
	asking.Wait()
	t := tally{of: d}
	for i, err := range errs {
		if err == nil {
			t.done = append(t.done, d.Replicas[i])
		} else {
			t.errs = append(t.errs, err)
		}
	}
	return t
}

// bracePatience is how long a split or merge waits for replicas to store what they have in memory. The rest would
// have to be stored during the pause that the change causes.
const bracePatience = 500 * time.Millisecond

// brace makes all nodes of a shard store what their replicas have applied.
func (c *controller) brace(ctx context.Context, m *placement.Map, d *shard.Descriptor, durably bool) {
	c.orderAll(ctx, m, d, bracePatience, &routerpb.DirectRequest{
		Shard: uint64(d.ID), Order: &routerpb.DirectRequest_Brace{Brace: &routerpb.Brace{Durably: durably}},
	})
}

// tally is the outcome of an order to all replicas of a shard.
type tally struct {
	of   *shard.Descriptor
	done []shard.Replica // those that carried it out
	errs []error         // of the others
}

// majority fails unless a majority carried the order out.
func (t tally) majority() error {
	if len(t.done) > len(t.of.Replicas)/2 {
		return nil
	}
	return t.failure()
}

// all fails unless all carried the order out.
func (t tally) all() error {
	if len(t.errs) == 0 {
		return nil
	}
	return t.failure()
}

func (t tally) failure() error {
	return fmt.Errorf("%d of the %d replicas of shard %s: %w", len(t.done), len(t.of.Replicas), t.of.ID, errors.Join(t.errs...))
}

// orderPause is between two attempts at an order that failed: often some keys are unavailable until
// it is carried out.
const orderPause = 2 * time.Millisecond

// until repeats attempt while it fails. The error is the last one.
func until(ctx context.Context, attempt func() error) error {
	for {
		err := attempt()
		if err == nil || pause(ctx, orderPause) != nil {
			return err
		}
	}
}
