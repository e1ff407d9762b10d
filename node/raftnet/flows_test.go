package raftnet

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

const (
	testSpacing = 160 * time.Millisecond
	testQuiet   = 200 * time.Millisecond
)

// leader is what one leader says to one follower, and when.
type leader struct {
	flows flows
	now   time.Time
	index uint64 // of its last entry
	term  uint64
}

// newLeader returns one that has sent two entries, one spacing apart.
func newLeader() *leader {
	l := &leader{flows: make(flows), now: time.Now(), term: 4}
	l.says(testSpacing, l.entry())
	l.says(0, l.entry())
	return l
}

// says is what is sent of a message, for how many nanoseconds to go on then.
func (l *leader) says(after time.Duration, m raftpb.Message) []raftpb.Message {
	sent := l.flows.pass(nil, &m, l.now, testSpacing, testQuiet)
	l.now = l.now.Add(after)
	return sent
}

func (l *leader) message(t raftpb.MessageType) raftpb.Message {
	return raftpb.Message{Type: t, ShardID: 1, From: 2, To: 3, Term: l.term, LogIndex: l.index}
}

func (l *leader) entry() raftpb.Message {
	m := l.message(raftpb.Replicate)
	l.index++
	m.Entries = []raftpb.Entry{{Index: l.index, Term: l.term}}
	return m
}

// commit says that all entries so far are committed.
func (l *leader) commit() raftpb.Message {
	m := l.message(raftpb.Replicate)
	m.Commit = l.index
	return m
}

func (l *leader) beat(hint uint64) raftpb.Message {
	m := l.message(raftpb.Heartbeat)
	m.Hint = hint
	return m
}

// due is what has waited long enough.
func (l *leader) due() []raftpb.Message {
	sent, _ := l.flows.overdue(nil, l.now)
	return sent
}

// X7: that entries are committed is said with the next ones.
func TestCommitsWaitForEntries(t *testing.T) {
	l := newLeader()
	require.Empty(t, l.says(testSpacing-1, l.commit()))
	require.Empty(t, l.due())
	next := l.entry()
	require.Equal(t, []raftpb.Message{next}, l.says(time.Hour, next))
	require.Empty(t, l.due(), "it is said")
}

// X7: without other entries it is said in time, and of several only the last.
func TestCommitsWaitNoLonger(t *testing.T) {
	l := newLeader()
	first, second := l.commit(), l.commit()
	second.Commit++
	require.Empty(t, l.says(testSpacing/2, first))
	require.Empty(t, l.says(testSpacing/2-1, second))
	_, waits := l.flows.overdue(nil, l.now)
	require.True(t, waits)
	l.now = l.now.Add(1)
	sent, waits := l.flows.overdue(nil, l.now)
	require.Equal(t, []raftpb.Message{second}, sent, "counted from the first")
	require.False(t, waits)
}

// X7: a read, wherever it was asked for, may have to wait for what is committed. So its round tells it before.
func TestReadsBringCommits(t *testing.T) {
	l := newLeader()
	commit, beat := l.commit(), l.beat(9)
	l.says(0, commit)
	require.Equal(t, []raftpb.Message{commit, beat}, l.says(0, beat))
	require.Equal(t, []raftpb.Message{beat}, l.says(time.Hour, beat), "once")
	require.Empty(t, l.due())
}

// X5, X7: what is not known to be followed by entries is said at once, and so is all else.
func TestWhatIsSaidAtOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		say  func(l *leader) raftpb.Message
	}{
		{"a commit by a leader that is seldom asked", func(l *leader) raftpb.Message {
			l.now = l.now.Add(3 * testSpacing)
			l.says(0, l.entry())
			return l.commit()
		}},
		{"a commit by a new leader", func(l *leader) raftpb.Message {
			l.term++
			return l.commit()
		}},
		{"a commit after the first entry of a new leader", func(l *leader) raftpb.Message {
			l.term++
			l.says(testSpacing, l.entry())
			return l.commit()
		}},
		{"a commit to another follower", func(l *leader) raftpb.Message {
			m := l.commit()
			m.To++
			return m
		}},
		{"a heartbeat some time after entries", func(l *leader) raftpb.Message {
			l.now = l.now.Add(testQuiet)
			return l.beat(0)
		}},
		{"a heartbeat in a new term", func(l *leader) raftpb.Message {
			l.term++
			return l.beat(0)
		}},
		{"a heartbeat of another shard", func(l *leader) raftpb.Message {
			m := l.beat(0)
			m.ShardID++
			return m
		}},
		{"a heartbeat of a read", func(l *leader) raftpb.Message { return l.beat(9) }},
		{"an acknowledgement", func(l *leader) raftpb.Message { return l.message(raftpb.ReplicateResp) }},
		{"a call to stand for election", func(l *leader) raftpb.Message { return l.message(raftpb.TimeoutNow) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLeader()
			m := c.say(l)
			require.Equal(t, []raftpb.Message{m}, l.says(0, m))
		})
	}
}

// X7: a leader that follows another one has nothing waiting from before.
func TestCommitsOfALeadershipThatIsOver(t *testing.T) {
	l := newLeader()
	l.says(0, l.commit())
	l.term++
	first := l.entry()
	require.Equal(t, []raftpb.Message{first}, l.says(time.Hour, first))
	require.Empty(t, l.due())
}

// X5: entries say that their leader leads. Without others, a heartbeat follows within two of them.
func TestEntriesAreHeartbeats(t *testing.T) {
	l := newLeader()
	require.Empty(t, l.says(testQuiet-1, l.beat(0)))
	require.Empty(t, l.says(1, l.beat(0)))
	beat := l.beat(0)
	require.Equal(t, []raftpb.Message{beat}, l.says(0, beat), "one that was left out puts off nothing")
}

// X7: what waits is sent by the connection itself, and is lost with it like all else.
func TestLineTellsCommitsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		f := &Factory{}
		a, b := newStationOf(t, h, "a", true, f), newStation(t, h, "b", true)
		c, err := a.GetConnection(t.Context(), "b")
		require.NoError(t, err)
		f.Space(testSpacing)
		say := func(m raftpb.Message) int {
			require.NoError(t, c.SendMessageBatch(raftpb.MessageBatch{Requests: []raftpb.Message{m}}))
			synctest.Wait()
			return len(b.batches)
		}
		l := &leader{term: 4}
		say(l.entry())
		elapse(testSpacing)
		require.Equal(t, 2, say(l.entry()))
		require.Equal(t, 2, say(l.commit()))
		elapse(testSpacing + commitsGrain)
		synctest.Wait()
		require.Len(t, b.batches, 3)

		say(l.entry())
		require.Equal(t, 4, say(l.commit()))
		f.Space(0)
		require.Equal(t, 5, say(l.commit()), "not while batches start at once")

		f.Space(testSpacing)
		require.Equal(t, 5, say(l.commit()))
		c.Close()
		elapse(2 * testSpacing)
		synctest.Wait()
		require.Len(t, b.batches, 5)
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}
