package raftnet

import (
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

// repeatAfter is how soon an acknowledgement is sent again that says nothing new. A leader
// that missed one asks again with its next heartbeat, and is answered by then.
const repeatAfter = 100 * time.Millisecond

// acks keeps acknowledgements from being sent that say what the last one on the same
// connection has said (X5). Each write makes one: when it is committed, its leader tells the
// followers, in a message that they acknowledge like one with entries. That is a quarter of
// a write's messages, and each takes a lone client's processor.
type acks map[replicas]ack

// replicas are who acknowledges to whom.
type replicas struct{ shard, from, to uint64 }

type ack struct {
	term, index uint64
	sent        time.Time
}

// isNews reports whether a message is to be sent.
func (a acks) isNews(m *raftpb.Message, now time.Time) bool {
	switch m.Type {
	case raftpb.ReplicateResp:
		return a.acknowledges(m, now)
	case raftpb.RateLimit:
		// A follower reports with each election timeout how much it keeps in memory, if that is too much, and
		// otherwise nothing. A leader takes the same from silence, within some more timeouts.
		return m.Hint > 0
	default:
		return true
	}
}

func (a acks) acknowledges(m *raftpb.Message, now time.Time) bool {
	who := replicas{m.ShardID, m.From, m.To}
	if m.Reject { // entries were lost, so acknowledgements may have been
		delete(a, who)
		return true
	}
	if last := a[who]; last.term == m.Term && last.index == m.LogIndex && now.Sub(last.sent) < repeatAfter {
		return false
	}
	a[who] = ack{term: m.Term, index: m.LogIndex, sent: now}
	return true
}
