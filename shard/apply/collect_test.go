package apply_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func (f *fixture) compact(rev shard.Revision) {
	f.t.Helper()
	require.NoError(f.t, f.apply(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(rev)})[0].Err)
}

func (f *fixture) remove(key string) {
	require.NoError(f.t, f.apply(command(f.t, shardpb.Kind_DELETE_RANGE, 0, &pb.DeleteRangeRequest{Key: []byte(key)}))[0].Err)
}

// left is how many versions the store has that nobody can read any more.
func (f *fixture) left() int {
	f.t.Helper()
	b := f.engine.NewBatch()
	defer b.Close()
	out, err := mvcc.Collect(f.reader(), b, shard.Everything(), 0, f.machine.View().Compacted, nil, mvcc.CollectLimits{})
	require.NoError(f.t, err)
	return out.Dropped
}

func (f *fixture) count() int64 {
	f.t.Helper()
	resp, err := f.machine.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}, 0)
	require.NoError(f.t, err)
	return resp.Count
}

// collect does one step.
func (f *fixture) collect(drops int) apply.Collection {
	f.t.Helper()
	step, err := f.machine.Collect(mvcc.CollectLimits{Drops: drops})
	require.NoError(f.t, err)
	return step
}

// A walk that is interrupted by restarts goes on where it was and ends once.
func TestCollectGoesOnAfterARestart(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	require.False(t, f.collect(1).Ran, "nothing was compacted")
	const keys = 60
	for round := range 5 {
		for k := range keys {
			f.put(fmt.Sprintf("k%02d", k), fmt.Sprint(round))
		}
	}
	f.compact(f.machine.View().Rev)
	garbage := f.left()
	require.Equal(t, 4*keys-1, garbage) // a watch from the compacted revision shows what the last put replaced

	dropped, looked := 0, 0
	for {
		f.restart()
		step := f.collect(7)
		require.True(t, step.Ran)
		dropped, looked = dropped+step.Dropped, looked+step.Versions
		require.Equal(t, garbage-dropped, f.left())
		if step.Done {
			break
		}
		require.Zero(t, f.machine.Collected())
	}
	require.Equal(t, garbage, dropped)
	require.Less(t, looked, 2*5*keys, "restarts make it begin anew")
	require.Equal(t, f.machine.View().Compacted, f.machine.Collected())
	f.restart()
	require.False(t, f.collect(7).Ran, "a restart forgets that all is done")

	f.put("k30", "again")
	f.compact(f.machine.View().Rev)
	step := f.collect(0)
	require.True(t, step.Done)
	require.Zero(t, f.left())
	require.EqualValues(t, keys, f.count())
}

// A snapshot that comes in brings back what was dropped. The walk starts over: one that
// went on would leave garbage for ever, and drop the end of a history, tombstone
// included, of which the beginning is back.
func TestCollectMeetsASnapshot(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	for i := range 20 {
		f.put("a", fmt.Sprint(i))
		f.put("b", fmt.Sprint(i))
	}
	f.remove("a")
	f.put("c", "")
	f.compact(f.machine.View().Rev)
	garbage := f.left()
	sent := f.snapshot()

	for _, steps := range []int{0, 1, 3, 9, 100} {
		for range steps {
			f.collect(3)
			require.EqualValues(t, 2, f.count())
		}
		require.NoError(t, f.machine.Install(func() error {
			require.False(t, f.collect(3).Ran, "no step while data is being replaced")
			return sent.restore()
		}))
		require.Zero(t, f.machine.Collected())
		require.Equal(t, garbage, f.left())
	}
	f.restart()
	require.Zero(t, f.machine.Collected())
	for f.collect(3).Ran {
		require.EqualValues(t, 2, f.count())
	}
	require.Zero(t, f.left())

	require.ErrorContains(t, f.machine.Install(func() error { return errors.New("broken stream") }), "broken stream")
	require.Equal(t, f.machine.View().Compacted, f.machine.Collected(), "nothing was replaced")
	f.put("c", "again")
	f.compact(f.machine.View().Rev)
	f.machine.Close()
	require.False(t, f.collect(3).Ran, "somebody else may have the span by now")
}

// sentSnapshot is a copy of the fixture's span and state.
type sentSnapshot struct {
	f     *fixture
	state []byte
	data  []version
}

type version struct {
	key   string
	rev   shard.Revision
	value []byte
}

func (f *fixture) snapshot() *sentSnapshot {
	state, err := apply.MarshalState(f.machine.View())
	require.NoError(f.t, err)
	s := &sentSnapshot{f: f, state: state}
	it, err := f.reader().NewIter(nil)
	require.NoError(f.t, err)
	for it.First(); it.Valid(); it.Next() {
		if key, rev, ok := engine.DecodeDataKey(it.Key()); ok {
			s.data = append(s.data, version{string(key), rev, append([]byte(nil), it.Value()...)})
		}
	}
	require.NoError(f.t, it.Close())
	return s
}

func (s *sentSnapshot) restore() error {
	_, records, err := s.f.machine.Received(s.state)
	require.NoError(s.f.t, err)
	return s.f.engine.Replace(shard.Everything(), func(w *engine.SSTWriter) error {
		for _, v := range s.data {
			if err := w.Put([]byte(v.key), v.rev, v.value); err != nil {
				return err
			}
		}
		return nil
	}, records...)
}

// Readers, writers, compactions and collection at the same time: what may be read at a
// revision reads as it was written.
func TestCollectBesideEverythingElse(t *testing.T) {
	const writes, keys = 1500, 5
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	var mu sync.Mutex
	written := map[shard.Revision]string{} // of the one key written at the revision
	var revs []shard.Revision
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() { // the apply worker
		defer close(done)
		for i := range writes {
			rev := f.put(fmt.Sprintf("k%d", i%keys), fmt.Sprint(i)).Revision
			mu.Lock()
			written[rev], revs = fmt.Sprint(i), append(revs, rev)
			old := revs[max(0, len(revs)-20)]
			mu.Unlock()
			if i%50 == 49 {
				f.compact(old)
			}
		}
	})
	work.Go(func() {
		for {
			last := false
			select {
			case <-done:
				last = true // nothing is compacted any more
			default:
			}
			step, err := f.machine.Collect(mvcc.CollectLimits{Drops: 5})
			if err != nil {
				t.Error(err)
				return
			}
			if last && !step.Ran {
				return
			}
		}
	})
	work.Go(func() {
		random := randomOf(1)
		for {
			select {
			case <-done:
				return
			default:
			}
			mu.Lock()
			if len(revs) == 0 {
				mu.Unlock()
				continue
			}
			n := max(0, len(revs)-1-random.IntN(40))
			rev, want, key := revs[n], written[revs[n]], fmt.Sprintf("k%d", n%keys)
			mu.Unlock()
			resp, err := f.machine.Range(&pb.RangeRequest{Key: []byte(key)}, rev)
			switch {
			case errors.Is(err, shard.ErrCompacted):
			case err != nil:
				t.Error(err)
				return
			case len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != want:
				t.Errorf("key %s at revision %s: want %s, read %v", key, rev, want, resp.Kvs)
				return
			}
		}
	})
	work.Wait()
	require.Zero(t, f.left())
	require.Equal(t, f.machine.View().Compacted, f.machine.Collected())
}

// What is written down of a walk under way, and of one that is over.
func TestCollectionRecordBytes(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	for range 4 {
		f.put("a", "")
	}
	f.put("b", "")
	record := func() string {
		data, err := f.engine.Local(testShard, testReplica, apply.CollectionKind)
		require.NoError(t, err)
		return hex.EncodeToString(data)
	}
	require.Empty(t, record())
	f.compact(f.machine.View().Rev)
	require.True(t, f.collect(1).Ran)
	require.Equal(t, "0801188708220161", record())
	for f.collect(1).Ran {
	}
	require.Equal(t, "0801108708", record())
}
