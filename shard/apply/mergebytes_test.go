package apply_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// TestMergeBytes freezes FREEZE, THAW and SUBSUME as they stand in logs, and what the store
// keeps of a merge: the frozen state, and that of the shard which has taken it.
func TestMergeBytes(t *testing.T) {
	f, right := halves(t)
	f.turn(right.ID)
	put := command(t, shardpb.Kind_PUT, 5, &pb.PutRequest{Key: []byte("p")})
	put.Epoch = right.Epoch
	register := command(t, shardpb.Kind_LEASE_REGISTER, 5, &shardpb.LeaseCommand{Lease: 1, Incarnation: 9})
	register.Epoch = right.Epoch
	for _, r := range f.apply(put, register) {
		require.NoError(t, r.Err)
	}
	f.turn(testShard)
	plan := merge(f.machine.View().Descriptor, right)
	freeze, subsume := plan.freeze(testOperator), plan.subsume(testOperator)
	freeze.Stamp = 6
	var out strings.Builder
	fmt.Fprintf(&out, "# entry with FREEZE\n%x\n# entry with THAW\n%x\n# entry with SUBSUME\n%x\n", encodeBatch(t, freeze),
		encodeBatch(t, &shardpb.Command{Kind: shardpb.Kind_THAW, OperatorId: testOperator}), encodeBatch(t, subsume))
	locals := func(title string) {
		fmt.Fprintf(&out, "# %s\n", title)
		it, err := f.reader().NewIter(&pebble.IterOptions{LowerBound: []byte("l\x00"), UpperBound: []byte("m\x00")})
		require.NoError(t, err)
		for it.First(); it.Valid(); it.Next() {
			fmt.Fprintf(&out, "%x = %x\n", it.Key(), it.Value())
		}
		require.NoError(t, it.Close())
	}
	f.turn(right.ID)
	require.NoError(t, f.apply(freeze)[0].Err)
	locals("after FREEZE")
	f.turn(testShard)
	require.NoError(t, f.apply(subsume)[0].Err)
	locals("after SUBSUME")

	want, err := os.ReadFile("testdata/merge.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
}
