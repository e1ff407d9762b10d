package apply_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// TestSplitBytes freezes SPLIT as it stands in logs, and what the store keeps of a split:
// the parent's state, the child's seed, its state, and that of a poisoned replica.
func TestSplitBytes(t *testing.T) {
	f := newFixture(t)
	var out strings.Builder
	locals := func(title string) {
		fmt.Fprintf(&out, "# %s\n", title)
		it, err := f.reader().NewIter(&pebble.IterOptions{LowerBound: []byte("l\x00"), UpperBound: []byte("m\x00")})
		require.NoError(t, err)
		for it.First(); it.Valid(); it.Next() {
			fmt.Fprintf(&out, "%x = %x\n", it.Key(), it.Value())
		}
		require.NoError(t, it.Close())
	}
	f.apply(initCommand(shard.Everything()),
		command(t, shardpb.Kind_LEASE_GRANT, 1, &shardpb.LeaseCommand{Lease: 1, Ttl: 10}),
		command(t, shardpb.Kind_PUT, 1, &pb.PutRequest{Key: []byte("p"), Lease: 1}),
	)
	split := splitCommand(f.machine.View().Descriptor, testChild, 8, "m")
	fmt.Fprintf(&out, "# entry with SPLIT\n%x\n", encodeBatch(t, split))
	require.NoError(t, f.apply(split)[0].Err)
	locals("after SPLIT")
	f.turn(testChild)
	require.NoError(t, f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})[0].Err)
	locals("after INIT of the child")
	f.turn(9)
	orphan := shard.Descriptor{ID: 9, Parent: testShard, Span: shard.PointSpan([]byte("x")), Epoch: 2}
	require.Error(t, f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: orphan.Proto()})[0].Err)
	state, err := f.engine.Local(9, testReplica, 1)
	require.NoError(t, err)
	fmt.Fprintf(&out, "# poisoned\n%x = %x\n", engine.LocalKey(9, testReplica, 1), state)

	want, err := os.ReadFile("testdata/split.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
}

// What stands behind INIT in one entry meets the leases that the seed has brought.
func TestLeasesAreThereRightAfterInit(t *testing.T) {
	f := newFixture(t)
	for _, r := range f.apply(initCommand(shard.Everything()),
		command(t, shardpb.Kind_LEASE_GRANT, 1, &shardpb.LeaseCommand{Lease: 1, Ttl: 10}),
		command(t, shardpb.Kind_PUT, 1, &pb.PutRequest{Key: []byte("p"), Lease: 1}),
	) {
		require.NoError(t, r.Err)
	}
	split := splitCommand(f.machine.View().Descriptor, testChild, 8, "m")
	require.NoError(t, f.apply(split)[0].Err)
	f.turn(testChild)
	put := command(t, shardpb.Kind_PUT, 1, &pb.PutRequest{Key: []byte("q"), Lease: 1})
	put.Epoch = split.Child.Epoch
	for _, r := range f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child}, put) {
		require.NoError(t, r.Err)
	}
}
