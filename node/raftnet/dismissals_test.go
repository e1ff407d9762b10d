package raftnet

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// dismissing is an entry that removes the replica.
func dismissing(t *testing.T, replica, index uint64) raftpb.Entry {
	t.Helper()
	change := raftpb.ConfigChange{Type: raftpb.RemoveNode, ReplicaID: replica}
	cmd, err := change.Marshal()
	require.NoError(t, err)
	return raftpb.Entry{Type: raftpb.ConfigChangeEntry, Index: index, Cmd: cmd}
}

// X10: a replica that is being dismissed does not hear that this is committed, in whatever message; others do.
func TestTheDismissedDoesNotHearOfTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, b := newStation(t, h, "a", true), newStation(t, h, "b", true)
		c, err := a.GetConnection(t.Context(), "b")
		require.NoError(t, err)
		tell := func(m raftpb.Message) (commit uint64) {
			m.ShardID, m.From, m.Term = 7, 1, 3
			m.Hint = 1 // a read waits for it, so it is sent
			require.NoError(t, c.SendMessageBatch(raftpb.MessageBatch{SourceAddress: "a", Requests: []raftpb.Message{m}}))
			got := <-b.batches
			require.Len(t, got.Requests, 1)
			return got.Requests[0].Commit
		}
		replicate := func(to, commit uint64, entries ...raftpb.Entry) uint64 {
			return tell(raftpb.Message{Type: raftpb.Replicate, To: to, Commit: commit, Entries: entries})
		}
		heartbeat := func(to, commit uint64) uint64 {
			return tell(raftpb.Message{Type: raftpb.Heartbeat, To: to, Commit: commit})
		}
		write := func(index uint64) raftpb.Entry { return raftpb.Entry{Type: raftpb.EncodedEntry, Index: index} }

		require.EqualValues(t, 8, replicate(2, 8, write(9), dismissing(t, 2, 10), write(11)))
		require.EqualValues(t, 9, replicate(2, 9))
		require.EqualValues(t, 9, replicate(2, 10))
		require.EqualValues(t, 9, replicate(2, 11, write(12)))
		require.EqualValues(t, 9, heartbeat(2, 12))
		require.EqualValues(t, 12, heartbeat(3, 12), "another replica")
		require.EqualValues(t, 12, replicate(3, 12, dismissing(t, 2, 10)), "not its own dismissal")

		require.EqualValues(t, 9, replicate(2, 12, write(9)), "the leader sends what came before it again")
		require.EqualValues(t, 9, replicate(2, 12, write(9), dismissing(t, 2, 10)), "and it again")
		require.EqualValues(t, 12, replicate(2, 12, write(10)), "a later leader knows nothing of it")
		require.EqualValues(t, 13, heartbeat(2, 13))

		require.EqualValues(t, 13, replicate(2, 14, dismissing(t, 2, 14)))
		elapse(withholdFor)
		require.EqualValues(t, 13, heartbeat(2, 14))
		elapse(time.Second)
		require.EqualValues(t, 14, heartbeat(2, 14), "nobody else will tell it")
		c.Close()
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}

// What is known of replicas that are long gone is forgotten.
func TestDismissalsAreForgotten(t *testing.T) {
	var d dismissals
	now := time.Now()
	for i := range uint64(100) {
		d.withhold([]raftpb.Message{{Type: raftpb.Replicate, ShardID: i, To: 2, Entries: []raftpb.Entry{dismissing(t, 2, 5)}}}, now)
		now = now.Add(withholdFor / 10)
	}
	require.LessOrEqual(t, len(d.mu.of), 12)
}
