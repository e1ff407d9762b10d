package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// places is one version of the map of shards and nodes. It is immutable.
type places struct {
	version, cluster uint64
	shards           []*shard.Descriptor // in key order; they cover the keyspace
	nodes            map[shard.NodeID]endpoint
}

// apply returns the places after an update.
func (p *places) apply(u *routerpb.ShardsUpdate) (*places, error) {
	if p.cluster != 0 && u.ClusterId != p.cluster {
		return nil, fmt.Errorf("the node is of cluster %x, this client's is %x", u.ClusterId, p.cluster)
	}
	if u.Version <= p.version {
		return p, nil
	}
	next := &places{version: u.Version, cluster: u.ClusterId, nodes: make(map[shard.NodeID]endpoint)}
	if !u.Whole {
		for id, e := range p.nodes {
			next.nodes[id] = e
		}
	}
	for _, n := range u.Nodes {
		delete(next.nodes, shard.NodeID(n.NodeId))
		for _, url := range n.ClientUrls {
			if e, err := parseEndpoint(url); err == nil {
				next.nodes[shard.NodeID(n.NodeId)] = e
				break
			}
		}
	}
	for _, s := range u.Shards {
		next.shards = append(next.shards, shard.DescriptorOf(s))
	}
	if !u.Whole {
		for _, old := range p.shards {
			if !slices.ContainsFunc(next.shards, func(d *shard.Descriptor) bool { return d.ID == old.ID || d.Span.Overlaps(old.Span) }) {
				next.shards = append(next.shards, old)
			}
		}
	}
	slices.SortFunc(next.shards, func(a, b *shard.Descriptor) int { return bytes.Compare(a.Span.Start, b.Span.Start) })
	return next, next.check()
}

// check verifies that every key has a shard.
func (p *places) check() error {
	var end []byte
	for i, d := range p.shards {
		if !bytes.Equal(d.Span.Start, end) || i > 0 && len(end) == 0 {
			return fmt.Errorf("the node tells of a map with a gap before shard %s %s", d.ID, d.Span)
		}
		end = d.Span.End
	}
	if len(p.shards) == 0 || len(end) != 0 {
		return errors.New("the node tells of a map without an end")
	}
	return nil
}

// node returns a node's address; p may be nil.
func (p *places) node(id shard.NodeID) (endpoint, bool) {
	if p == nil {
		return endpoint{}, false
	}
	e, ok := p.nodes[id]
	return e, ok
}

func (p *places) lookup(key []byte) *shard.Descriptor {
	i, found := slices.BinarySearchFunc(p.shards, key, func(d *shard.Descriptor, key []byte) int { return bytes.Compare(d.Span.Start, key) })
	if found {
		return p.shards[i]
	}
	return p.shards[i-1] // the first starts at the lowest key
}

// directory is the client's copy of the map of shards and nodes, or the reason why there is none.
// It is a router.Directory.
type directory struct {
	places atomic.Pointer[places] // changed with mu held; nil before the first update
	mu     struct {
		sync.Mutex
		problem error // of the last attempt to get the map
		refused int   // attempts that ended with a refusal
		closed  bool
		changed chan struct{} // closed and replaced when places or closed changes
	}
}

func newDirectory() *directory {
	d := &directory{}
	d.mu.changed = make(chan struct{})
	return d
}

// take applies an update and returns the shards in it.
func (d *directory) take(u *routerpb.ShardsUpdate) ([]*shard.Descriptor, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.places.Load()
	if old == nil {
		old = &places{}
	}
	next, err := old.apply(u)
	if err != nil {
		return nil, err
	}
	d.places.Store(next)
	d.mu.problem = nil
	d.announce()
	return next.shards, nil
}

// announce wakes everyone who waits for a change. mu is held.
func (d *directory) announce() {
	close(d.mu.changed)
	d.mu.changed = make(chan struct{})
}

// fail records why the map could not be followed. Before the first one, a refusal ends the waits for it that had begun.
func (d *directory) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.problem = err
	if refusal(err) && d.places.Load() == nil {
		d.mu.refused++
		d.announce()
	}
}

// problem returns why there is no map yet; nil if no attempt has failed.
func (d *directory) problem() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.problem
}

func (d *directory) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.closed = true
	d.announce()
}

// since is the request for the next update.
func (d *directory) since() *routerpb.FollowShardsRequest {
	known := d.places.Load()
	if known == nil {
		return &routerpb.FollowShardsRequest{}
	}
	return &routerpb.FollowShardsRequest{Version: known.version, ClusterId: known.cluster}
}

// cluster is the cluster's ID, 0 while unknown.
func (d *directory) cluster() uint64 { return d.since().ClusterId }

// endpoints returns the addresses of all nodes.
func (d *directory) endpoints() []endpoint {
	var out []endpoint
	if known := d.places.Load(); known != nil {
		for _, e := range known.nodes {
			out = append(out, e)
		}
	}
	return out
}

// Lookup implements router.Directory. It waits for the first map.
func (d *directory) Lookup(ctx context.Context, key []byte) (*shard.Descriptor, error) {
	for before := -1; ; {
		d.mu.Lock()
		known, closed, changed, problem, refused := d.places.Load(), d.mu.closed, d.mu.changed, d.mu.problem, d.mu.refused
		d.mu.Unlock()
		switch {
		case closed:
			return nil, closedError{}
		case known != nil:
			return known.lookup(key), nil
		case before < 0:
			before = refused // an older refusal says nothing of now
		case refused > before:
			return nil, fmt.Errorf("ask a node where keys are: %w", problem)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no endpoint has told where keys are: %w: %w", shard.ErrUnavailable, cmp.Or(d.problem(), context.Cause(ctx)))
		}
	}
}
