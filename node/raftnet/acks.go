package raftnet

import (
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

// repeatAfter is how soon an acknowledgement that repeats the last one is sent again. A leader that
// missed one asks again with its next heartbeat, and is answered by then.
const repeatAfter = 100 * time.Millisecond

// acks suppresses acknowledgements that repeat the last one on the same connection (X5). Each write would cause one:
// when it is committed, its leader tells the followers so in a message that they acknowledge as if it had entries.
// That makes up a quarter of a write's messages, and each costs a lone client CPU time.
type acks map[replicas]ack

// replicas are the sender and the receiver of an acknowledgement.
type replicas struct{ shard, from, to uint64 }

type ack struct {
	term, index uint64
	sent        time.Time
}

// isNews reports whether a message must be sent.
func (a acks) isNews(m *raftpb.Message, now time.Time) bool {
	switch m.Type {
	case raftpb.ReplicateResp:
		return a.acknowledges(m, now)
	case raftpb.RateLimit:
		// With each election timeout a follower reports how much memory its log takes, if that is too much, and 0
		// otherwise. A leader that hears nothing for some more timeouts assumes the same.
		return m.Hint > 0
	default:
		return true
	}
}

func (a acks) acknowledges(m *raftpb.Message, now time.Time) bool {
	who := replicas{m.ShardID, m.From, m.To}
	if m.Reject { // entries were lost, so acknowledgements may have been lost too
		delete(a, who)
		return true
	}
	if last := a[who]; last.term == m.Term && last.index == m.LogIndex && now.Sub(last.sent) < repeatAfter {
		return false
	}
	a[who] = ack{term: m.Term, index: m.LogIndex, sent: now}
	return true
}
