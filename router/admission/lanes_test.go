package admission

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// busy has as many writes of a shard under way as it is given at first.
func busy(t *testing.T, l *Lanes, id shard.ID) []Turn {
	t.Helper()
	turns := make([]Turn, startUnder)
	for i := range turns {
		var err error
		turns[i], err = l.Enter(t.Context(), id)
		require.NoError(t, err)
	}
	return turns
}

// Q3: a write waits until one before it has been answered, and those that wait get their turns
// in the order in which they came.
func TestWritesWaitInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLanes(nil, Bounds{})
		under := busy(t, l, 2)
		var served []int
		for i := range 10 {
			go func() {
				if turn, err := l.Enter(t.Context(), 2); err == nil {
					served, under = append(served, i), append(under, turn) // one at a time
				}
			}()
			synctest.Wait()
		}
		require.Empty(t, served)
		for i := range 10 {
			under[i].Leave(io.EOF) // what failed does not raise the limit
			synctest.Wait()
			require.Len(t, served, i+1)
		}
		require.True(t, slices.IsSorted(served))

		turn, err := l.Enter(t.Context(), 3)
		require.NoError(t, err, "another shard has turns of its own")
		for _, turn := range append(under[10:], turn) {
			turn.Leave(nil)
		}
		require.Empty(t, l.mu.lanes, "nothing is kept of shards that are idle")
		require.Zero(t, l.mu.waiting)
	})
}

// Q3: writes that end as soon as it is their turn, thousands of them, end one after the other and not within
// each other.
func TestWritesThatEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLanes(nil, Bounds{})
		under := busy(t, l, 2)
		const writes = 5000
		depth, ended := 0, 0
		for range writes {
			l.Begin(2, time.Time{}, func(turn Turn, err error) {
				require.NoError(t, err)
				depth++
				require.Equal(t, 1, depth)
				turn.Leave(nil)
				ended++
				depth--
			})
		}
		require.Zero(t, ended)
		under[0].Leave(nil)
		require.Equal(t, writes, ended)
		for _, turn := range under[1:] {
			turn.Leave(nil)
		}
		require.Empty(t, l.mu.lanes)
	})
}

// Q4: who waits may leave, is sent away after WaitMax, and is not sent when there would be no
// time to answer. None of them takes a turn from others.
func TestWhoWaitsWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLanes(nil, Bounds{})
		under := busy(t, l, 2)
		enter := func(ctx context.Context) <-chan error {
			out := make(chan error, 1)
			go func() {
				turn, err := l.Enter(ctx, 2)
				if err == nil {
					turn.Leave(nil)
				}
				out <- err
			}()
			synctest.Wait()
			return out
		}
		leaving, leave := context.WithCancelCause(t.Context())
		left := enter(leaving)
		stays := enter(t.Context())
		leave(fmt.Errorf("had enough"))
		require.ErrorContains(t, <-left, "had enough")

		bubble.Pass(WaitMax - time.Millisecond)
		require.Empty(t, stays)
		bubble.Pass(time.Millisecond)
		require.ErrorIs(t, <-stays, shard.ErrOverloaded)

		// A write takes three seconds by now. Who has 50 ms left is not sent one.
		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late := enter(hurried)
		last := enter(t.Context())
		bubble.Pass(950 * time.Millisecond)
		under[0].Leave(nil)
		require.ErrorIs(t, <-late, shard.ErrOverloaded)
		require.NoError(t, <-last, "the turn was the next one's")
		for _, turn := range under[1:] {
			turn.Leave(nil)
		}
		require.Empty(t, l.mu.lanes)
		require.Zero(t, l.mu.waiting)
	})
}

// Q5: writes that wait for a shard without an answer leave room for those of others.
func TestOneShardDoesNotTakeAllPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := NewLanes(nil, Bounds{Requests: 1 << 10})
		busy(t, l, 2)
		var gone sync.WaitGroup
		refused := make(chan error, l.waitingMax)
		for range l.waitingMax {
			gone.Go(func() {
				if _, err := l.Enter(ctx, 2); ctx.Err() == nil {
					refused <- err
				}
			})
		}
		synctest.Wait()
		require.Len(t, refused, l.waitingMax/2)
		require.ErrorIs(t, <-refused, shard.ErrOverloaded)

		busy(t, l, 3)
		waits := make(chan error, 1)
		gone.Go(func() {
			_, err := l.Enter(ctx, 3)
			waits <- err
		})
		synctest.Wait()
		require.Empty(t, waits, "it may wait")
		cancel()
		gone.Wait()
		require.ErrorIs(t, <-waits, context.Canceled)
	})
}

// hammer has clients write to a shard, each again and again, for a while. It returns how many
// writes were answered and how long they were under way, in order.
func hammer(t *testing.T, l *Lanes, clients int, d time.Duration, answer func()) (took []time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				turn, err := l.Enter(context.WithoutCancel(ctx), 2)
				if err != nil {
					continue
				}
				answer()
				mu.Lock()
				took = append(took, time.Since(turn.began))
				mu.Unlock()
				turn.Leave(nil)
			}
		})
	}
	wg.Wait()
	return took
}

// Q3: a shard that answers 500 writes a second, one after the other, is kept busy, and none waits in
// its queue for much longer than Latency.
func TestAQueueIsAsLongAsItsShardIsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 2 * time.Millisecond
		var mu sync.Mutex
		var idle time.Time // from when on the shard has nothing to do
		answer := func() {
			mu.Lock()
			idle = later(idle, time.Now()).Add(each)
			wait := time.Until(idle)
			mu.Unlock()
			<-time.After(wait)
		}
		l := NewLanes(nil, Bounds{})
		hammer(t, l, 2000, 5*time.Second, answer) // it is learned how fast the shard is
		const seconds = 20
		took := hammer(t, l, 2000, seconds*time.Second, answer)
		require.Greater(t, len(took), seconds*500*95/100, "the shard always has something to do")
		slices.Sort(took[1000:])
		require.Less(t, took[len(took)*99/100], 3*Latency)
		require.Greater(t, took[len(took)/2], Latency/4, "what waits in the queue makes good batches")
	})
}

// Q3: three times as many clients as a shard can answer in their time keep it busy for those that it can
// answer, although it is not told when the others have given up.
func TestTheNewestAreServedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience, each = 2 * time.Second, 2 * time.Millisecond
		var mu sync.Mutex
		var idle time.Time
		inTime := 0
		l := NewLanes(nil, Bounds{})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 3 * int(patience/each) {
			wg.Go(func() {
				for ctx.Err() == nil {
					began := time.Now()
					turn, err := l.Enter(context.WithoutCancel(ctx), 2)
					if err != nil {
						continue
					}
					mu.Lock()
					idle = later(idle, time.Now()).Add(each)
					wait := time.Until(idle)
					mu.Unlock()
					<-time.After(wait)
					turn.Leave(nil)
					if time.Since(began) < patience {
						mu.Lock()
						inTime++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		require.Greater(t, inTime, int(20*time.Second/each)*9/10)
	})
}

// Q3: a shard whose replicas are far apart answers many writes at a time, each after a long
// while. More are given to it.
func TestAFarShardIsGivenMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLanes(nil, Bounds{})
		took := hammer(t, l, 2000, 20*time.Second, func() { <-time.After(300 * time.Millisecond) })
		require.Greater(t, len(took), 2000*20/2, "at 256 at a time it would be less than 18,000")
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Shards are those with writes under way.
func TestShardsWithWritesUnderWay(t *testing.T) {
	l := NewLanes(nil, Bounds{})
	require.Zero(t, l.Shards())
	var turns []Turn
	for _, id := range []shard.ID{2, 2, 3} {
		turn, ok := l.Try(id)
		require.True(t, ok)
		turns = append(turns, turn)
	}
	require.Equal(t, 2, l.Shards())
	for i, want := range []int{2, 1, 0} {
		turns[i].Leave(nil)
		require.Equal(t, want, l.Shards())
	}
	require.Zero(t, (*Lanes)(nil).Shards())
}
