package replica

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// P8: what comes while the heir is waited for is not in the log; when the heir is not there
// in time it is written by who leads still.
func TestNothingIsProposedDuringAHandover(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	require.NoError(t, p.propose(putCommand("a", "before")).Err)

	absent := errors.New("not there")
	outcome := make(chan shard.Result, 1)
	err := p.replica.HandOver(t.Context(), &scriptedHeir{
		catchUp: func(context.Context) error {
			require.NoError(t, p.propose(putCommand("a", "meanwhile")).Err, "nothing waits yet")
			return nil
		},
		succeed: func(ctx context.Context, h Handover) error {
			applied := p.replica.View().Applied
			require.Equal(t, Handover{Term: p.replica.Term(), Applied: applied, Last: applied}, h)
			p.replica.Propose(putCommand("a", "after"), func(r shard.Result) { outcome <- r })
			for range 20 { // rounds of Raft, any of which would bring the put with it
				view, err := p.replica.Barrier(ctx)
				require.NoError(t, err)
				require.Equal(t, applied, view.Applied)
			}
			return absent
		},
	})
	require.ErrorIs(t, err, absent)
	require.NoError(t, (<-outcome).Err)
	require.Equal(t, "after", p.get("a"))
}

// scriptedHeir is an heir of which the test says what it does; nil: nothing.
type scriptedHeir struct {
	catchUp func(context.Context) error
	succeed func(context.Context, Handover) error
}

func (h *scriptedHeir) CatchUp(ctx context.Context) error {
	if h.catchUp == nil {
		return nil
	}
	return h.catchUp(ctx)
}

func (h *scriptedHeir) Succeed(ctx context.Context, o Handover) error {
	if h.succeed == nil {
		return nil
	}
	return h.succeed(ctx, o)
}

func TestOnlyALeaderHandsOver(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startAlone()
	var notLeader *shard.NotLeaderError
	require.ErrorAs(t, p.replica.HandOver(t.Context(), &scriptedHeir{}), &notLeader)
}

// P11: an heir stands for election in the term of the leader that hands over and no other,
// and not while its log lacks something of the leader's; otherwise at once, though there is a
// leader, and it returns when it leads.
func TestAnHeirStandsForElection(t *testing.T) {
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { c.Raft.ElectionTicks = 1 << 20 })
	defer func() { p.close() }()
	p.startAlone()
	hears := func(m raftpb.Message) {
		m.ShardID, m.To = uint64(testShard), uint64(testReplica)
		p.host.doorway.deliver(p.host.batchOf(m))
	}
	follows := func() bool {
		leader, term := p.host.Leader(testShard)
		return leader == 2 && term == 5
	}
	const last = 3 // the group's first members are what the log begins with
	require.Eventually(t, func() bool {
		hears(raftpb.Message{Type: raftpb.Heartbeat, From: 2, Term: 5})
		ends, err := p.host.LogEnds(testShard)
		return follows() && err == nil && ends == last
	}, patience, time.Millisecond)

	require.ErrorContains(t, p.replica.Succeed(t.Context(), Handover{Term: 4, Last: last}), "another term")
	for _, behind := range []Handover{{Term: 5, Last: last + 1}, {Term: 5, Last: last, Applied: last}} { // it has applied no command
		soon, cancel := context.WithTimeout(t.Context(), 20*succeedPause)
		require.ErrorIs(t, p.replica.Succeed(soon, behind), context.DeadlineExceeded)
		cancel()
		require.True(t, follows())
	}

	leads := make(chan error, 1)
	go func() { leads <- p.replica.Succeed(t.Context(), Handover{Term: 5, Last: last}) }()
	require.Eventually(t, func() bool { return !follows() }, patience, time.Millisecond)
	hears(raftpb.Message{Type: raftpb.RequestVoteResp, From: 3, Term: 6})
	require.NoError(t, <-leads)
	require.True(t, p.replica.Leads())
}
