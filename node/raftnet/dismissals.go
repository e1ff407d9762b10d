package raftnet

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

// dismissals keep replicas on this node from hearing that the entry which removes them from their group is committed
// (X10). A replica that has applied that entry is gone and votes no more, while members that do not know of the
// commit yet still need the votes of a majority with it among them. If the leader is lost at that moment, of four
// members of which one was dismissed two are left, and neither can be elected.
//
// Nothing else is withheld: the replica stores and acknowledges entries, and votes. What is known of dismissals is not
// stored: after a restart, a leader that still counts the replica among its followers tells it.
type dismissals struct {
	any atomic.Bool // whether of has an element, so that most messages need no lock
	mu  struct {
		sync.Mutex
		of map[sender]dismissal
	}
}

// dismissal is the entry that removes a replica.
type dismissal struct {
	index uint64
	until time.Time
}

// withholdFor is how long the commit index is withheld at most. The node removes the replica when the placement table
// has taken it away, which is soon after its group has dismissed it.
const withholdFor = time.Minute

// withhold lowers the commit index of messages to replicas that are being dismissed.
func (d *dismissals) withhold(messages []raftpb.Message, now time.Time) {
	for i := range messages {
		m := &messages[i]
		if m.Type != raftpb.Replicate && m.Type != raftpb.Heartbeat {
			continue
		}
		if index := dismissedAt(m); index > 0 {
			d.add(sender{m.ShardID, m.To}, dismissal{index, now.Add(withholdFor)}, now)
		}
		if d.any.Load() {
			m.Commit = d.known(m, now)
		}
	}
}

// add remembers a dismissal, unless the replica is being dismissed already, and forgets those that are too old.
func (d *dismissals) add(who sender, at dismissal, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for other, old := range d.mu.of {
		if now.After(old.until) {
			delete(d.mu.of, other)
		}
	}
	if _, already := d.mu.of[who]; already {
		return
	}
	if d.mu.of == nil {
		d.mu.of = make(map[sender]dismissal)
	}
	d.mu.of[who] = at
	d.any.Store(true)
}

// known returns the commit index that the message may tell.
func (d *dismissals) known(m *raftpb.Message, now time.Time) uint64 {
	who := sender{m.ShardID, m.To}
	d.mu.Lock()
	defer d.mu.Unlock()
	at, any := d.mu.of[who]
	switch {
	case !any:
		return m.Commit
	case now.After(at.until) || replaces(m, at.index): // by an entry of a later leader
		delete(d.mu.of, who)
		d.any.Store(len(d.mu.of) > 0)
		return m.Commit
	}
	return min(m.Commit, at.index-1)
}

// replaces reports whether the message has an entry with the index, and none that dismisses the replica it is for.
func replaces(m *raftpb.Message, index uint64) bool {
	n := len(m.Entries)
	return n > 0 && m.Entries[0].Index <= index && index <= m.Entries[n-1].Index && dismissedAt(m) == 0
}

// dismissedAt returns the index of the entry in the message that removes the replica which the message is for; 0 if
// there is none.
func dismissedAt(m *raftpb.Message) uint64 {
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Type != raftpb.ConfigChangeEntry {
			continue
		}
		var change raftpb.ConfigChange
		if change.Unmarshal(e.Cmd) == nil && change.Type == raftpb.RemoveNode && change.ReplicaID == m.To {
			return e.Index
		}
	}
	return 0
}
