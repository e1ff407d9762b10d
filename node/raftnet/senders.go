package raftnet

import (
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

// introduceAfter is how soon Raft is told again where a replica is. It may have forgotten, with a replica of
// the same group that was removed here.
const introduceAfter = 500 * time.Millisecond

// senders are the replicas of which Raft was told on one connection, just now, that their messages come from the
// peer. It looks each of them up for each message that has an address, and takes memory for it (X8).
type senders struct {
	told  map[sender]struct{}
	since time.Time
}

type sender struct{ shard, replica uint64 }

// know reports whether all who sent these messages were told of, and takes it that they are now.
func (s *senders) know(messages []raftpb.Message, now time.Time) bool {
	if s.told == nil || now.Sub(s.since) >= introduceAfter {
		s.told, s.since = make(map[sender]struct{}, len(s.told)), now
	}
	before := len(s.told)
	for i := range messages {
		s.told[sender{messages[i].ShardID, messages[i].From}] = struct{}{}
	}
	return len(s.told) == before
}
