package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/hlc"
)

// A COMPACT raises revisions only while all nodes of the table have told that they know how.
func TestRenewalNeedsTheLevelOfAllNodes(t *testing.T) {
	for name, c := range map[string]struct {
		levels []shard.Level
		renews bool
	}{
		"no map yet":                {},
		"one node":                  {[]shard.Level{1}, true},
		"all equal":                 {[]shard.Level{1, 1, 1}, true},
		"some newer":                {[]shard.Level{2, 1, 3}, true},
		"one has told nothing":      {[]shard.Level{1, 0, 1}, false},
		"this one has told nothing": {[]shard.Level{0, 1, 1}, false},
		"none has":                  {[]shard.Level{0, 0, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := &meta{node: &Node{table: newTable(), hlc: hlc.NewHybrid(clock.System{})}}
			m.node.hlc.Observe(shard.FirstRevision + 41)
			m.node.table.publish(mapOfLevels(t, c.levels))
			if c.renews {
				require.Equal(t, m.node.hlc.Seen(), m.Renewal())
			} else {
				require.Zero(t, m.Renewal())
			}
		})
	}
}

func mapOfLevels(t *testing.T, levels []shard.Level) *placement.Map {
	s := placement.NewState()
	if len(levels) == 0 {
		return s.Map()
	}
	init := &placementpb.InitCluster{ClusterId: 7, ReplicationFactor: 1}
	for i, level := range levels {
		name := string(rune('a' + i))
		init.Nodes = append(init.Nodes, &placementpb.Node{NodeId: uint64(i + 1), Name: name, PeerAddr: name + ":1", Incarnation: []byte(name), Level: uint32(level)})
	}
	entry, err := placement.EncodeCommand(&placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: init}})
	require.NoError(t, err)
	require.NoError(t, placement.ResultError(s.ApplyEntry(entry)))
	return s.Map()
}

// The table gives a node no level that another node may not know, and none that is lower than before.
func TestCommonLevel(t *testing.T) {
	const silent = -1
	for name, c := range map[string]struct {
		table   []shard.Level // node 1 is this one
		answers []int         // of nodes 2 and 3
		older   shard.Level
		want    shard.Level
	}{
		"all are upgraded":                      {[]shard.Level{0, 0, 0}, []int{1, 1}, 0, 1},
		"all but one have told already":         {[]shard.Level{0, 1, 0}, []int{silent, 1}, 0, 1},
		"one is of an older build":              {[]shard.Level{0, 0, 0}, []int{1, 0}, 0, 0},
		"one does not answer":                   {[]shard.Level{0, 0, 0}, []int{1, silent}, 0, 0},
		"others are newer":                      {[]shard.Level{0, 0, 0}, []int{5, 7}, 0, shard.CommandLevel},
		"this one is older":                     {[]shard.Level{0, 0, 0}, []int{1, 1}, 1, 0},
		"told before, and one does not answer":  {[]shard.Level{1, 1, 0}, []int{1, silent}, 0, 1},
		"told before, and all are known anyway": {[]shard.Level{1, 1, 1}, []int{silent, silent}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := &Node{self: &Membership{NodeID: 1}}
			n.cfg.Knobs.OlderBy = c.older
			n.health = newHealth(n)
			for i, level := range c.answers {
				if level != silent {
					n.health.mu.peers[shard.NodeID(i+2)] = peerHealth{since: time.Now(), level: shard.Level(level)}
				}
			}
			require.Equal(t, c.want, n.commonLevel(mapOfLevels(t, c.table)))
		})
	}
}
