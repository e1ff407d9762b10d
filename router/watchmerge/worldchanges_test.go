package watchmerge

import (
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// put changes the keys, which lie in one shard, in one transaction.
func (w *world) put(keys ...string) shard.Revision {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.owner([]byte(keys[0]))
	w.clock++
	rev := shard.NextRevision(s.floor, w.clock, s.desc.Slot)
	w.clock = rev.Tick()
	for _, key := range keys {
		w.log = append(w.log, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), Value: w.value, ModRevision: int64(rev)}})
	}
	s.rev, s.floor = rev, rev
	w.follow(s)
	return rev
}

// split cuts the shard that owns key in two at it.
func (w *world) split(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.owner([]byte(key))
	if string(s.desc.Span.Start) == key {
		return
	}
	w.lastID++
	left, right := *s.desc, *s.desc
	left.Epoch, left.Generation = left.Epoch+1, left.Generation+1
	left.Span.End = []byte(key)
	right.ID, right.Slot, right.Epoch, right.Generation = w.lastID, shard.Slot(w.lastID), 1, 1
	right.Span.Start = []byte(key)
	n := &modelShard{desc: &right, leader: s.leader, rev: s.rev, floor: s.floor, applied: make(map[shard.NodeID]shard.Revision)}
	for node, floor := range s.applied {
		n.applied[node] = floor
	}
	s.desc = &left
	w.shards = slices.Insert(w.shards, slices.Index(w.shards, s)+1, n)
	w.notify()
}

// merge joins the shard that owns key to its left neighbour.
func (w *world) merge(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	right := w.owner([]byte(key))
	i := slices.Index(w.shards, right)
	if i == 0 {
		return
	}
	left := w.shards[i-1]
	d := *left.desc
	d.Epoch, d.Generation = d.Epoch+1, d.Generation+1
	d.Span.End = right.desc.Span.End
	left.desc = &d
	left.rev, left.floor = max(left.rev, right.rev), max(left.floor, right.floor)
	for node := range left.applied {
		left.applied[node] = left.floor
	}
	w.shards = slices.Delete(w.shards, i, i+1)
	w.notify()
}

// move puts the shard's replicas on three other of five nodes.
func (w *world) move(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.owner([]byte(key))
	d := *s.desc
	d.Generation++
	d.Replicas = nil
	was := s.applied
	s.applied = make(map[shard.NodeID]shard.Revision)
	for i, n := range w.rng.Perm(5)[:3] {
		node := shard.NodeID(n + 1)
		d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(100*int(d.Generation) + i), Node: node})
		s.applied[node] = max(was[node], 1)
	}
	s.desc, s.leader = &d, d.Replicas[0].Node
	w.notify()
}

// elect changes the leader of the shard that owns key; 0 leaves it without.
func (w *world) elect(key string, leader bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.owner([]byte(key))
	s.leader = 0
	if leader {
		s.leader = s.desc.Replicas[w.rng.IntN(len(s.desc.Replicas))].Node
	}
}

// compact removes history below rev from everywhere.
func (w *world) compact(rev shard.Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compacted = max(w.compacted, rev)
	w.notify()
}

// cutFeed ends a random feed as a broken connection would.
func (w *world) cutFeed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for f := range w.feeds {
		f.broken = []error{shard.ErrUnavailable, shard.ErrStopped}[w.rng.IntN(2)]
		f.ready()
		return
	}
}

// freeze mends everything: all shards are led and all replicas caught up.
func (w *world) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = true
	for _, s := range w.shards {
		s.leader = s.desc.Replicas[0].Node
		w.follow(s)
	}
}

// notify wakes every feed that has something new; mu is held.
func (w *world) notify() {
	for f := range w.feeds {
		f.announce()
	}
}
