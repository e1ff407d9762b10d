package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// elections make groups elect the leader they should have as soon as possible after their replicas have started,
// whether for the first time or because the whole cluster was restarted.
//
// Otherwise whichever replica's timeout ends first would campaign. When many groups start together, all of them would
// hold elections at once, with several candidates each, while other replicas have not even started. Most would be won
// by a node that then hands over.
//
// A group whose leader's process has ended also elects at once (departed.go): of the remaining replicas, the one with
// the longest log campaigns.
//
// Invariants:
//
//	G1  Only one replica of a group campaigns early, and only while a majority of the group's
//	    voters runs and none of them knows a leader, except one on a node whose process has
//	    ended, as all of them confirm. So no group that has a leader is disturbed.
//	G2  At most electionsMax groups are in an election that this node began.
//	G3  The result is left to Raft: after electionTries a replica waits like all others.
type elections struct {
	node *Node
	wake bell

	mu struct {
		sync.Mutex
		waiting map[replica.Held]*election
	}
}

// election is an election to be held.
type election struct {
	replica.Held
	others map[shard.ReplicaID]string // the other voters and their addresses
	// instead leads as far as the group may know, but on a node whose process has ended; 0 if none.
	instead shard.ReplicaID
	ended   shard.NodeID
	orphan  time.Time // since when the group has had no leader
	tries   int
	stood   time.Time // last campaign
}

const (
	electionsMax  = 64
	electionTries = 5
	// electionPause is between two polls of which replicas run.
	electionPause = 25 * time.Millisecond
	// electionTime is how long an election may take before the replica campaigns again.
	electionTime = 100 * time.Millisecond
	// orphanPatience is how long it is tried to find an orphaned group a leader. By then election timeouts have
	// ended.
	orphanPatience = 3 * time.Second
	// electionAsk is how long the others may take to report what they run.
	electionAsk = 250 * time.Millisecond
)

func newElections(n *Node) *elections {
	e := &elections{node: n, wake: newBell()}
	e.mu.waiting = make(map[replica.Held]*election)
	return e
}

// hold makes the replica, which has started on this node, campaign when it can win.
func (e *elections) hold(r replica.Held, others map[shard.ReplicaID]string) {
	e.add(&election{Held: r, others: others})
	e.wake.ring()
}

func (e *elections) add(w *election) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.waiting[w.Held] = w
}

// run works until ctx ends.
func (e *elections) run(ctx context.Context) {
	for {
		waiting := e.look()
		var next <-chan time.Time
		if len(waiting) > 0 {
			e.hearOthers(ctx, waiting)
			next = time.After(electionPause)
		}
		select {
		case <-next:
		case <-e.wake:
		case <-ctx.Done():
			return
		}
	}
}

// look returns the elections still to be held, in shard order.
func (e *elections) look() []*election {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*election
	for r, w := range e.mu.waiting {
		leader, _ := e.node.host.Leader(r.Shard)
		led := leader != 0 && leader != w.instead
		over := w.ended != 0 && (!e.node.departed.has(w.ended) || time.Since(w.orphan) > orphanPatience)
		if led || over || w.tries >= electionTries || !e.node.runs(r) {
			delete(e.mu.waiting, r)
			continue
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b *election) int { return cmp.Compare(a.Shard, b.Shard) })
	return out
}

// hearOthers asks the other nodes, and lets replicas that can win campaign.
func (e *elections) hearOthers(ctx context.Context, waiting []*election) {
	told, now := e.ask(ctx, waiting), time.Now()
	under := 0
	for _, w := range waiting {
		if now.Sub(w.stood) < electionTime {
			under++
		}
	}
	var stand []replica.Candidacy
	orphans := 0
	for _, w := range waiting {
		if now.Sub(w.stood) >= electionTime && under < electionsMax && w.winnable(told) && e.longest(w, told) { // G2, G1
			w.tries, w.stood = w.tries+1, now
			stand = append(stand, replica.Candidacy{Held: w.Held, Instead: w.instead})
			under++
			if w.ended != 0 {
				orphans++
			}
		}
	}
	if orphans > 0 {
		e.node.log.Info("standing for election: the leader's process has ended", "shards", orphans)
	}
	e.node.host.Campaign(stand)
}

// answer is a node's report about a replica.
type answer struct {
	*routerpb.ReplicaReport
	ended []uint64 // nodes whose process has ended, according to this node
}

// winnable reports whether a majority runs and none of those that answered knows a leader that may still be there.
func (w *election) winnable(told map[replica.Held]answer) bool {
	running := 1
	for id := range w.others {
		report, any := told[replica.Held{Shard: w.Shard, Replica: id}]
		if !any {
			continue
		}
		if led := report.Leader != 0 && report.Leader != uint64(w.instead); led || w.ended != 0 && !slices.Contains(report.ended, uint64(w.ended)) {
			return false
		}
		running++
	}
	return running > (len(w.others)+1)/2
}

// longest reports whether no other replica that answered and could campaign has a longer log, or one of the same
// length and a lower ID.
func (e *elections) longest(w *election, told map[replica.Held]answer) bool {
	if w.ended == 0 {
		return true
	}
	last, err := e.node.host.LogEnds(w.Shard)
	if err != nil {
		return false
	}
	for id := range w.others {
		report, any := told[replica.Held{Shard: w.Shard, Replica: id}]
		if any && report.Unfit == "" && (report.Last > last || report.Last == last && id < w.Replica) {
			return false
		}
	}
	return true
}

// ask asks all other nodes about the waiting groups.
func (e *elections) ask(ctx context.Context, waiting []*election) map[replica.Held]answer {
	shards := make(map[string][]uint64)
	for _, w := range waiting {
		for _, addr := range w.others {
			shards[addr] = append(shards[addr], uint64(w.Shard))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, electionAsk)
	defer cancel()
	replies := make(chan *routerpb.ReportReply, len(shards))
	for addr, ids := range shards {
		go func() {
			reply, err := routerpb.NewPeerClient(e.node.peers.at(addr).Conn()).Report(ctx, &routerpb.ReportRequest{Shards: ids})
			if err != nil {
				reply = nil // a node that does not answer does not run
			}
			replies <- reply
		}()
	}
	told := make(map[replica.Held]answer)
	for range shards {
		reply := <-replies
		for _, r := range reply.GetReplicas() {
			told[replica.Held{Shard: shard.ID(r.Shard), Replica: shard.ReplicaID(r.Replica)}] = answer{r, reply.Ended}
		}
	}
	return told
}

// othersOf returns the voters of a shard, except this node's, and their addresses.
func (n *Node) othersOf(d *shard.Descriptor, m *placement.Map) map[shard.ReplicaID]string {
	out := make(map[shard.ReplicaID]string)
	for _, r := range d.Replicas {
		if r.Node == n.self.NodeID || r.Learner {
			continue
		}
		if at := m.Node(r.Node); at != nil {
			out[r.ID] = at.PeerAddr
		}
	}
	return out
}

// runs reports whether the replica runs on this node.
func (n *Node) runs(r replica.Held) bool {
	if r.Shard == shard.MetaID {
		return shard.ReplicaID(n.meta.own.Load()) == r.Replica
	}
	own, ok := n.host.Replica(r.Shard)
	return ok && own.ReplicaID() == r.Replica
}
