package raftnet

import (
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

// flows are the messages of leaders to their followers on one connection. Each entry that a leader sends also tells
// the follower who leads and which earlier entries are committed. So while entries keep coming, messages that say
// only that are suppressed (X5) or wait for the next entries (X7).
type flows map[replicas]*flow

// flow is one leader's messages to one follower.
type flow struct {
	term  uint64
	sent  time.Time     // when entries were last sent; zero if never
	apart time.Duration // time between the last two times that entries were sent
	// commit is a commit index that waits for the next entries, until it is due.
	commit raftpb.Message
	waits  bool
	due    time.Time
}

// pass appends to dst what is to be sent now: what was waiting, and m. spacing is the interval of a shard's batches
// while they are spaced; quiet is for how long entries replace a heartbeat.
func (f flows) pass(dst []raftpb.Message, m *raftpb.Message, now time.Time, spacing, quiet time.Duration) []raftpb.Message {
	if m.Type != raftpb.Replicate && m.Type != raftpb.Heartbeat {
		return append(dst, *m)
	}
	who, entries := replicas{m.ShardID, m.From, m.To}, len(m.Entries) > 0
	to := f[who]
	switch {
	case to != nil && to.term == m.Term:
	case entries:
		to = &flow{term: m.Term}
		f[who] = to
	default:
		return append(dst, *m)
	}
	switch {
	case entries:
		to.apart, to.sent = now.Sub(to.sent), now
		to.waits = false // the entries say it too, or more
	case m.Type == raftpb.Replicate && spacing > 0 && to.apart <= 2*spacing:
		if !to.waits {
			to.due = now.Add(spacing)
		}
		to.commit, to.waits = *m, true
		return dst
	case m.Type == raftpb.Heartbeat && isUrgent(*m):
		dst = to.release(dst) // a read may wait for it, on any node
	case m.Type == raftpb.Heartbeat && now.Sub(to.sent) < quiet:
		return dst
	}
	return append(dst, *m)
}

// release appends to dst what waits.
func (to *flow) release(dst []raftpb.Message) []raftpb.Message {
	if to.waits {
		dst = append(dst, to.commit)
		to.waits = false
	}
	return dst
}

// overdue appends to dst what has waited long enough, and reports whether anything still waits.
func (f flows) overdue(dst []raftpb.Message, now time.Time) (_ []raftpb.Message, waits bool) {
	for _, to := range f {
		if !now.Before(to.due) {
			dst = to.release(dst)
		}
		waits = waits || to.waits
	}
	return dst, waits
}
