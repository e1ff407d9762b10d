package apply_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// TestLeaseRecordBytes freezes what the store keeps about leases, and what a snapshot
// carries of it.
func TestLeaseRecordBytes(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Span{Start: []byte("b"), End: []byte("y")}))
	lease := func(kind shardpb.Kind, c *shardpb.LeaseCommand) *shardpb.Command { return command(t, kind, 1, c) }
	will := &shardpb.LeaseWill{Format: 1, Reign: 1, Newest: 300, Leases: []int64{41, -1}, LeftMs: []uint64{9876, 0}}
	for _, r := range f.apply(
		lease(shardpb.Kind_LEASE_REIGN, &shardpb.LeaseCommand{}),
		lease(shardpb.Kind_LEASE_GRANT, &shardpb.LeaseCommand{Lease: 41, Ttl: 10}),
		lease(shardpb.Kind_LEASE_GRANT, &shardpb.LeaseCommand{Lease: 46, Ttl: 300}),
		lease(shardpb.Kind_LEASE_ATTACH, &shardpb.LeaseCommand{Lease: 46, Span: &shardpb.Span{Start: []byte("z")}}),
		lease(shardpb.Kind_LEASE_DETACH, &shardpb.LeaseCommand{Lease: 1, Incarnation: 3, Span: &shardpb.Span{Start: []byte("b"), End: []byte("y")}}),
		lease(shardpb.Kind_LEASE_REGISTER, &shardpb.LeaseCommand{Lease: 1, Incarnation: 5, Fence: 1}),
		command(t, shardpb.Kind_PUT, 1, &pb.PutRequest{Key: []byte("c"), Lease: 1}),
		command(t, shardpb.Kind_PUT, 1, &pb.PutRequest{Key: []byte("k"), Lease: 46}),
		lease(shardpb.Kind_LEASE_REVOKE, &shardpb.LeaseCommand{Lease: 46}),
		lease(shardpb.Kind_LEASE_BEQUEATH, &shardpb.LeaseCommand{Will: will}),
	) {
		require.NoError(t, r.Err)
	}
	var out strings.Builder
	it, err := f.reader().NewIter(&pebble.IterOptions{LowerBound: []byte("h\x00")})
	require.NoError(t, err)
	for it.First(); it.Valid(); it.Next() {
		if string(it.Key()) != string(engine.LocalKey(testShard, testReplica, apply.StateKind)) {
			fmt.Fprintf(&out, "%x = %x\n", it.Key(), it.Value())
		}
	}
	require.NoError(t, it.Close())
	state, err := apply.MarshalSnapshot(f.machine.View(), f.machine.Leases().State())
	require.NoError(t, err)
	fmt.Fprintf(&out, "snapshot %s\n", hex.EncodeToString(state))

	want, err := os.ReadFile("testdata/leases.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
}

// A snapshot's state that speaks of leases in a way this version does not know, or of no
// shard at all, is refused.
func TestReceivedRefuses(t *testing.T) {
	f := newFixture(t)
	d := &shard.Descriptor{ID: testShard, Epoch: 1}
	for name, state := range map[string]*shardpb.LeaseState{
		"record": {Records: []*shardpb.LeaseRecord{{Format: 2, Lease: 41}}},
		"book":   {Book: &shardpb.LeaseBook{Format: 2}},
		"will":   {Will: &shardpb.LeaseWill{Format: 2}},
	} {
		data, err := apply.MarshalSnapshot(shard.View{Descriptor: d}, state)
		require.NoError(t, err)
		_, _, err = f.machine.Received(data)
		require.ErrorContains(t, err, "format 2", name)
	}
	data, err := apply.MarshalSnapshot(shard.View{}, nil)
	require.NoError(t, err)
	_, _, err = f.machine.Received(data)
	require.ErrorIs(t, err, shard.ErrCorrupt)
}
