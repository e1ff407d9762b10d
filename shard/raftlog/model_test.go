package raftlog

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// content is what a log holds of a replica. The zero value is a replica of which it knows nothing.
type content struct {
	member   string // of the group's first members
	state    raftpb.State
	snapshot uint64
	entries  []at
}

// at stands for the entry that has this index and term: there is one of them (see entries).
type at struct{ index, term uint64 }

func atAll(entries []raftpb.Entry) (out []at) {
	for _, e := range entries {
		out = append(out, at{e.Index, e.Term})
	}
	return out
}

func (c *content) last() uint64 {
	if n := len(c.entries); n > 0 {
		return c.entries[n-1].index
	}
	return c.snapshot
}

// world is what a log holds, by shard. It is never changed, but replaced.
type world map[uint64]content

const shards = 4 // of which a world may hold something

// read is the world that a log holds.
func read(t *testing.T, l *Log) world {
	t.Helper()
	w := make(world)
	listed := make(map[uint64]bool)
	replicas, err := l.ListNodeInfo()
	require.NoError(t, err)
	for _, id := range replicas {
		listed[id.ShardID] = true
	}
	for id := uint64(1); id <= shards; id++ {
		var c content
		b, err := l.GetBootstrapInfo(id, 1)
		require.Equal(t, listed[id], err == nil)
		if err != raftio.ErrNoBootstrapInfo {
			require.NoError(t, err)
			c.member = b.Addresses[1]
		}
		ss, err := l.GetSnapshot(id, 1)
		require.NoError(t, err)
		c.snapshot = ss.Index
		state, held := all(t, l, id, 1, 0)
		for _, e := range held {
			require.Equal(t, entries(e.Term, e.Index, e.Index)[0], e)
		}
		c.state, c.entries = state, atAll(held)
		w.set(id, c)
	}
	return w
}

func (w world) set(id uint64, c content) {
	if c.member == "" && c.state == (raftpb.State{}) && c.snapshot == 0 && len(c.entries) == 0 {
		delete(w, id)
		return
	}
	if len(c.entries) == 0 {
		c.entries = nil
	}
	w[id] = c
}

// with is the world in which one replica has something else.
func (w world) with(id uint64, c content) world {
	next := maps.Clone(w)
	next.set(id, c)
	return next
}

// step is something that is done to a log: what the world is then, and whether it is durable.
type step struct {
	name    string
	next    world
	durable bool
	do      func(l *Log) error
}

// draw is a plausible step.
func draw(rng *rand.Rand, w world) step {
	id := 1 + rng.Uint64N(shards)
	c := w[id]
	switch k := rng.IntN(24); {
	case c.state.Term == 0 && k < 12 || k == 0:
		c.member = []string{"a", "b"}[rng.IntN(2)]
		return step{"bootstrap", w.with(id, c), false, func(l *Log) error {
			return l.SaveBootstrapInfo(id, 1, raftpb.Bootstrap{Addresses: map[uint64]string{1: c.member}})
		}}
	case k == 1:
		return step{"sync", w, true, (*Log).Sync}
	case k == 2 && rng.IntN(4) == 0:
		return step{"gone", w.with(id, content{}), true, func(l *Log) error { return l.RemoveNodeData(id, 1) }}
	case k <= 4 && c.state.Commit > c.snapshot:
		c.snapshot += 1 + rng.Uint64N(c.state.Commit-c.snapshot)
		return step{"snapshot", w.with(id, c), true, func(l *Log) error {
			return l.SaveSnapshots([]raftpb.Update{{ShardID: id, ReplicaID: 1, Snapshot: raftpb.Snapshot{Index: c.snapshot, Term: 1}}})
		}}
	case k <= 7 && c.snapshot > 0: // up to it, or a little less
		to := c.snapshot - rng.Uint64N(min(3, c.snapshot))
		c.entries = slices.DeleteFunc(slices.Clone(c.entries), func(e at) bool { return e.index <= to })
		return step{"remove", w.with(id, c), false, func(l *Log) error { return l.RemoveEntriesTo(id, 1, to) }}
	case k <= 10:
		return step{"tidy", w, false, (*Log).tidyUp}
	}
	return drawUpdates(rng, w)
}

// drawUpdates is a step in which some replicas save something.
func drawUpdates(rng *rand.Rand, w world) step {
	s := step{name: "save", next: w}
	var updates []raftpb.Update
	for id := uint64(1); id <= shards; id++ {
		if rng.IntN(2) == 0 {
			continue
		}
		u, c, durable := drawUpdate(rng, id, w[id])
		s.next, s.durable = s.next.with(id, c), s.durable || durable
		updates = append(updates, u)
	}
	s.do = func(l *Log) error { return l.SaveRaftState(updates, 1) }
	return s
}

// drawUpdate is a plausible update of a replica that has something, what it has then, and whether that is durable.
func drawUpdate(rng *rand.Rand, id uint64, c content) (u raftpb.Update, _ content, durable bool) {
	u.ShardID, u.ReplicaID = id, 1
	last := c.last()
	switch k := rng.IntN(16); {
	case c.state.Term == 0 || k < 2:
		c.state.Term, c.state.Vote, durable = c.state.Term+1, 1+rng.Uint64N(3), true
	case k < 6 && c.state.Commit < last: // a commit index alone
		c.state.Commit += 1 + rng.Uint64N(last-c.state.Commit)
	case k == 6: // a snapshot from another replica, with what follows it
		c.snapshot, durable = last+1+rng.Uint64N(5), true
		c.state.Commit, c.entries = c.snapshot, nil
		u.Snapshot = raftpb.Snapshot{Index: c.snapshot, Term: c.state.Term, ShardID: id}
		if rng.IntN(2) == 0 {
			u.EntriesToSave = entries(c.state.Term, c.snapshot+1, c.snapshot+1+rng.Uint64N(3))
			c.entries = atAll(u.EntriesToSave)
		}
	default: // entries, sometimes in place of some that were not committed
		from := last + 1
		if last > c.state.Commit && rng.IntN(4) == 0 {
			from = c.state.Commit + 1 + rng.Uint64N(last-c.state.Commit)
		}
		u.EntriesToSave, durable = entries(c.state.Term, from, from+rng.Uint64N(5)), true
		kept := slices.DeleteFunc(slices.Clone(c.entries), func(e at) bool { return e.index >= from })
		c.entries = append(kept, atAll(u.EntriesToSave)...)
	}
	u.State = c.state
	return u, c, durable
}
