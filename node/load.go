package node

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/load"
)

const (
	// loadInterval is how often this node measures itself.
	loadInterval = time.Second
	// loadPatience is how long the others may take to report their load. The previous report of a late node stays in
	// use.
	loadPatience = time.Second
)

// loads measures this node's load and collects that of all nodes. Times are intervals, independent
// of the wall clock, which may be wrong.
type loads struct {
	node  *Node
	born  time.Time
	fsync struct {
		sync.Mutex
		load.Latency
	}
	mu struct {
		sync.Mutex
		heard map[shard.NodeID]heardLoad
		// since is when this node began to collect without long gaps; last is when it last did.
		since, last time.Time
	}
}

// heardLoad is a node's last report.
type heardLoad struct {
	*routerpb.LoadReply
	at time.Time
}

func newLoads(n *Node) *loads {
	l := &loads{node: n, born: time.Now()}
	l.mu.heard = make(map[shard.NodeID]heardLoad)
	return l
}

// run measures until ctx ends.
func (l *loads) run(ctx context.Context) {
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	for {
		now := time.Now()
		l.node.host.Measure(now, l.node.table.Map().Rules().MergeWait)
		l.fsync.Lock()
		l.fsync.Turn(now)
		l.fsync.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// synced counts a sync of the Raft log.
func (l *loads) synced(took time.Duration) {
	l.fsync.Lock()
	defer l.fsync.Unlock()
	l.fsync.Observe(took)
}

// own returns this node's own report.
func (l *loads) own(now time.Time) *routerpb.LoadReply {
	reply := &routerpb.LoadReply{ClockDistrusted: l.node.hlc.Distrusted(), UptimeMillis: now.Sub(l.born).Milliseconds()}
	reply.DiskTotal, reply.DiskFree = l.node.space.own()
	l.fsync.Lock()
	reply.FsyncMicros = l.fsync.Slow().Microseconds()
	l.fsync.Unlock()
	for _, r := range l.node.host.Loads() {
		p := &routerpb.ReplicaLoad{
			Shard: uint64(r.Shard), Replica: uint64(r.Replica), Leader: uint64(r.Leader), Term: r.Term, Applied: r.Applied,
			Epoch: r.Epoch, Generation: r.Generation, Bytes: r.Bytes, Versions: r.Versions, Middle: pointProto(r.Middle), Reads: r.Reads,
			Unfit: r.Unfit,
		}
		if !r.Since.IsZero() {
			p.Measures, p.MeasuredMillis = true, now.Sub(r.Since).Milliseconds()
			p.Writes, p.WriteBytes, p.PeakWrites, p.PeakWriteBytes = r.Writes, r.WriteBytes, r.PeakWrites, r.PeakWriteBytes
			p.Balance = pointProto(r.Balance)
			p.CommitMicros, p.CommitSlowMicros = r.Commit.Microseconds(), r.CommitSlow.Microseconds()
		}
		reply.Replicas = append(reply.Replicas, p)
	}
	if l.node.meta.runs() {
		reply.Replicas = append(reply.Replicas, l.node.meta.load())
	}
	return reply
}

func pointProto(p load.Point) *routerpb.SplitPoint {
	return &routerpb.SplitPoint{Key: p.Key, Left: p.Left}
}

// collected holds the last reports of all nodes, and since when they have been asked without a gap: silence counts
// against a node only if it was asked.
type collected struct {
	heard map[shard.NodeID]heardLoad
	since time.Time
	// waits says why the balancer's last round, or steps of it, failed.
	waits string
}

// collect asks the node that leads the meta group, which has been asking all others. If that node does not answer,
// this node asks the others itself, and knows less about dead nodes.
func (l *loads) collect(ctx context.Context, m *placement.Map) collected {
	if !l.node.meta.leads() {
		if told, err := l.askLeader(ctx); err == nil {
			return told
		}
	}
	return l.listen(ctx, m)
}

// askLeader asks the leader of the meta group.
func (l *loads) askLeader(ctx context.Context) (collected, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*loadPatience) // the leader has to ask others itself
	defer cancel()
	reply, err := askMembers(ctx, l.node.meta, func(ctx context.Context, peer routerpb.PeerClient) (*routerpb.LoadsReply, error) {
		return peer.Loads(ctx, &routerpb.LoadsRequest{})
	})
	if err != nil {
		return collected{}, err
	}
	return told(reply, time.Now()), nil
}

// told converts the leader's reply.
func told(reply *routerpb.LoadsReply, now time.Time) collected {
	ago := func(millis int64) time.Time { return now.Add(-time.Duration(millis) * time.Millisecond) }
	out := collected{heard: make(map[shard.NodeID]heardLoad), since: ago(reply.SinceMillis), waits: reply.BalancerWaits}
	for _, h := range reply.Heard {
		out.heard[shard.NodeID(h.Node)] = heardLoad{h.Load, ago(h.AgeMillis)}
	}
	return out
}

// Loads implements routerpb.PeerServer.
func (s *peerServer) Loads(ctx context.Context, _ *routerpb.LoadsRequest) (*routerpb.LoadsReply, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if !s.node.meta.leads() {
		return nil, status.Error(codes.FailedPrecondition, "this node does not lead the meta group")
	}
	c, now := s.node.loads.listen(ctx, s.node.table.Map()), time.Now()
	reply := &routerpb.LoadsReply{SinceMillis: now.Sub(c.since).Milliseconds(), BalancerWaits: c.waits}
	for id, h := range c.heard {
		reply.Heard = append(reply.Heard, &routerpb.HeardLoad{Node: uint64(id), AgeMillis: now.Sub(h.at).Milliseconds(), Load: h.LoadReply})
	}
	return reply, nil
}

// listen asks all nodes of the map.
func (l *loads) listen(ctx context.Context, m *placement.Map) collected {
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	var asking sync.WaitGroup
	for _, n := range m.Nodes() {
		asking.Go(func() {
			if n.ID == l.node.self.NodeID {
				l.hear(n.ID, l.own(time.Now()))
				return
			}
			reply, err := routerpb.NewPeerClient(l.node.peers.at(n.PeerAddr).Conn()).Load(ctx, &routerpb.LoadRequest{})
			if err != nil { // its age tells
				l.node.log.Debug("asking a node for its load", "node", n.Name, "error", err)
				return
			}
			l.hear(n.ID, reply)
		})
	}
	asking.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.mu.heard, func(id shard.NodeID, _ heardLoad) bool {
		n := m.Node(id)
		return n == nil || n.State == placement.Removed
	})
	return collected{maps.Clone(l.mu.heard), l.listens(time.Now(), m.Rules().StaleAfter), l.node.balance.waits()}
}

// lately returns the last reports if they were collected within that time.
func (l *loads) lately(within time.Duration) (_ collected, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return collected{heard: maps.Clone(l.mu.heard), since: l.mu.since}, time.Since(l.mu.last) < within
}

// listens records that nodes were asked now, and returns since when they have been asked without a
// pause longer than patience. l.mu is held.
func (l *loads) listens(now time.Time, patience time.Duration) time.Time {
	if now.Sub(l.mu.last) > patience {
		l.mu.since = now
	}
	l.mu.last = now
	return l.mu.since
}

func (l *loads) hear(id shard.NodeID, reply *routerpb.LoadReply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.heard[id] = heardLoad{reply, time.Now()}
}

// assemble makes the planner's load from the nodes' reports. Values that were not reported are missing, and old ones
// keep their time.
func assemble(m *placement.Map, c collected) *placement.Load {
	out := &placement.Load{Since: c.since, Nodes: make(map[shard.NodeID]placement.NodeLoad), Shards: make(map[shard.ID]placement.ShardLoad)}
	said := make(map[shard.ID][]saidLoad)
	for _, n := range m.Nodes() {
		h, ok := c.heard[n.ID]
		if !ok {
			continue
		}
		out.Nodes[n.ID] = placement.NodeLoad{
			Heard: h.at, DiskTotal: h.DiskTotal, DiskFree: h.DiskFree,
			Fsync: time.Duration(h.FsyncMicros) * time.Microsecond, ClockOff: h.ClockDistrusted != "",
		}
		for _, r := range h.Replicas {
			said[shard.ID(r.Shard)] = append(said[shard.ID(r.Shard)], saidLoad{r, n.ID, h.at})
		}
	}
	for id, replicas := range said {
		d := m.Shard(id)
		if d == nil {
			continue
		}
		if s, known := shardLoad(d, replicas); known {
			out.Shards[id] = s
		}
	}
	return out
}

// saidLoad is a node's report of one of its replicas.
type saidLoad struct {
	*routerpb.ReplicaLoad
	node shard.NodeID
	at   time.Time
}

// shardLoad returns the leader's report, supplemented by the other replicas. Without a leader there is none. The
// leader is the replica that considers itself the leader, in the latest term. In its first second it has no
// measurements yet, but still counts.
func shardLoad(d *shard.Descriptor, replicas []saidLoad) (out placement.ShardLoad, known bool) {
	var leader saidLoad
	for _, r := range replicas {
		if r.Leader == r.Replica && (!known || r.Term > leader.Term) {
			leader, known = r, true
		}
	}
	if !known {
		return out, false
	}
	out = placement.ShardLoad{
		Heard: leader.at, Leader: leader.node, Bytes: leader.Bytes, Keys: leader.Versions,
		Writes: leader.Writes, WriteBytes: leader.WriteBytes, PeakWrites: leader.PeakWrites, PeakWriteBytes: leader.PeakWriteBytes,
		Middle: splitPoint(leader.Middle), Balance: splitPoint(leader.Balance),
		Behind: make(map[shard.NodeID]uint64),
	}
	if leader.Measures {
		out.SpanSince = leader.at.Add(-time.Duration(leader.MeasuredMillis) * time.Millisecond)
	}
	for _, r := range replicas {
		out.Reads += r.Reads
		if r.Unfit != "" {
			if d.NodeOf(shard.ReplicaID(r.Replica)) == r.node { // otherwise its successor has taken its place
				if out.Unfit == nil {
					out.Unfit = make(map[shard.NodeID]string)
				}
				out.Unfit[r.node] = r.Unfit
			}
			continue
		}
		// The reports are not from the same moment, so a follower may even be ahead.
		out.Behind[r.node] = leader.Applied - min(r.Applied, leader.Applied)
	}
	return out, true
}

func splitPoint(p *routerpb.SplitPoint) placement.SplitPoint {
	return placement.SplitPoint{Key: p.GetKey(), Left: p.GetLeft()}
}
