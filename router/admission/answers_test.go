package admission

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

const mib = 1 << 20

// grow adds to an answer, as a read does, until it has that many bytes.
func grow(a *Answer, bytes int) error {
	for a.Used() < bytes {
		if err := a.Add(min(64<<10, bytes-a.Used())); err != nil {
			return err
		}
	}
	return nil
}

// all is that much of each.
func all(bytes int64) AnswerBounds {
	return AnswerBounds{Gets: bytes, Pages: bytes, Lists: bytes, Writes: bytes}
}

// made makes an answer of that size and leaves it to be sent.
func made(t *testing.T, s *Answers, bytes int, hangup func()) *Answer {
	t.Helper()
	a := s.New(t.Context(), List, hangup)
	require.NoError(t, a.Within(func() error { return grow(a, bytes) }))
	require.True(t, a.Finish(bytes))
	return a
}

// A1: two hundred clients ask for 50 MiB each and do not read. Two answers are made, the others are refused in time, and
// at no moment there is more. Small answers are made all the while. When clients read, the next ones are served.
func TestClientsThatDoNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound, clients, size = 128 * mib, 200, 50 * mib
		m := NewMetrics(prometheus.NewRegistry())
		b := AnswerBounds{Gets: 64 * mib, Pages: 8 * mib, Lists: bound, Writes: 8 * mib}
		s := NewAnswers(m, b)
		type outcome struct {
			answer *Answer
			err    error
		}
		outcomes := make(chan outcome, clients)
		var most atomic.Int64
		began := time.Now()
		for range clients {
			go func() {
				a := s.New(t.Context(), List, nil)
				err := a.Within(func() error {
					for a.Used() < size {
						if err := a.Add(64 << 10); err != nil {
							return err
						}
						for now := s.Bytes(); now > most.Load(); now = s.Bytes() {
							most.Store(now)
						}
						bubble.Pass(time.Millisecond) // they are made side by side
					}
					return nil
				})
				if err == nil {
					a.Finish(size)
				}
				outcomes <- outcome{a, err}
			}()
		}
		var sending []*Answer
		for range clients {
			switch o := <-outcomes; o.err {
			case nil:
				sending = append(sending, o.answer)
			default:
				require.ErrorIs(t, o.err, shard.ErrOverloaded)
				require.LessOrEqual(t, time.Since(began), WaitMax+time.Second, "A3")
			}
			small := s.New(t.Context(), List, nil)
			require.NoError(t, small.Within(func() error { return grow(small, SmallAnswer-1) }))
		}
		require.Len(t, sending, 2)
		require.LessOrEqual(t, most.Load(), b.Pages+b.Lists)
		require.Equal(t, int64(2*size), s.Bytes(), "those that were refused hold nothing")
		var refused dto.Metric
		require.NoError(t, m.refusals.WithLabelValues("read", "answers").Write(&refused))
		require.Equal(t, float64(clients-2), refused.Counter.GetValue())

		waits := make(chan *Answer)
		go func() { waits <- made(t, s, size, nil) }()
		synctest.Wait()
		sending[0].Leave()
		(<-waits).Leave()
		sending[1].Leave()
		require.Zero(t, s.Bytes())
	})
}

// A1: an answer that is larger than the bound is made when no other holds room, and only then.
func TestAHugeAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewAnswers(nil, all(10*mib))
		huge := made(t, s, 50*mib, nil)
		other := s.New(t.Context(), List, nil)
		require.ErrorIs(t, other.Within(func() error { return grow(other, mib) }), shard.ErrOverloaded)
		require.Equal(t, int64(50*mib), s.Bytes())
		huge.Leave()

		small := made(t, s, 2*mib, nil)
		waits := make(chan *Answer)
		go func() { waits <- made(t, s, 50*mib, nil) }()
		synctest.Wait()
		require.LessOrEqual(t, s.Bytes(), int64(10*mib), "it waits with what fits")
		small.Leave()
		(<-waits).Leave()
		require.Zero(t, s.Bytes())
	})
}

// A2, A3, A4: whoever grows while another waits for room in its turn gives back what it has, and they are served in
// the order in which they came.
func TestAnswersWaitWithEmptyHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewAnswers(nil, all(10*mib))
		sent := made(t, s, 6*mib, nil)
		growing := s.New(t.Context(), List, nil)
		require.NoError(t, grow(growing, 2*mib))
		var served []int
		one := func(i, bytes int) {
			a := s.New(t.Context(), List, nil)
			if a.Within(func() error { return grow(a, bytes) }) == nil {
				served = append(served, i)
				a.Leave()
			}
		}
		for i := range 3 {
			go one(i, 8*mib)
			synctest.Wait()
		}
		require.Empty(t, served)
		require.ErrorIs(t, grow(growing, 4*mib), ErrTurn)
		go func() {
			defer growing.Leave()
			if growing.inTurn() == nil && grow(growing, 4*mib) == nil {
				served = append(served, 3)
			}
		}()
		synctest.Wait()
		require.Empty(t, served, "the first has 2 MiB more, and wants another 4")
		sent.Leave()
		synctest.Wait()
		require.Equal(t, []int{0, 1, 2, 3}, served)
		require.Zero(t, s.Bytes())
	})
}

// Who gives up while waiting passes its turn on.
func TestAnswersAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewAnswers(nil, all(10*mib))
		sent := made(t, s, 10*mib, nil)
		ctx, cancel := context.WithCancel(t.Context())
		first, second := s.New(ctx, List, nil), s.New(ctx, List, nil)
		ended := make(chan error, 2)
		for _, a := range []*Answer{first, second} {
			go func() { ended <- a.Within(func() error { return grow(a, 2*mib) }) }()
			synctest.Wait()
		}
		waits := make(chan *Answer)
		go func() { waits <- made(t, s, 2*mib, nil) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.ErrorIs(t, <-ended, context.Canceled)
		sent.Leave()
		(<-waits).Leave()
		require.Zero(t, s.Bytes())
		require.Zero(t, s.mu.lists.queue.Len()+s.mu.lists.sending.Len())
		require.Nil(t, s.mu.lists.turn)
	})
}

// A5: a client that takes an answer too slowly is disconnected, once somebody waits for its room, and not before.
func TestSlowClientsAreDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMetrics(prometheus.NewRegistry())
		s := NewAnswers(m, all(30*mib))
		var slow *Answer
		slow = made(t, s, 20*mib, func() { slow.Leave() })
		bubble.Pass(time.Hour)
		young := made(t, s, 5*mib, func() { t.Error("it has had no time") })
		synctest.Wait()
		require.Equal(t, int64(25*mib), s.Bytes(), "there was room")
		made(t, s, 20*mib, nil).Leave()
		require.Equal(t, int64(5*mib), s.Bytes())
		var disconnected dto.Metric
		require.NoError(t, m.disconnects.Write(&disconnected))
		require.Equal(t, 1.0, disconnected.Counter.GetValue())

		bubble.Pass(stallMin + 4*time.Second)
		other := s.New(t.Context(), List, nil)
		require.ErrorIs(t, other.Within(func() error { return grow(other, 40*mib) }), shard.ErrOverloaded, "a second for each MiB")
		young.Leave()
	})
}

// A1: what is made already takes room if there is any. What must be sent is counted only.
func TestAnswersThatAreMade(t *testing.T) {
	s := NewAnswers(nil, all(mib))
	first, second := s.New(t.Context(), Get, nil), s.New(t.Context(), Get, nil)
	require.True(t, first.Take(2*mib), "no other holds any")
	require.False(t, second.Take(SmallAnswer))
	require.True(t, second.Take(SmallAnswer-1))
	written := s.New(t.Context(), Written, nil)
	require.True(t, written.Finish(mib))
	require.False(t, s.Crowded(), "that is its share")
	more := s.New(t.Context(), Written, nil)
	require.True(t, more.Finish(mib), "it tells of a write")
	require.True(t, s.Crowded())
	require.Equal(t, int64(4*mib), s.Bytes())
	more.Leave()
	require.False(t, s.Crowded())
	for _, a := range []*Answer{first, second, written} {
		a.Leave()
		a.Leave() // again returns nothing
	}
	require.Zero(t, s.Bytes())

	var none *Answers
	a := none.New(t.Context(), List, nil)
	require.NoError(t, a.Within(func() error { return a.Add(1 << 40) }))
	require.True(t, a.Take(1<<40))
	require.False(t, a.Finish(1<<40))
	a.Leave()
}

// A6: an answer that was large and, when it was its turn, is small passes the turn on.
func TestTheTurnOfASmallAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewAnswers(nil, all(mib))
		sent := made(t, s, mib, nil)
		waits := s.New(t.Context(), List, nil)
		ended := make(chan error)
		go func() { ended <- waits.Within(func() error { return waits.Add(mib) }) }() // has the turn
		synctest.Wait()
		shrunk, bytes := s.New(t.Context(), List, nil), mib
		go func() {
			ended <- shrunk.Within(func() error { defer func() { bytes = 1 }(); return shrunk.Add(bytes) })
		}()
		synctest.Wait()
		sent.Leave()
		require.NoError(t, <-ended)
		waits.Leave()
		require.NoError(t, <-ended)
		require.False(t, shrunk.Finish(1))
		require.Nil(t, s.mu.lists.turn)
		made(t, s, mib, nil).Leave()
		require.Zero(t, s.Bytes())
	})
}

// A read that is tried again counts once.
func TestAnswersThatAreReadAgain(t *testing.T) {
	s := NewAnswers(nil, all(3*mib))
	a := s.New(t.Context(), List, nil)
	for range 10 {
		a.Restart()
		require.NoError(t, grow(a, 2*mib))
	}
	require.Equal(t, int64(2*mib), s.Bytes())
	a.Leave()
	require.Zero(t, s.Bytes())
}

// A7: while lists of which nobody takes any have all their room and wait for more, gets and pages are made at once;
// and gets that nobody takes keep no list waiting.
func TestNoListMakesAGetWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewAnswers(nil, AnswerBounds{Gets: 2 * mib, Pages: mib, Lists: 10 * mib})
		list := made(t, s, 8*mib, nil)
		const waiting = 100
		waits := make(chan error, waiting)
		for range waiting {
			go func() {
				a := s.New(t.Context(), List, nil)
				waits <- a.Within(func() error { return grow(a, 8*mib) })
			}()
		}
		synctest.Wait()
		require.LessOrEqual(t, s.Bytes(), int64(10*mib))
		began := time.Now()
		var gets []*Answer
		for range 2 {
			get := s.New(t.Context(), Get, nil)
			require.NoError(t, get.Within(func() error { return grow(get, mib) }))
			require.True(t, get.Finish(mib))
			gets = append(gets, get)
		}
		for range 4 {
			gets = append(gets, made(t, s, LargeAnswer-1, nil))
		}
		require.Zero(t, time.Since(began))
		for range waiting {
			require.ErrorIs(t, <-waits, shard.ErrOverloaded)
		}
		list.Leave()
		began = time.Now()
		for _, page := range gets[2:] {
			page.Leave()
		}
		made(t, s, 10*mib, nil).Leave()
		require.Zero(t, time.Since(began), "there are two gets")
		for _, get := range gets {
			get.Leave()
		}
		require.Zero(t, s.Bytes())
	})
}

// A7: a list waits once as a page and once as a long one, which its readers of several shards do side by side.
func TestAListThatWaitsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewAnswers(nil, AnswerBounds{Pages: mib, Lists: mib})
		page, list := made(t, s, LargeAnswer-1, nil), made(t, s, mib, nil)
		more := made(t, s, LargeAnswer-1, nil)
		rest := made(t, s, LargeAnswer-1, nil)
		last := made(t, s, LargeAnswer-1, nil)
		a, tries := s.New(t.Context(), List, nil), 0
		ended := make(chan error)
		go func() {
			ended <- a.Within(func() error {
				tries++
				parts := make(chan error, 2)
				for range 2 {
					go func() {
						for range 8 {
							if err := a.Add(32 << 10); err != nil {
								parts <- err
								return
							}
						}
						parts <- nil
					}()
				}
				return errors.Join(<-parts, <-parts)
			})
		}()
		synctest.Wait()
		require.Equal(t, 1, tries, "it waits in its turn")
		page.Leave()
		synctest.Wait()
		list.Leave()
		require.NoError(t, <-ended)
		require.Equal(t, 512<<10, a.Used())
		for _, a := range []*Answer{a, more, rest, last} {
			a.Leave()
		}
		require.Zero(t, s.Bytes())
		require.Nil(t, s.mu.pages.turn)
		require.Nil(t, s.mu.lists.turn)
	})
}

// A3: of those that could not be served in time, none wait.
func TestTooManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewAnswers(nil, all(mib))
		sent := made(t, s, mib, nil)
		ended := make(chan error)
		for range queuedMax + 2 {
			go func() {
				a := s.New(t.Context(), List, nil)
				ended <- a.Within(func() error { return grow(a, mib) })
			}()
		}
		began := time.Now()
		require.ErrorIs(t, <-ended, shard.ErrOverloaded)
		require.Zero(t, time.Since(began), "one has the turn, all others but this wait for it")
		for range queuedMax + 1 {
			require.ErrorIs(t, <-ended, shard.ErrOverloaded)
		}
		require.Equal(t, WaitMax, time.Since(began))
		sent.Leave()
		require.Zero(t, s.Bytes())
	})
}
