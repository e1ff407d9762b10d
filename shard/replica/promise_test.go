package replica

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/hlc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// promiseWorld is a proposer's promises with what surrounds them: a clock that stands still,
// a log that takes what it is told to.
type promiseWorld struct {
	*promises
	t        *testing.T
	tick     shard.Tick
	now      shard.View
	sequence uint64
	proposed []*shardpb.Command
	done     []func(shard.Result)
	told     []shard.Revision // promises given
	failed   []error
}

func (w *promiseWorld) Stamp() (shard.Tick, error) { return w.tick, nil }
func (w *promiseWorld) Now() shard.Tick            { return w.tick }
func (w *promiseWorld) Observe(shard.Revision)     {}

func newPromiseWorld(t *testing.T) *promiseWorld {
	w := &promiseWorld{t: t, tick: 1000, now: shard.View{Descriptor: &shard.Descriptor{ID: 2, Epoch: 1}}}
	w.promises = &promises{id: 2, node: 1, incarnation: 9, source: w, view: func() shard.View { return w.now }, metrics: NewMetrics(prometheus.NewRegistry())}
	w.propose = func(cmd *shardpb.Command, done func(shard.Result)) {
		w.proposed, w.done = append(w.proposed, cmd), append(w.done, done)
	}
	return w
}

func (w *promiseWorld) wish(floor shard.Revision) {
	w.ask(promise{epoch: 1, floor: floor, done: func(_ shard.View, err error) {
		if err != nil {
			w.failed = append(w.failed, err)
			return
		}
		w.told = append(w.told, floor)
	}})
}

// fly launches a batch of a command.
func (w *promiseWorld) fly(cmd *shardpb.Command) (shard.Tick, uint64) {
	w.sequence++
	stamp, reservation, err := w.launch(w.sequence, []pending{{cmd: cmd}})
	require.NoError(w.t, err)
	return stamp, reservation
}

// reserve has the log take what was proposed last.
func (w *promiseWorld) commit() {
	cmd, done := w.proposed[len(w.proposed)-1], w.done[len(w.done)-1]
	w.fly(cmd)
	w.now.Floor = max(w.now.Floor, shard.Revision(cmd.Revision))
	w.now.Reserved = &shard.Reservation{Until: shard.Revision(cmd.Reserve), Node: 1, Incarnation: 9, Sequence: w.sequence}
	done(shard.Result{})
	w.landed(false)
}

func put() *shardpb.Command { return &shardpb.Command{Kind: shardpb.Kind_PUT} }

// The first promise takes an entry of the log, which closes the shard for it. Those that
// follow take none as long as the reservation reaches, which is made longer in time. What is
// stamped later is above all of them.
func TestPromisesTakeOneEntryForMany(t *testing.T) {
	w := newPromiseWorld(t)
	at := func(tick shard.Tick) shard.Revision { return tick.Revision() }
	ahead := shard.ReserveAhead
	w.wish(at(1000))
	require.Empty(t, w.told)
	require.Len(t, w.proposed, 1)
	require.Equal(t, int64(at(1000)), w.proposed[0].Revision)
	w.wish(at(1001))
	require.Len(t, w.proposed, 1, "one at a time")
	w.commit()
	require.Equal(t, []shard.Revision{at(1000), at(1001)}, w.told)
	for tick := shard.Tick(1002); tick < 1000+ahead/2; tick += 10 {
		w.tick = tick
		w.wish(at(tick))
		require.Len(t, w.proposed, 1)
		require.Equal(t, at(tick), w.told[len(w.told)-1])
	}
	stamp, reservation := w.fly(put())
	require.Greater(t, stamp.Revision(), w.told[len(w.told)-1])
	require.Equal(t, uint64(1), reservation)
	w.landed(false)

	w.tick = 1000 + ahead/2 + 20
	w.wish(at(1000 + ahead/2 + 20))
	require.Equal(t, at(1000+ahead/2+20), w.told[len(w.told)-1], "it need not wait")
	require.Len(t, w.proposed, 2, "for the longer one")
	w.commit()
	w.wish(at(1000 + ahead + 10))
	require.Equal(t, at(1000+ahead+10), w.told[len(w.told)-1])
	require.Len(t, w.proposed, 2)
	w.wish(at(1000 + 9*ahead))
	require.Equal(t, at(1000+ahead+10), w.told[len(w.told)-1], "others may mint that")
	require.Len(t, w.proposed, 3)

	var reserved, given dto.Metric
	require.NoError(t, w.metrics.reservations.Write(&reserved))
	require.NoError(t, w.metrics.promised.(prometheus.Metric).Write(&given))
	require.Equal(t, float64(3), reserved.GetCounter().GetValue())
	require.Equal(t, uint64(len(w.told)), given.GetHistogram().GetSampleCount())
}

// R6: what is wished may be ahead of the clock, after others have taken over a reservation. Then
// no more than that is reserved: with each further change of leaders revisions would run away.
func TestReservationsStayNearTheClock(t *testing.T) {
	w := newPromiseWorld(t)
	floor := (w.tick + 9*shard.ReserveAhead).Revision()
	w.wish(floor)
	require.Equal(t, int64(floor), w.proposed[0].Reserve)
	w.commit()
	require.Equal(t, []shard.Revision{floor}, w.told)
	require.Len(t, w.proposed, 1, "nor is it made longer before the clock comes near")

	w = newPromiseWorld(t)
	w.wish((w.tick - 5).Revision())
	require.Equal(t, int64((w.tick + shard.ReserveAhead).Revision()), w.proposed[0].Reserve)
}

// P12: a batch under way holds up what it may still mint, and nothing else.
func TestPromisesWaitForBatches(t *testing.T) {
	w := newPromiseWorld(t)
	w.wish(1)
	w.commit()
	w.told = nil
	w.fly(put()) // stamped 1000
	w.wish(shard.Tick(999).Revision() + 255)
	require.Len(t, w.told, 1, "it is above that")
	w.wish(shard.Tick(1000).Revision())
	require.Len(t, w.told, 1)
	w.landed(false)
	require.Len(t, w.told, 2)
	w.fly(&shardpb.Command{Kind: shardpb.Kind_CLOSE})
	w.wish(shard.Tick(1005).Revision())
	require.Len(t, w.told, 3, "a close mints nothing")
	w.landed(false)
}

// P12: once an outcome is not known, a batch may come at any time, and nothing is promised any more
// before others are bound anew: by an entry that comes after whatever ends the old reservation.
func TestPromisesAfterALostBatch(t *testing.T) {
	w := newPromiseWorld(t)
	w.wish(1)
	w.commit()
	w.fly(put())
	w.landed(true)
	w.told = nil
	w.wish(shard.Tick(1000).Revision())
	require.Empty(t, w.told)
	_, reservation := w.fly(put())
	require.Zero(t, reservation, "it is like anybody's")
	w.landed(false)
	w.now.Reserved = nil
	w.commit()
	require.Len(t, w.told, 1)
}

// A reservation of another process, node or batch is none of this one's.
func TestPromisesOfOthers(t *testing.T) {
	for _, other := range []shard.Reservation{{Node: 2, Incarnation: 9, Sequence: 1}, {Node: 1, Incarnation: 8, Sequence: 1}, {Node: 1, Incarnation: 9, Sequence: 7}} {
		w := newPromiseWorld(t)
		w.wish(1)
		w.commit()
		w.told = nil
		other.Until = shard.Tick(1 << 30).Revision()
		w.now.Reserved = &other
		w.wish(shard.Tick(1000).Revision())
		require.Empty(t, w.told)
		require.Len(t, w.proposed, 2)
		w.done[1](shard.Result{Err: shard.ErrUnavailable})
		require.ErrorIs(t, w.failed[0], shard.ErrUnavailable)
	}
	w := newPromiseWorld(t)
	w.ask(promise{epoch: 3, floor: 1, done: func(_ shard.View, err error) { w.failed = append(w.failed, err) }})
	var wrong *shard.WrongShardError
	require.ErrorAs(t, w.failed[0], &wrong)
	require.Empty(t, w.proposed)
}

// Promises of a real replica: feeds hear of them, and writes that come later are above.
// Another process, which knows nothing of them, keeps them.
func TestPromisesAreKept(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	var promised shard.Revision
	promise := func(ahead shard.Tick) uint64 {
		t.Helper()
		promised = (p.replica.View().Floor.Tick() + ahead).Revision()
		given := make(chan shard.View, 1)
		p.replica.Promise(1, promised, func(v shard.View, err error) {
			require.NoError(t, err)
			given <- v
		})
		v := <-given
		require.NoError(t, p.replica.Heed(context.Background(), promised, v.Applied))
		return v.Applied
	}
	f := &follower{t: t, through: p.replica.View().Rev}
	f.follow(p.replica)
	first := promise(10)
	require.NoError(t, f.until(promised))
	for range 10 {
		require.Equal(t, first, promise(100), "no entry of the log")
		require.NoError(t, f.until(promised))
	}
	require.Less(t, p.replica.View().Floor, promised)
	rev := p.put("k", "1")
	require.Greater(t, rev, promised)
	require.NoError(t, f.until(rev))
	promise(2000)
	require.NoError(t, f.until(promised))
	p.close()

	p = openProcessWith(t, dir, 2, func(c *HostConfig) { c.Source = hlc.NewHybrid(&handClock{}) })
	defer func() { p.close() }()
	p.start()
	rev = p.put("k", "2")
	require.Greater(t, rev, promised, "though its clock is behind")
	f.follow(p.replica)
	require.NoError(t, f.until(rev))
	require.Equal(t, []string{"1", "2"}, f.values)
}
