package replica

import (
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// elections is how many this node's replicas have won after something.
func (p *process) elections(after string) float64 {
	var m dto.Metric
	require.NoError(p.t, p.host.cfg.Metrics.elections.WithLabelValues(after).Write(&m))
	return m.GetCounter().GetValue()
}

// Of each election that is won it is known whether there was a leader before, and whether that gave its place to
// this replica; of those that others win nothing is said.
func TestElectionsAreCountedByWhatTheyCameAfter(t *testing.T) {
	p, hears, follows := followingInTerm5(t)
	defer func() { p.close() }()
	wins := func(term uint64) string {
		before := map[string]float64{}
		for _, after := range []string{afterStart, afterHandover, afterFailure} {
			before[after] = p.elections(after)
		}
		p.host.LeaderUpdated(raftio.LeaderInfo{ShardID: uint64(testShard), ReplicaID: uint64(testReplica), LeaderID: uint64(testReplica), Term: term})
		for after, n := range before {
			if p.elections(after) > n {
				return after
			}
		}
		return ""
	}
	require.Zero(t, p.elections(afterStart)+p.elections(afterFailure)+p.elections(afterHandover), "replica 2 was elected")

	leads := make(chan error, 1)
	go func() { leads <- p.replica.Succeed(t.Context(), Handover{Term: 5, Last: 3}) }()
	require.Eventually(t, func() bool { return !follows() }, patience, time.Millisecond)
	hears(raftpb.Message{Type: raftpb.RequestVoteResp, From: 3, Term: 6})
	require.NoError(t, <-leads)
	require.EqualValues(t, 1, p.elections(afterHandover))
	require.Zero(t, p.elections(afterStart)+p.elections(afterFailure))

	require.Equal(t, afterFailure, wins(9), "it led, and then nobody did")
	p.host.leaders.Delete(testShard)
	require.Equal(t, afterStart, wins(11))
	require.Equal(t, afterFailure, wins(12))
	p.host.heirs.Store(testShard, uint64(12))
	require.Equal(t, afterFailure, wins(14), "an heir that has to campaign twice was not elected by the handover")
}
