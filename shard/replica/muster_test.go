package replica

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

// crowd are clients whose commands start at a muster's ticks.
type crowd struct {
	muster  muster
	spacing time.Duration
	work    sync.WaitGroup
	stop    chan struct{}

	mu struct {
		sync.Mutex
		ticks map[time.Time]int // commands that started at each
	}
}

func newCrowd(spacing time.Duration) *crowd {
	c := &crowd{spacing: spacing, stop: make(chan struct{})}
	c.mu.ticks = make(map[time.Time]int)
	return c
}

// start waits for a tick, and counts the command that starts there.
func (c *crowd) start() {
	<-c.muster.next(c.spacing)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.ticks[time.Now()]++
}

// ask has n clients send one command after the other, each as soon as it has the answer to the one before, which takes that long
// from its tick on.
func (c *crowd) ask(n int, answer time.Duration) {
	for range n {
		c.work.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
				}
				c.muster.enter()
				c.start()
				bubble.Pass(answer)
				c.muster.leave(1)
			}
		})
	}
}

// send has a command come that often, whether others are answered or not, each answered that long after its tick.
func (c *crowd) send(every, answer time.Duration) {
	c.work.Go(func() {
		for {
			select {
			case <-c.stop:
				return
			case <-time.After(every):
			}
			c.muster.enter()
			c.work.Go(func() {
				c.start()
				bubble.Pass(answer)
				c.muster.leave(1)
			})
		}
	})
}

// during returns the mean time between the ticks of some time, and how many commands started at each.
func (c *crowd) during(d time.Duration) (apart time.Duration, commands float64) {
	c.mu.Lock()
	clear(c.mu.ticks)
	c.mu.Unlock()
	bubble.Pass(d)
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	ticks := slices.SortedFunc(maps.Keys(c.mu.ticks), time.Time.Compare)
	for _, n := range c.mu.ticks {
		commands += float64(n)
	}
	last := len(ticks) - 1
	return ticks[last].Sub(ticks[0]) / time.Duration(last), commands / float64(len(ticks))
}

func (c *crowd) end() {
	close(c.stop)
	c.work.Wait()
}

// Clients who have nothing to do but wait for the tick do not wait for the clock.
func TestTheTickComesWhenEverybodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(50 * time.Millisecond)
		c.ask(30, 20*time.Millisecond)
		c.during(time.Second)
		apart, commands := c.during(time.Second)
		require.Equal(t, 20*time.Millisecond+musterSlack, apart)
		require.Equal(t, 30., commands)
		require.True(t, c.muster.early())
		c.end()
	})
}

// Some clients get their answers later. The tick waits for them, too: without them there would be twice as many batches.
func TestTheTickWaitsForThoseWhoAreStillAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(50 * time.Millisecond)
		c.ask(15, 10*time.Millisecond)
		c.ask(15, 30*time.Millisecond)
		c.during(time.Second)
		apart, commands := c.during(3 * time.Second)
		require.Equal(t, 30*time.Millisecond+musterSlack, apart)
		require.Equal(t, 30., commands)
		c.end()
	})
}

// Commands that come at times of their own, and answers that take longer than a tick, leave the tick to the clock.
func TestTheTickFollowsTheClock(t *testing.T) {
	for _, answer := range []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 120 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(50 * time.Millisecond)
			c.send(250*time.Microsecond, answer)
			c.during(time.Second)
			c.muster.early() // at first it does not know how many to expect
			apart, _ := c.during(time.Second)
			require.Equal(t, 50*time.Millisecond, apart, answer)
			require.False(t, c.muster.early())
			c.end()
			for at := range c.mu.ticks {
				require.Zero(t, at.UnixNano()%int64(c.spacing), "ticks of nodes whose clocks agree are the same")
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(50 * time.Millisecond)
		c.ask(30, 120*time.Millisecond)
		c.during(time.Second)
		apart, _ := c.during(time.Second)
		require.GreaterOrEqual(t, apart, 50*time.Millisecond)
		c.end()
	})
}

// Clients that leave are waited for a few times; then the tick comes with the last of those who are left.
func TestTheTickForgetsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(50 * time.Millisecond)
		c.ask(100, 20*time.Millisecond)
		c.during(time.Second)
		c.end()
		c.stop = make(chan struct{})
		c.ask(3, 20*time.Millisecond)
		c.during(2 * time.Second)
		apart, commands := c.during(time.Second)
		require.Equal(t, 20*time.Millisecond+musterSlack, apart)
		require.Equal(t, 3., commands)
		c.end()
	})
}

// A tick is never sooner than musterMin after the last one, and never later than one and a half spacings, whatever the clock does.
func TestTheTickIsNear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m muster
		const spacing = 50 * time.Millisecond
		m.enter()
		<-m.next(spacing)
		for i := range 200 {
			last := time.Now()
			if i%3 == 0 {
				bubble.Pass(time.Duration(i) * time.Millisecond)
			}
			for range i % 5 {
				m.enter()
				m.leave(1)
			}
			asked := time.Now()
			<-m.next(spacing)
			require.GreaterOrEqual(t, time.Since(last), musterMin)
			require.LessOrEqual(t, time.Since(asked), spacing*3/2)
		}
	})
}

// Another node's batches bring the tick forward if most of this node's commands are there.
func TestNodesStartTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m muster
		const spacing, commands = 50 * time.Millisecond, 100
		expect := func() { // some ticks at which that many were there
			for range 30 {
				m.peak.Store(commands)
				<-m.next(spacing)
			}
			synctest.Wait()
		}
		come := func(n int) {
			for range n {
				m.enter()
				m.leave(1)
			}
		}
		for _, there := range []int{0, 10, 70, 76, 90} {
			expect()
			bubble.Pass(10 * time.Millisecond)
			m.join() // nobody waits
			began, reached := time.Now(), m.next(spacing)
			come(there)
			m.join()
			<-reached
			if there >= 75 {
				require.Equal(t, musterSlack, time.Since(began), there)
			} else {
				require.Greater(t, time.Since(began), musterSlack, there)
			}
		}
	})
}

// Entries that arrive are another node's batches; what else Raft sends is not.
func TestBatchesOfOtherNodesAreNoticed(t *testing.T) {
	noticed, arrived, end := 0, 0, &wireEnd{}
	d := &doorway{TransportFactory: end, entries: func() { noticed++ }}
	d.Create(config.NodeHostConfig{}, func(raftpb.MessageBatch) { arrived++ }, nil)
	commit := raftpb.Message{Type: raftpb.Replicate, Commit: 7}
	entries := raftpb.Message{Type: raftpb.Replicate, Entries: make([]raftpb.Entry, 1)}
	end.messages(raftpb.MessageBatch{Requests: []raftpb.Message{{Type: raftpb.Heartbeat}, {Type: raftpb.ReplicateResp}, commit}})
	require.Zero(t, noticed)
	end.messages(raftpb.MessageBatch{Requests: []raftpb.Message{commit, entries, entries}})
	require.Equal(t, 1, noticed)
	require.Equal(t, 2, arrived)
}

// A command is under way until it has its outcome, whatever that is.
func TestCommandsAreUnderWayUntilTheirOutcome(t *testing.T) {
	gate := &gatedSource{came: make(chan struct{}, 1)}
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { gate.RevisionSource, c.Source = c.Source, gate })
	defer func() { p.close() }()
	p.startNew()
	p.put("a", "1")
	p.source.Distrust("it is an hour late")
	require.ErrorIs(t, p.propose(putCommand("a", "2")).Err, shard.ErrClockUntrusted)
	p.source.Trust()
	require.Zero(t, p.host.muster.pending.Load())
	gate.Lock() // nothing is applied
	outcome := make(chan shard.Result, 1)
	p.replica.Propose(putCommand("a", "3"), func(r shard.Result) { outcome <- r })
	require.EqualValues(t, 1, p.host.muster.pending.Load())
	gate.Unlock()
	require.NoError(t, (<-outcome).Err)
	require.Zero(t, p.host.muster.pending.Load())
}

// A node's tempo hears of the ticks of its own muster.
func TestTheTempoIsToldOfTicks(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	p.host.tempo.early() // of the ticks that there were
	<-p.host.muster.next(time.Millisecond)
	require.False(t, p.host.tempo.early())
}
