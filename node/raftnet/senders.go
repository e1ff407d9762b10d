package raftnet

import (
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

// introduceAfter is how soon Raft is told a replica's address again. It may have forgotten the address together with
// a replica of the same group that was removed here.
const introduceAfter = 500 * time.Millisecond

// senders are the replicas of the peer whose address Raft was recently told on one connection. For every message with
// an address, Raft looks up the sender and allocates memory for it (X8).
type senders struct {
	told  map[sender]struct{}
	since time.Time
}

type sender struct{ shard, replica uint64 }

// know reports whether Raft was told about all senders of these messages, and records that it is told now.
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
