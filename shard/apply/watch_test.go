package apply_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// watcher is a feed that a test holds.
type watcher struct {
	*watch.Subscription
	o      watch.Options
	called int
	// onReady is called besides.
	onReady func()
	got     []*mvccpb.Event
	// through is what the last Poll told.
	through shard.Revision
}

func (f *fixture) watch(o watch.Options) *watcher {
	w := &watcher{onReady: func() {}}
	o.Epoch, o.Ready = testEpoch, func() {
		w.called++
		w.onReady()
	}
	w.o = o
	var err error
	w.Subscription, err = f.machine.Subscribe(o)
	require.NoError(f.t, err)
	return w
}

// poll takes all there is.
func (w *watcher) poll() error {
	for {
		w.called = 0
		got, err := w.Poll(7)
		if err != nil {
			return err
		}
		w.got = append(w.got, got.Events...)
		w.through = got.Through
		if w.called == 0 {
			return nil
		}
	}
}

// stored lists what the store has of the span, from a revision on.
func (f *fixture) stored(span shard.Span, from shard.Revision, prevKV bool) []*mvccpb.Event {
	events, _, err := mvcc.NewTrails(1<<20).Events(f.reader(), span, from-1, f.machine.View().Floor, mvcc.EventsOptions{PrevKV: prevKV}, func() error { return nil })
	require.NoError(f.t, err)
	return events
}

func requireEvents(t testing.TB, want, got []*mvccpb.Event, msg ...any) {
	t.Helper()
	require.Len(t, got, len(want), msg...)
	for i := range want {
		require.True(t, proto.Equal(want[i], got[i]), "event %d: %v instead of %v", i, got[i], want[i])
	}
}

// watch.W7: a change looks the same whether it was told when it was applied or is read
// from the store later. And A1: how entries were grouped and who watched makes no
// difference to what is told and to what is stored.
func TestEventsAreWhatIsStored(t *testing.T) {
	g := seeded(t)
	log := g.logOf(150)
	unwatched := newFixture(t)
	for _, cmds := range log {
		unwatched.apply(cmds...)
	}
	for _, group := range []int{1, 10, len(log)} {
		t.Run(fmt.Sprint(group), func(t *testing.T) {
			f := newFixture(t)
			f.apply(log[0]...)
			span := shard.Span{Start: []byte("b"), End: []byte("y")}
			from := f.machine.View().Floor + 1
			var watchers []*watcher
			for _, o := range []watch.Options{
				{Span: span, From: from, PrevKV: true},
				{Span: span, From: from},
				{Span: shard.PointSpan([]byte("c")), From: from, PrevKV: true},
			} {
				watchers = append(watchers, f.watch(o))
			}
			for next := 1; next < len(log); {
				last := min(len(log), next+1+g.IntN(group))
				var entries []apply.Entry
				for ; next < last; next++ {
					entries = append(entries, f.entry(log[next]...))
				}
				require.NoError(t, f.machine.Update(entries, nil))
				for i, w := range watchers {
					if g.oneIn(2) {
						require.NoError(t, w.poll(), "watcher %d", i)
					}
				}
			}
			require.Equal(t, unwatched.hash(), f.hash(), "what is watched decides nothing")
			for _, w := range watchers {
				require.NoError(t, w.poll())
				require.Equal(t, f.machine.View().Floor, w.through)
				requireEvents(t, f.stored(w.o.Span, from, w.o.PrevKV), w.got)
				w.Close()
			}
		})
	}
}

// watch.W4: who asks for previous values gets them also of changes that were told before
// anybody did, and who does not ask does not get them.
func TestPreviousValuesOnlyForWhoAsks(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	from := f.put("a", "1").Revision + 1
	plain := f.watch(watch.Options{Span: shard.Everything(), From: from})
	f.put("a", "2")
	full := f.watch(watch.Options{Span: shard.Everything(), From: from, PrevKV: true})
	f.put("a", "3")
	require.NoError(t, plain.poll())
	require.NoError(t, full.poll())
	requireEvents(t, f.stored(shard.Everything(), from, false), plain.got)
	requireEvents(t, f.stored(shard.Everything(), from, true), full.got)
	require.Equal(t, "2", string(full.got[1].PrevKv.Value))
}

// watch.W5: a watch may begin at the compacted revision and not below; and one that a
// compaction overtakes while it is not in memory is told so.
func TestWatchesAndCompaction(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	var revs []shard.Revision
	for i := range 6 {
		revs = append(revs, f.put("a", fmt.Sprint(i)).Revision)
	}
	overtaken := f.watch(watch.Options{Span: shard.Everything(), From: revs[0]})
	compact := func(at shard.Revision) {
		f.apply(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(at)})
		b := f.engine.NewBatch()
		_, err := mvcc.Collect(f.reader(), b, shard.Everything(), 0, at, nil, mvcc.CollectLimits{})
		require.NoError(t, err)
		require.NoError(t, f.engine.Commit(b))
		require.NoError(t, b.Close())
	}
	compact(revs[3])
	below := f.watch(watch.Options{Span: shard.Everything(), From: revs[3] - 1})
	at := f.watch(watch.Options{Span: shard.Everything(), From: revs[3], PrevKV: true})
	for _, w := range []*watcher{overtaken, below} {
		require.Positive(t, w.called)
		var compacted *shard.CompactedError
		require.ErrorAs(t, w.poll(), &compacted)
		require.Equal(t, revs[3], compacted.Compacted)
	}
	require.NoError(t, at.poll())
	require.Len(t, at.got, 3)
	require.Equal(t, "2", string(at.got[0].PrevKv.Value))
}

// A watch lives through the installation of a snapshot: it goes on in the new history,
// or is told that what it misses is not in it.
func TestWatchesAndInstall(t *testing.T) {
	from := newFixture(t)
	from.apply(initCommand(shard.Everything()))
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	first := f.put("a", "1").Revision
	require.Equal(t, first, from.put("a", "1").Revision)
	going := f.watch(watch.Options{Span: shard.Everything(), From: first})
	late := f.watch(watch.Options{Span: shard.Everything(), From: first})
	require.NoError(t, going.poll())

	from.put("b", "1")
	from.put("b", "2")
	from.apply(&shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(first + 1)})
	during := make(chan error, 1)
	require.NoError(t, f.machine.Install(func() error {
		f.takeOver(from)
		w := f.watch(watch.Options{Span: shard.Span{Start: []byte("a")}, From: first}) // a span that no answer is kept for
		during <- w.poll()
		return nil
	}))
	require.ErrorIs(t, <-during, shard.ErrUnavailable, "history is neither the old nor the new one")

	require.Positive(t, going.called)
	require.NoError(t, going.poll())
	requireEvents(t, f.stored(shard.Everything(), first, false), going.got)
	require.Len(t, going.got, 3)
	require.Equal(t, f.machine.View().Floor, going.through)
	require.ErrorIs(t, late.poll(), shard.ErrCompacted)

	f.index = from.index
	f.put("c", "1")
	require.NoError(t, going.poll())
	require.Len(t, going.got, 4)
}

// takeOver replaces everything by what another replica has, as a snapshot does.
func (f *fixture) takeOver(from *fixture) {
	events := from.stored(shard.Everything(), 1, false)
	state, err := apply.MarshalState(from.machine.View())
	require.NoError(f.t, err)
	b := f.engine.NewBatch()
	w := mvcc.NewWriter(f.reader(), mvcc.NewHeaderCache(mvcc.NewHeaderBudget(0, 1, 0)))
	for _, e := range events {
		if shard.Revision(e.Kv.ModRevision) <= f.machine.View().Rev {
			continue // is here already
		}
		w.Begin(shard.Revision(e.Kv.ModRevision))
		prev, err := w.Find(e.Kv.Key)
		require.NoError(f.t, err)
		require.NoError(f.t, w.Put(e.Kv.Key, e.Kv.Value, e.Kv.Lease, prev))
	}
	require.NoError(f.t, b.Set(engine.LocalKey(testShard, testReplica, apply.StateKind), state, nil))
	require.NoError(f.t, w.Store(b))
	require.NoError(f.t, f.engine.Commit(b))
	w.Finish()
	require.NoError(f.t, b.Close())
}

// When the results of a command are there, those who watch can already be given what it
// did: the order is commit, View, Publish, results.
func TestEventsComeBeforeResults(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	w := f.watch(watch.Options{Span: shard.Everything(), From: 1})
	require.NoError(t, w.poll())
	w.onReady = func() {
		resp, err := f.machine.Range(&pb.RangeRequest{Key: []byte("a")}, 0)
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1, "ready before the View")
	}
	rev := f.put("a", "1").Revision
	require.Positive(t, w.called)
	require.NoError(t, w.poll())
	require.Equal(t, rev, w.through)
}

// Nothing is told after the machine has closed, and nobody waits for it.
func TestCloseEndsWatches(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	w := f.watch(watch.Options{Span: shard.Everything(), From: f.machine.View().Floor + 1})
	f.machine.Close()
	require.Positive(t, w.called)
	require.ErrorIs(t, w.poll(), shard.ErrStopped)
	_, err := f.machine.Subscribe(watch.Options{Epoch: testEpoch, Span: shard.Everything(), From: 1, Ready: func() {}})
	require.ErrorIs(t, err, shard.ErrStopped)
}

// A split ends the feeds of the keys that it gives away, after all that came before it,
// and tells of both shards. The others go on; the child takes up where the feed ended.
func TestSplitEndsFeeds(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	stays := f.watch(watch.Options{Span: shard.Span{End: []byte("m")}, From: 1})
	goes := f.watch(watch.Options{Span: shard.Span{Start: []byte("p")}, From: 1})
	both := f.watch(watch.Options{From: 1})
	f.put("a", "1")
	f.put("p", "1")
	split := splitCommand(f.machine.View().Descriptor, testChild, 8, "m")
	put := func(key, value string, epoch uint64) *shardpb.Command {
		cmd := command(t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
		cmd.Epoch = epoch
		return cmd
	}
	for _, r := range f.apply(put("p", "2", testEpoch), split, put("a", "2", testEpoch+1)) {
		require.NoError(t, r.Err)
	}
	require.NoError(t, stays.poll())
	require.Len(t, stays.got, 2)
	for _, w := range []*watcher{goes, both} {
		var wrong *shard.WrongShardError
		require.ErrorAs(t, w.poll(), &wrong)
		require.Len(t, wrong.Descriptors, 2)
		require.True(t, wrong.Descriptors[0].Span.Equal(shard.Span{End: []byte("m")}))
		require.Equal(t, testChild, wrong.Descriptors[1].ID)
	}
	_, err := f.machine.Subscribe(watch.Options{Epoch: testEpoch, Span: goes.o.Span, From: 1, Ready: func() {}})
	var wrong *shard.WrongShardError
	require.ErrorAs(t, err, &wrong)
	require.Len(t, wrong.Descriptors, 2)

	f.turn(testChild)
	_, err = f.machine.Subscribe(watch.Options{Epoch: testEpoch + 1, Span: goes.o.Span, From: 1, Ready: func() {}})
	require.ErrorIs(t, err, shard.ErrUnavailable, "before INIT")
	f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})
	f.apply(put("p", "3", testEpoch+1))
	follows := &watcher{onReady: func() {}}
	follows.Subscription, err = f.machine.Subscribe(watch.Options{
		Epoch: testEpoch + 1, Span: goes.o.Span, From: goes.through + 1, Ready: func() { follows.called++ },
	})
	require.NoError(t, err)
	require.NoError(t, follows.poll())
	var values []string
	for _, e := range append(goes.got, follows.got...) {
		values = append(values, string(e.Kv.Value))
	}
	require.Equal(t, []string{"1", "2", "3"}, values)
}
