package apply_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// A parent comes to its split so late that the child's replica on the node was replaced meanwhile, and is gone. What it
// would leave for that one must not keep other shards out: here the child's own child.
func TestNothingIsLeftForWhoIsGone(t *testing.T) {
	const grandchild = testChild + 1
	start := initCommand(shard.Everything())
	other := newNode(t, 2, vfs.NewMem())
	other.apply(start)
	split := splitCommand(other.machine.View().Descriptor, testChild, 8, "m")
	other.apply(split)
	other.turn(testChild)
	other.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})
	next := splitCommand(other.machine.View().Descriptor, grandchild, 9, "t")
	other.apply(next)
	other.turn(grandchild)
	other.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: next.Child})

	for _, gone := range []bool{true, false} {
		f := newFixture(t)
		f.gone = func(id shard.ID, replica shard.ReplicaID) (bool, error) {
			return gone && id == testChild && replica == 1, nil
		}
		f.restart()
		f.apply(start)
		f.apply(split)
		f.turn(grandchild)
		require.NoError(t, f.receive(other.stream()))
		require.Equal(t, !gone, f.machine.View().Poisoned)
	}
}
