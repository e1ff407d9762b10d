package node

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// departed tracks nodes whose process has ended: a Raft connection to the node has broken, and nothing listens at its
// address. Groups that such a node led need not wait for an election timeout. A node that is merely silent, because
// its machine or the network failed, is not among them.
type departed struct {
	node *Node
	lost chan string // addresses to which a connection has broken

	mu struct {
		sync.Mutex
		nodes map[shard.NodeID]struct{}
	}
}

const (
	// lostMax bounds the queue of addresses to look at. The groups of further lost nodes wait for election timeouts.
	lostMax = 64
	// departPauseMin and departPauseMax are the first and the last pause between attempts to reach an address: a
	// process that ends closes its connections and its listener in any order.
	departPauseMin, departPauseMax = time.Millisecond, 512 * time.Millisecond
)

func newDeparted(n *Node) *departed {
	d := &departed{node: n, lost: make(chan string, lostMax)}
	d.mu.nodes = make(map[shard.NodeID]struct{})
	return d
}

// connectionLost is called with the address of a broken connection. It never blocks.
func (d *departed) connectionLost(addr string) {
	select {
	case d.lost <- addr:
	default:
	}
}

// run looks at lost addresses until ctx ends.
func (d *departed) run(ctx context.Context) {
	var looks sync.WaitGroup
	defer looks.Wait()
	for {
		select {
		case addr := <-d.lost:
			looks.Go(func() { d.look(ctx, addr) })
		case <-ctx.Done():
			return
		}
	}
}

// look finds out whether anything listens at an address. If nothing does, it makes the groups that were led from
// there elect a new leader.
func (d *departed) look(ctx context.Context, addr string) {
	m := d.node.table.Map()
	id, known := nodeAt(m, addr)
	if !known {
		return
	}
	for wait := departPauseMin; !d.refuses(ctx, addr); wait *= 2 {
		if wait > departPauseMax || pause(ctx, wait) != nil {
			return
		}
	}
	d.mu.Lock()
	_, before := d.mu.nodes[id]
	d.mu.nodes[id] = struct{}{}
	d.mu.Unlock()
	if !before {
		d.node.log.Info("the process of a node has ended", "node", id, "address", addr)
	}
	d.node.elect.orphaned(m, id)
}

func nodeAt(m *placement.Map, addr string) (shard.NodeID, bool) {
	for _, n := range m.Nodes() {
		if n.PeerAddr == addr {
			return n.ID, true
		}
	}
	return 0, false
}

// refuses reports whether connecting to the address is refused because nothing listens there.
func (d *departed) refuses(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, departPauseMax)
	defer cancel()
	conn, err := d.node.cfg.Dial(ctx, addr)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	conn.Close()
	return false
}

// returned is called when a node answers again.
func (d *departed) returned(id shard.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.nodes, id)
}

// has reports whether the node's process has ended.
func (d *departed) has(id shard.NodeID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ended := d.mu.nodes[id]
	return ended
}

// all returns the nodes whose process has ended.
func (d *departed) all() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []uint64
	for id := range d.mu.nodes {
		all = append(all, uint64(id))
	}
	return all
}

// orphaned makes those groups of this node elect a new leader whose leader was on a node whose process has ended.
func (e *elections) orphaned(m *placement.Map, ended shard.NodeID) {
	consider := func(own replica.Held) {
		d := groupOf(m, own.Shard)
		leader, _ := e.node.host.Leader(own.Shard)
		if d == nil || leader == 0 || d.NodeOf(leader) != ended {
			return
		}
		if r, member := d.ReplicaOn(e.node.self.NodeID); member && r.ID == own.Replica && !r.Learner {
			e.add(&election{Held: own, others: e.node.othersOf(d, m), instead: leader, ended: ended, orphan: time.Now()})
		}
	}
	if own := e.node.meta.own.Load(); own != 0 {
		consider(replica.Held{Shard: shard.MetaID, Replica: shard.ReplicaID(own)})
	}
	e.node.host.Each(func(r *replica.Replica) {
		if r.Unfit() == "" {
			consider(replica.Held{Shard: r.ID(), Replica: r.ReplicaID()})
		}
	})
	e.wake.ring()
}
