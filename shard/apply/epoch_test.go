package apply_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// A7: a command routed by another map changes nothing. In a cluster the planted bug shows
// only when a split meets writes under way; here it always does.
func TestStaleEpochChangesNothing(t *testing.T) {
	for _, planted := range []bool{false, true} {
		f := newFixture(t)
		if planted {
			var err error
			f.machine, err = apply.Open(f.engine, testShard, testReplica, apply.Options{
				Headers: mvcc.NewHeaderBudget(0, 4, 512<<10), Knobs: apply.Knobs{AnyEpoch: true},
			})
			require.NoError(t, err)
		}
		f.apply(initCommand(shard.Everything()))
		before := f.machine.View().Rev
		stale := command(t, shardpb.Kind_PUT, 1, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
		stale.Epoch--
		result := f.apply(stale)[0]
		var wrong *shard.WrongShardError
		refused := errors.As(result.Err, &wrong) && f.machine.View().Rev == before
		require.Equal(t, !planted, refused, "planted: %v", planted)
	}
}
