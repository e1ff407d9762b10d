package adminapi

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// What a node has left that is to be emptied, and why it keeps it. Four nodes, of which n4 has
// nothing; n1 leads everything, the meta group too.
func TestEmptying(t *testing.T) {
	const full, room = 20, 600 // of 1000
	for name, c := range map[string]struct {
		state placement.NodeState
		edit  func(*View)
		also  []*placementpb.Command
		want  *adminpb.Emptying
	}{
		"all is about to go": {state: placement.Draining, want: &adminpb.Emptying{Shards: 3, MetaGroup: metaLeads}},
		"only the meta group is left": {
			state: placement.Draining, edit: func(v *View) { v.leadIn(2, 2, 3, 4) },
			want: &adminpb.Emptying{MetaGroup: metaLeads},
		},
		"nothing is left": {
			state: placement.Draining, edit: func(v *View) { v.leadIn(2, 1, 2, 3, 4) },
			want: &adminpb.Emptying{},
		},
		"nobody is known to lead the meta group": {
			state: placement.Draining, edit: func(v *View) { v.leadIn(2, 2, 3, 4); delete(v.Load.Shards, shard.MetaID) },
			want: &adminpb.Emptying{MetaGroup: metaUnknown, Waits: []string{"nobody is known to lead the meta group"}},
		},
		"a lock": {
			state: placement.Draining, also: []*placementpb.Command{placement.Set(placement.LockSetting(3), "being restored")},
			edit: func(v *View) { v.leadIn(2, 1, 2, 4) },
			want: &adminpb.Emptying{Shards: 1, Waits: []string{"leave: shard 3: n1 should not lead (it is draining) but the shard is locked: being restored"}},
		},
		"the balancer is off": {
			state: placement.Draining, also: []*placementpb.Command{placement.Set(placement.SettingRebalance, "off")},
			edit: func(v *View) { v.leadIn(2, 1, 2, 4) },
			want: &adminpb.Emptying{Shards: 1, Waits: []string{"the balancer is off, so nothing begins; flotilla rebalance resume turns it on"}},
		},
		"a round that failed": {
			state: placement.Draining, edit: func(v *View) { v.leadIn(2, 1, 2, 4); v.BalancerWaits = "no majority" },
			want: &adminpb.Emptying{Shards: 1, Waits: []string{"the balancer: no majority"}},
		},
		"nobody who could lead": {
			state: placement.Draining, edit: func(v *View) {
				v.leadIn(2, 1, 2, 4)
				s := v.Load.Shards[3]
				s.Behind = map[shard.NodeID]uint64{1: 0, 2: 5000, 3: 5000}
				v.Load.Shards[3] = s
			},
			want: &adminpb.Emptying{Shards: 1, Waits: []string{"leave: shard 3: n1 should not lead (it is draining) but no other replica is fit to"}},
		},
		"a leader on its way": {
			state: placement.Draining, edit: func(v *View) {
				v.leadIn(2, 1, 2, 4)
				v.Load.InFlight = []placement.Step{{Kind: placement.TransferLeader, Shard: 3, From: 1, To: 2}}
			},
			want: &adminpb.Emptying{Shards: 1, Waits: []string{"shard 3: n2 is to lead it and does not yet"}},
		},
		"a disk without room": {
			state: placement.Decommissioning, edit: func(v *View) {
				v.leadIn(2, 1, 2, 3, 4)
				v.disk(4, full)
			},
			want: &adminpb.Emptying{Shards: 4, Waits: []string{
				"repair: shards 1, 2, 3, 4: n1 cannot be emptied, each shard must have 3 replicas; add a node or lower replication-factor: " +
					"no node can take it: n2, n3 hold it already; n4 would have too little disk left",
			}},
		},
		"no other node": {
			state: placement.Decommissioning, edit: func(v *View) { v.leadIn(2, 1, 2, 3, 4) },
			also: []*placementpb.Command{placement.SetState(4, placement.Decommissioning)},
			want: &adminpb.Emptying{Shards: 4, Waits: []string{
				"repair: shards 1, 2, 3, 4: n1 cannot be emptied, each shard must have 3 replicas; add a node or lower replication-factor: " +
					"no node can take it: n2, n3 hold it already; n4: it is decommissioning",
			}},
		},
		"a move under way, and others at their limit": {
			state: placement.Decommissioning, edit: func(v *View) { v.leadIn(2, 1, 2, 3, 4) },
			also: []*placementpb.Command{
				placement.Set("moves-max", "1"),
				placement.BeginMove(&shard.Descriptor{ID: 2, Generation: 1}, 1, 4, "a test"),
			},
			want: &adminpb.Emptying{Shards: 4, Waits: []string{
				"repair: shards 1, 3, 4: waiting: at most 1 copies at once and 2 per node",
				"shard 2: operator 4 (MOVE, PREPARED) is under way",
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			init := founded()
			meta := &shard.Descriptor{ID: shard.MetaID}
			for i := range 3 {
				meta.Replicas = append(meta.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: shard.NodeID(i + 1)})
			}
			init.GetInitCluster().Meta = meta.Proto()
			fourth := &placementpb.Command{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{
				Node: &placementpb.Node{Name: "n4", PeerAddr: "n4:1", Incarnation: []byte("n4")},
			}}}
			v := &View{
				Now: now, Map: apply(t, append([]*placementpb.Command{init, fourth}, append(c.also, placement.SetState(1, c.state))...)...),
				Load: &placement.Load{
					Since: known().Since, Nodes: make(map[shard.NodeID]placement.NodeLoad), Shards: make(map[shard.ID]placement.ShardLoad),
				},
			}
			for id := range shard.NodeID(4) {
				v.disk(id+1, room)
			}
			v.leadIn(1, 1, 2, 3, 4)
			if c.edit != nil {
				c.edit(v)
			}
			reply, err := New(&seen{view: *v}, nil).Nodes(t.Context(), &adminpb.NodesRequest{})
			require.NoError(t, err)
			got := reply.Nodes[0].Emptying
			require.Equal(t, []any{c.want.Shards, c.want.MetaGroup, c.want.Waits}, []any{got.Shards, got.MetaGroup, got.Waits})
			require.Nil(t, reply.Nodes[1].Emptying, "n2 is active")
		})
	}
}

// leadIn has a node lead shards, by what was told just now.
func (v *View) leadIn(node shard.NodeID, ids ...shard.ID) {
	for _, id := range ids {
		v.Load.Shards[id] = placement.ShardLoad{
			Heard: v.Now, Leader: node, SpanSince: v.Load.Since, Behind: map[shard.NodeID]uint64{1: 0, 2: 0, 3: 0},
		}
	}
}

// disk is how much of 1000 MiB a node has free.
func (v *View) disk(node shard.NodeID, free int64) {
	v.Load.Nodes[node] = placement.NodeLoad{Heard: v.Now, DiskTotal: 1000 << 20, DiskFree: free << 20}
}
