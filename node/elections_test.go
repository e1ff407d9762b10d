package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// G1: whoever stands early could win, and takes nothing from a leader.
func TestWhoStandsForElectionEarly(t *testing.T) {
	others := map[shard.ReplicaID]string{2: "n2:1", 3: "n3:1"}
	told := func(reports ...*routerpb.ReplicaReport) map[replica.Held]answer {
		out := make(map[replica.Held]answer)
		for _, r := range reports {
			out[replica.Held{Shard: shard.ID(r.Shard), Replica: shard.ReplicaID(r.Replica)}] = answer{ReplicaReport: r}
		}
		return out
	}
	follower := func(id, leader uint64) *routerpb.ReplicaReport {
		return &routerpb.ReplicaReport{Shard: 7, Replica: id, Leader: leader}
	}
	for name, c := range map[string]struct {
		others map[shard.ReplicaID]string
		told   map[replica.Held]answer
		want   bool
	}{
		"alone of three":                     {others, told(), false},
		"two of three":                       {others, told(follower(3, 0)), true},
		"all of three":                       {others, told(follower(2, 0), follower(3, 0)), true},
		"one of them follows somebody":       {others, told(follower(2, 0), follower(3, 2)), false},
		"the second replica of another time": {others, told(follower(4, 0)), false},
		"one of another shard":               {others, told(&routerpb.ReplicaReport{Shard: 8, Replica: 2}), false},
		"the only one":                       {nil, told(), true},
		"one of two":                         {map[shard.ReplicaID]string{2: "n2:1"}, told(), false},
		"both of two":                        {map[shard.ReplicaID]string{2: "n2:1"}, told(follower(2, 0)), true},
	} {
		t.Run(name, func(t *testing.T) {
			e := election{Held: replica.Held{Shard: 7, Replica: 1}, others: c.others}
			require.Equal(t, c.want, e.winnable(c.told))
		})
	}
}

// G1: nobody stands instead of a leader before all that answer can tell that its process has ended.
func TestWhoStandsInsteadOfALeader(t *testing.T) {
	w := election{Held: replica.Held{Shard: 7, Replica: 1}, others: map[shard.ReplicaID]string{2: "n2:1", 3: "n3:1"}, instead: 2, ended: 20}
	says := func(leader uint64, ended ...uint64) map[replica.Held]answer {
		return map[replica.Held]answer{{Shard: 7, Replica: 3}: {&routerpb.ReplicaReport{Shard: 7, Replica: 3, Leader: leader}, ended}}
	}
	require.True(t, w.winnable(says(2, 20)))
	require.True(t, w.winnable(says(0, 10, 20)))
	require.False(t, w.winnable(says(2)), "the other one may hear it")
	require.False(t, w.winnable(says(2, 30)))
	require.False(t, w.winnable(says(3, 20)), "another one leads")
	require.False(t, w.winnable(nil), "no majority runs")
}
