package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// health asks the other nodes, once a second, for their state: whether they answer, their clock,
// whether their disk is full.
type health struct {
	node *Node

	mu struct {
		sync.Mutex
		peers map[shard.NodeID]peerHealth
	}
}

// peerHealth is what the last Hello returned of a node.
type peerHealth struct {
	name   string
	since  time.Time // since when it has answered without a gap; zero if it did not answer the last time
	offset time.Duration
	// clock is what the node's clock showed when it answered last; zero if it never did.
	clock   time.Time
	diskLow bool
	unfit   []shard.ID // shards whose replica on that node serves nothing, and must not lead
	// stranger is the ID of the other cluster whose node answers at this address, if any. Its answers are ignored.
	stranger uint64
}

const (
	healthInterval = time.Second
	// steadyAfter is how long a node must answer before it is given leadership.
	steadyAfter = 5 * time.Second
)

func newHealth(n *Node) *health {
	h := &health{node: n}
	h.mu.peers = make(map[shard.NodeID]peerHealth)
	return h
}

// run looks until ctx ends.
func (h *health) run(ctx context.Context) {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look takes one reading of everything, including this node's own disk, and judges this node by it.
func (h *health) look(ctx context.Context) {
	h.node.space.look()
	h.node.space.judge() // a full disk here counts at once; to ask a node that does not answer takes a second
	h.ask(ctx)
	h.judgeClock()
	h.node.space.judge()
}

// ask says hello to all others.
func (h *health) ask(ctx context.Context) {
	targets := make(map[shard.NodeID]Peer)
	for _, p := range h.node.knownPeers() {
		targets[p.NodeID] = p
	}
	delete(targets, h.node.self.NodeID)
	h.forget(targets)

	ctx, cancel := context.WithTimeout(ctx, healthInterval)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range targets {
		wg.Go(func() {
			sent := h.node.cfg.Clock.Now()
			reply, err := routerpb.NewPeerClient(h.node.peers.at(p.PeerAddr).Conn()).Hello(ctx, h.node.helloRequest())
			received := h.node.cfg.Clock.Now()
			h.record(p, sent, received, reply, err)
		})
	}
	wg.Wait()
}

// forget drops nodes that are no longer in the table: their last reports of disk and clock must not count for ever.
func (h *health) forget(targets map[shard.NodeID]Peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.mu.peers, func(id shard.NodeID, _ peerHealth) bool {
		_, known := targets[id]
		return !known
	})
}

func (h *health) record(of Peer, sent, received time.Time, reply *routerpb.HelloReply, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.mu.peers[of.NodeID]
	p.name = of.Name
	if err == nil {
		p.stranger = h.strange(reply)
	}
	if err != nil || p.stranger != 0 {
		p.since = time.Time{}
	} else {
		if p.since.IsZero() {
			p.since = time.Now() // an interval, which does not depend on the wall clock, which may be wrong
		}
		p.clock = time.UnixMicro(reply.ClockUnixMicros)
		p.offset = clockOffset(sent, received, p.clock)
		p.diskLow, p.unfit = reply.DiskLow, nil
		for _, id := range reply.UnfitShards {
			p.unfit = append(p.unfit, shard.ID(id))
		}
		h.node.hlc.Observe(shard.Revision(reply.HighestRevision))
		h.node.departed.returned(of.NodeID)
	}
	h.mu.peers[of.NodeID] = p
}

// strange returns the ID of the cluster in the reply, or 0 for this node's own.
func (h *health) strange(reply *routerpb.HelloReply) uint64 {
	if len(reply.Identity) == 0 { // not a member of any cluster yet
		return 0
	}
	var founding Founding
	if err := json.Unmarshal(reply.Identity, &founding); err != nil || founding.ClusterID == h.node.self.Founding.ClusterID {
		return 0
	}
	return founding.ClusterID
}

// amongStrangers fails when this node is at the wrong place: only nodes of another cluster answer
// at the addresses of its peers.
func (h *health) amongStrangers() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var strangers []string
	var cluster uint64
	for _, p := range h.mu.peers {
		switch {
		case !p.since.IsZero():
			return nil
		case p.stranger != 0:
			strangers, cluster = append(strangers, p.name), p.stranger
		}
	}
	if len(strangers) == 0 {
		return nil
	}
	slices.Sort(strangers)
	return fmt.Errorf("data directory %s belongs to cluster %x, but at the addresses of its nodes %s another cluster (%x) answers; give the --data-dir of that cluster's node, or stop that cluster",
		h.node.cfg.DataDir, h.node.self.Founding.ClusterID, strings.Join(strangers, ", "), cluster)
}

// answers reports whether the node answered the last time it was asked.
func (h *health) answers(id shard.NodeID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.mu.peers[id].since.IsZero()
}

// silent returns the names of the nodes that do not answer.
func (h *health) silent() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, p := range h.mu.peers {
		if p.since.IsZero() {
			names = append(names, p.name)
		}
	}
	slices.Sort(names)
	return names
}

// steady reports whether the node has been answering for a while and may propose, as far as its
// clock can be judged from here.
func (h *health) steady(id shard.NodeID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.mu.peers[id]
	return !p.since.IsZero() && time.Since(p.since) >= steadyAfter && p.offset.Abs() <= h.node.cfg.MaxClockOffset
}

// unfit reports whether the node said that its replica of the shard is unfit.
func (h *health) unfit(id shard.NodeID, of shard.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.mu.peers[id].unfit, of)
}

// lowDisks returns the nodes that answer and report that their disk is nearly full.
func (h *health) lowDisks() []shard.NodeID {
	h.mu.Lock()
	defer h.mu.Unlock()
	var low []shard.NodeID
	for id, p := range h.mu.peers {
		if p.diskLow && !p.since.IsZero() {
			low = append(low, id)
		}
	}
	return low
}
