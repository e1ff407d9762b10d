package raftnet

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// news appends to dst what is to be sent of some messages.
func (a acks) news(dst, messages []raftpb.Message, now time.Time) []raftpb.Message {
	for i := range messages {
		if m := &messages[i]; a.isNews(m, now) {
			dst = append(dst, *m)
		}
	}
	return dst
}

// X5: only what says exactly what was said just now is left out.
func TestRepeatedAcknowledgements(t *testing.T) {
	const soon, later = repeatAfter / 2, repeatAfter
	message := func(change func(m *raftpb.Message)) raftpb.Message {
		m := raftpb.Message{Type: raftpb.ReplicateResp, ShardID: 1, From: 2, To: 3, Term: 4, LogIndex: 5}
		change(&m)
		return m
	}
	same := func(*raftpb.Message) {}
	for _, c := range []struct {
		name   string
		after  time.Duration
		change func(m *raftpb.Message)
		sent   bool
	}{
		{"the same", soon, same, false},
		{"the same, later", later, same, true},
		{"of another shard", soon, func(m *raftpb.Message) { m.ShardID = 9 }, true},
		{"of another replica", soon, func(m *raftpb.Message) { m.From = 9 }, true},
		{"to another replica", soon, func(m *raftpb.Message) { m.To = 9 }, true},
		{"in another term", soon, func(m *raftpb.Message) { m.Term = 9 }, true},
		{"of more", soon, func(m *raftpb.Message) { m.LogIndex = 9 }, true},
		{"of less", soon, func(m *raftpb.Message) { m.LogIndex = 1 }, true},
		{"no", soon, func(m *raftpb.Message) { m.Reject = true }, true},
		{"another message", soon, func(m *raftpb.Message) { m.Type = raftpb.HeartbeatResp }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, now := make(acks), time.Now()
			first, second := message(same), message(c.change)
			require.Len(t, a.news(nil, []raftpb.Message{first}, now), 1)
			want := []raftpb.Message(nil)
			if c.sent {
				want = []raftpb.Message{second}
			}
			require.Equal(t, want, a.news(nil, []raftpb.Message{second}, now.Add(c.after)))
		})
	}
}

// X5: one that was not sent does not put off the next, so a leader that asks time and again is
// answered.
func TestAcknowledgementIsRepeatedWhenAskedAgain(t *testing.T) {
	a, began := make(acks), time.Now()
	m := []raftpb.Message{{Type: raftpb.ReplicateResp, ShardID: 1, From: 2, To: 3, Term: 4, LogIndex: 5}}
	sent := 0
	for i := range 100 {
		sent += len(a.news(nil, m, began.Add(time.Duration(i)*repeatAfter/4)))
	}
	require.Equal(t, 25, sent)
}

// X5: after a no, what was said before is said again.
func TestAcknowledgementAfterARejection(t *testing.T) {
	a, now := make(acks), time.Now()
	yes := raftpb.Message{Type: raftpb.ReplicateResp, ShardID: 1, From: 2, To: 3, Term: 4, LogIndex: 5}
	no := yes
	no.Reject = true
	messages := []raftpb.Message{yes, yes, no, yes}
	require.Equal(t, []raftpb.Message{yes, no, yes}, a.news(nil, messages, now))
}

// X5: what was said on one connection may have been lost with it.
func TestAcknowledgementIsRepeatedOnANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, b := newStation(t, h, "a", true), newStation(t, h, "b", true)
		c, err := a.GetConnection(t.Context(), "b")
		require.NoError(t, err)
		received := func(messages ...raftpb.Message) (n int) {
			require.NoError(t, c.SendMessageBatch(raftpb.MessageBatch{Requests: messages}))
			synctest.Wait()
			for len(b.batches) > 0 {
				n += len((<-b.batches).Requests)
			}
			return n
		}
		m := raftpb.Message{Type: raftpb.ReplicateResp, ShardID: 1, From: 2, To: 3, Term: 4, LogIndex: 5}
		other := raftpb.Message{Type: raftpb.Replicate, ShardID: 1}
		require.Equal(t, 1, received(m))
		require.Equal(t, 1, received(m, other))
		require.Zero(t, received(m))

		require.NoError(t, b.Close())
		synctest.Wait()
		b = newStation(t, h, "b", true)
		require.Equal(t, 1, received(m))
		c.Close()
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}

// X5: a follower says how much it keeps only if that is too much.
func TestReportsOfMemory(t *testing.T) {
	fine := raftpb.Message{Type: raftpb.RateLimit, ShardID: 1, From: 2, To: 3, Term: 4}
	full := fine
	full.Hint = 1 << 30
	require.Equal(t, []raftpb.Message{full}, make(acks).news(nil, []raftpb.Message{fine, full, fine}, time.Now()))
}
