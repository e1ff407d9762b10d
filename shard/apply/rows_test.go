package apply_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// V7: whoever reads single keys beside the writer, at the latest revision and at earlier
// ones, gets what the engine has; what was read before stays in memory only until it is
// written again.
func TestRowsAreTheEnginesBesideUpdates(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	key := func(i int) []byte { return fmt.Appendf(nil, "key-%d", i) }
	const keys, updates = 4, 3000
	done := make(chan struct{})
	var readers sync.WaitGroup
	var found atomic.Int64 // in memory, which some have to be
	for seed := range uint64(3) {
		readers.Go(func() {
			r := randomOf(seed)
			earlier := f.machine.View().Rev
			for {
				select {
				case <-done:
					return
				default:
				}
				view := f.machine.View()
				at := view.Rev
				if r.IntN(4) == 0 {
					at = earlier
				}
				earlier = view.Rev
				span := shard.PointSpan(key(r.IntN(keys)))
				got, err := f.machine.FetchSpan(span, at, mvccAll)
				if err != nil {
					t.Error(err)
					return
				}
				if held, ok := f.machine.GetHeld(span.Start, view); ok && at == view.Rev {
					got = listing.Fetched{KVs: held.Kvs, Count: held.Count}
					found.Add(1)
				}
				want, err := mvcc.Fetch(f.reader(), span, at, mvccAll)
				if err != nil || got.Count != want.Count || fmt.Sprint(got.KVs) != fmt.Sprint(want.KVs) {
					t.Errorf("%s at %s: got %v, the engine has %v, %v", span, at, got.KVs, want.KVs, err)
					return
				}
			}
		})
	}
	r := randomOf(9)
	for i := 0; i < updates || found.Load() == 0; i++ { // readers may get no turn for long
		if k := key(r.IntN(keys)); r.IntN(4) == 0 {
			f.apply(command(t, shardpb.Kind_DELETE_RANGE, 0, &pb.DeleteRangeRequest{Key: k}))
		} else {
			f.put(string(k), fmt.Sprint("value-", i))
		}
	}
	close(done)
	readers.Wait()
}
