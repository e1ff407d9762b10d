package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// trio is a shard on three nodes, that would like node 3 to lead.
func trio() *shard.Descriptor {
	return &shard.Descriptor{ID: 7, PreferredNode: 3, Replicas: []shard.Replica{{ID: 1, Node: 1}, {ID: 2, Node: 2}, {ID: 3, Node: 3}}}
}

// reported is what the replicas say of which it names the leaders; 0 is silent.
func reported(d *shard.Descriptor, leaders ...uint64) (out []report) {
	for i, leader := range leaders {
		if leader != 0 {
			r := d.Replicas[i]
			out = append(out, report{r, &routerpb.ReplicaReport{Replica: uint64(r.ID), Leader: leader, Term: 5, Applied: 100}})
		}
	}
	return out
}

// A shard is only split or merged when every replica answers, follows, serves, and is not far
// behind: one that is not would need a copy of everything afterwards.
func TestWhoIsWell(t *testing.T) {
	d := trio()
	unfit, behind, lagging := reported(d, 2, 2, 2), reported(d, 2, 2, 2), reported(d, 2, 2, 2)
	unfit[0].Unfit = "poisoned"
	behind[0].Applied += lagMax + 1
	lagging[0].Applied += lagMax
	deposed := reported(d, 1, 2, 2) // says it leads, in a term that is past
	deposed[0].Term = 4
	late := reported(d, 2, 2, 2)
	late[2].Leader = 1
	for name, c := range map[string]struct {
		reports    []report
		well, even string // why not; empty: it is
	}{
		"all well":             {reported(d, 2, 2, 2), "", ""},
		"nobody leads":         {reported(d, 3, 3, 0), "no replica that answers leads", "no replica that answers leads"},
		"one is silent":        {reported(d, 2, 2, 0), "of the 3 replicas of shard 7 the one on node 3 does not answer", "node 3 does not answer"},
		"one is unfit":         {unfit, "node 1 serves nothing: poisoned", "node 1 serves nothing"},
		"two say they lead":    {deposed, "node 1 does not follow the leader", "node 1 does not follow"},
		"one follows another":  {late, "node 3 does not follow the leader", "node 3 does not follow"},
		"one is far ahead":     {behind, "", "1001 entries apart"},
		"as far as is allowed": {lagging, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, judged := range []struct {
				by  func(*shard.Descriptor, []report) (shard.Replica, error)
				why string
			}{{well, c.well}, {abreast, c.even}} {
				leader, err := judged.by(d, c.reports)
				if judged.why != "" {
					require.ErrorContains(t, err, judged.why)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, d.Replicas[1], leader)
			}
		})
	}
}

// O4: who leads when a replica leaves, and whether the others can go on.
func TestSuccession(t *testing.T) {
	unfit := func(reports []report, at ...int) []report {
		for _, i := range at {
			reports[i].Unfit = "poisoned"
		}
		return reports
	}
	learning := trio()
	learning.Replicas[2].Learner = true
	pair := &shard.Descriptor{Replicas: []shard.Replica{{ID: 1, Node: 1}, {ID: 2, Node: 2, Learner: true}}}
	four := trio()
	four.Replicas = append(four.Replicas, shard.Replica{ID: 4, Node: 4})
	for name, c := range map[string]struct {
		d            *shard.Descriptor
		reports      []report
		leaving      shard.ReplicaID
		leader, heir shard.ReplicaID
		why          string
	}{
		"it does not lead":              {trio(), reported(trio(), 2, 2, 2), 1, 2, 3, ""},
		"the preferred one follows":     {trio(), reported(trio(), 1, 1, 1), 1, 1, 3, ""},
		"the preferred one is unfit":    {trio(), unfit(reported(trio(), 1, 1, 1), 2), 1, 1, 2, ""},
		"a learner never leads":         {learning, reported(learning, 1, 1, 1), 1, 1, 2, ""},
		"nobody is fit":                 {trio(), unfit(reported(trio(), 1, 1, 1), 1, 2), 1, 1, 0, "none of the replicas that would stay is fit to lead"},
		"nobody is fit, but one leads":  {trio(), unfit(reported(trio(), 2, 2, 2), 1, 2), 1, 2, 0, ""},
		"one that stays is silent":      {trio(), reported(trio(), 1, 1, 0), 1, 1, 2, "of the 2 replicas that would stay 1 answer"},
		"of three that stay one is":     {four, reported(four, 1, 1, 1, 0), 1, 1, 3, ""},
		"of three that stay two are":    {four, reported(four, 1, 1, 0, 0), 1, 1, 2, "of the 3 replicas that would stay 1 answer"},
		"one that stays has no leader":  {trio(), reported(trio(), 1, 1, 9), 1, 1, 2, "of the 2 replicas that would stay 1 answer"},
		"the group has none that tells": {trio(), reported(trio(), 9, 9, 9), 1, 0, 0, "no replica that answers leads"},
		"only a learner would stay":     {pair, reported(pair, 1, 1), 1, 1, 0, "of the 0 replicas that would stay 0 answer"},
	} {
		t.Run(name, func(t *testing.T) {
			leader, heir, err := succession(c.d, c.reports, c.leaving)
			if c.why != "" {
				require.ErrorContains(t, err, c.why)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []shard.ReplicaID{c.leader, c.heir}, []shard.ReplicaID{leader.ID, heir.ID})
		})
	}
}
