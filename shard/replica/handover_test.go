package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// P8: what comes while the heir is waited for is not in the log; when the heir declines it is
// written by who leads still.
func TestNothingIsProposedDuringAHandover(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	require.NoError(t, p.propose(putCommand("a", "before")).Err)

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
			p.requireNothingProposed(applied)
			return fmt.Errorf("not there: %w", ErrDeclined)
		},
	})
	require.ErrorIs(t, err, ErrDeclined)
	require.NoError(t, (<-outcome).Err)
	require.Equal(t, "after", p.get("a"))
}

// P8: an heir that does not answer may have campaigned.
func TestNothingIsProposedWhileTheHeirMayCampaign(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	ctx, cancel := context.WithCancel(t.Context())
	lost, asked, handed := errors.New("connection lost"), make(chan struct{}), make(chan error, 1)
	go func() {
		handed <- p.replica.HandOver(ctx, &scriptedHeir{succeed: func(context.Context, Handover) error {
			close(asked)
			return lost
		}})
	}()
	<-asked
	outcome := make(chan shard.Result, 1)
	applied := p.replica.View().Applied
	p.replica.Propose(putCommand("a", "after"), func(r shard.Result) { outcome <- r })
	p.requireNothingProposed(applied)
	cancel()
	require.ErrorIs(t, <-handed, lost)
	require.NoError(t, (<-outcome).Err)
}

// requireNothingProposed has rounds of Raft, any of which would bring a proposal with it, for longer than a proposal takes.
func (p *process) requireNothingProposed(since uint64) {
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
		view, err := p.replica.Barrier(p.t.Context())
		require.NoError(p.t, err)
		require.Equal(p.t, since, view.Applied)
	}
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
	p, hears, follows := followingInTerm5(t)
	defer func() { p.close() }()
	const last = 3
	otherTerm := p.replica.Succeed(t.Context(), Handover{Term: 4, Last: last})
	require.ErrorContains(t, otherTerm, "another term")
	require.ErrorIs(t, otherTerm, ErrDeclined)
	for _, behind := range []Handover{{Term: 5, Last: last + 1}, {Term: 5, Last: last, Applied: last}} { // it has applied no command
		soon, cancel := context.WithTimeout(t.Context(), 20*succeedPause)
		require.ErrorIs(t, p.replica.Succeed(soon, behind), ErrDeclined)
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

// An heir that has campaigned may lead later: it does not decline when it has no answers in time.
func TestAnHeirThatHasCampaignedDoesNotDecline(t *testing.T) {
	p, _, follows := followingInTerm5(t)
	defer func() { p.close() }()
	ctx, cancel := context.WithCancel(t.Context())
	succeeded := make(chan error, 1)
	go func() { succeeded <- p.replica.Succeed(ctx, Handover{Term: 5, Last: 3}) }()
	require.Eventually(t, func() bool { return !follows() }, patience, time.Millisecond)
	cancel()
	err := <-succeeded
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrDeclined)
}

// followingInTerm5 is a replica that follows replica 2 in term 5, and does not campaign by itself. Its log ends with entry 3: the
// group's first members are what it begins with.
func followingInTerm5(t *testing.T) (p *process, hears func(raftpb.Message), follows func() bool) {
	p = openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { c.Raft.ElectionTicks = 1 << 20 })
	p.startAlone()
	hears = func(m raftpb.Message) {
		m.ShardID, m.To = uint64(testShard), uint64(testReplica)
		p.host.doorway.deliver(p.host.batchOf(m))
	}
	follows = func() bool {
		leader, term := p.host.Leader(testShard)
		return leader == 2 && term == 5
	}
	require.Eventually(t, func() bool {
		hears(raftpb.Message{Type: raftpb.Heartbeat, From: 2, Term: 5})
		ends, err := p.host.LogEnds(testShard)
		return follows() && err == nil && ends == 3
	}, patience, time.Millisecond)
	return p, hears, follows
}
