package replica

import (
	"sync"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// Whoever is told to stands for election at once, long before a timeout ends, and only in
// groups without a leader (P11).
func TestCampaign(t *testing.T) {
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { c.Raft.ElectionTicks = 1 << 20 })
	defer func() { p.close() }()
	p.startNew()
	_, term := p.host.Leader(testShard)
	p.host.Campaign([]Candidacy{{Held: Held{testShard, testReplica}}, {Held: Held{testShard, testReplica}, Instead: 9}})
	p.put("a", "1")
	_, after := p.host.Leader(testShard)
	require.Equal(t, term, after)
	p.host.Campaign([]Candidacy{{Held: Held{Shard: shard.ID(99), Replica: 1}}}) // which does not run
	p.put("a", "2")
}

// What is proposed to a group that started a moment ago is not taken for as old as the
// process when Raft's clock ticks for the first time.
func TestTheClockOfANewReplica(t *testing.T) {
	const tick, age = time.Minute, 100 // no tick comes but the one below
	gate := &gatedSource{came: make(chan struct{}, 1)}
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) {
		gate.RevisionSource, c.Source, c.Raft.TickInterval, c.ProposalTimeout = c.Source, gate, tick, 2*tick
	})
	defer func() { p.close() }()
	p.host.opened = time.Now().Add(-age * tick)
	p.startNew()
	gate.Lock() // nothing is applied from now on
	<-gate.came
	outcome := make(chan shard.Result, 1)
	p.replica.Propose(putCommand("a", "1"), func(r shard.Result) { outcome <- r })
	<-gate.came
	p.host.doorway.deliver(p.host.batchOf(raftpb.Message{
		Type: raftpb.LocalTick, ShardID: uint64(testShard), From: uint64(testReplica), To: uint64(testReplica), Hint: age,
	}))
	told, err := p.host.nh.QueryRaftLog(uint64(testShard), 1, 2, 1) // Raft tells it behind the tick
	require.NoError(t, err)
	<-told.ResultC()
	gate.Unlock()
	require.NoError(t, (<-outcome).Err)
}

// gatedSource holds up who observes, while it is locked.
type gatedSource struct {
	RevisionSource
	sync.Mutex
	came chan struct{} // receives, coalesced, when somebody observes
}

func (g *gatedSource) Observe(rev shard.Revision) {
	select {
	case g.came <- struct{}{}:
	default:
	}
	g.Lock()
	defer g.Unlock()
	g.RevisionSource.Observe(rev)
}
