package raftnet

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// X8: Raft is told of each replica that it is at the peer, at once and from time to time.
func TestSendersAreIntroduced(t *testing.T) {
	var s senders
	now := time.Now()
	from := func(shard, replica uint64) raftpb.Message { return raftpb.Message{ShardID: shard, From: replica} }
	require.False(t, s.know([]raftpb.Message{from(1, 2), from(1, 2)}, now))
	require.True(t, s.know([]raftpb.Message{from(1, 2)}, now))
	require.False(t, s.know([]raftpb.Message{from(1, 2), from(1, 3)}, now))
	require.False(t, s.know([]raftpb.Message{from(3, 2)}, now))
	now = now.Add(introduceAfter - 1)
	require.True(t, s.know([]raftpb.Message{from(1, 2), from(1, 3), from(3, 2)}, now))
	require.False(t, s.know([]raftpb.Message{from(1, 2)}, now.Add(1)), "it may have been forgotten")
}

// X8: whoever connects anew is introduced anew.
func TestSendersAreIntroducedOnEachConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, b := newStation(t, h, "a", true), newStation(t, h, "b", true)
		addresses := func(c raftio.IConnection) (said []string) {
			for range 2 {
				require.NoError(t, c.SendMessageBatch(batch("a")))
				said = append(said, (<-b.batches).SourceAddress)
			}
			return said
		}
		for range 2 {
			c, err := a.GetConnection(t.Context(), "b")
			require.NoError(t, err)
			require.Equal(t, []string{"a", ""}, addresses(c))
			c.Close()
		}
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}
