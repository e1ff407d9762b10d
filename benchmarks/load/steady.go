package load

import (
	"context"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Keyed is an operation of which it is known what key it touches. number counts operations, and client those that begin them.
type Keyed func(ctx context.Context, client, number int) (key int, err error)

// Steady begins operations at a fixed rate until it is stopped, and keeps each (L6).
type Steady struct {
	began   time.Time
	cancel  context.CancelFunc // begins nothing more
	abandon context.CancelFunc // ends what is under way, too
	ended   chan struct{}

	mu struct {
		sync.Mutex
		traces []Trace // of traceSamples each, but the last
	}
}

// traceSamples is how many are kept together: one trace of millions that grows is copied now and then, and
// all clients stand still meanwhile.
const traceSamples = 1 << 16

// inFlightMax is far more than a rate has under way, unless servers stand still for
// seconds; what is due then waits here, and its latency counts.
const inFlightMax = 20_000

// Begin starts a Steady. Each operation has its timeout from when it is due.
func Begin(ctx context.Context, rate int, timeout time.Duration, op Keyed) *Steady {
	return begin(ctx, rate, 0, timeout, op, inFlightMax, func(pacing context.Context, clients chan<- turn, next turn) bool {
		select {
		case clients <- next:
		case <-pacing.Done():
		}
		return true
	})
}

// busyGrain is by how much operations of BeginBusy begin late: to be woken for each of fifty
// thousand a second would be much of what they cost.
const busyGrain = time.Millisecond

// BeginBusy starts a Steady of some clients, each with one operation at a time. What is due
// while all of them wait for answers has failed. An operation may take up to limitGrain longer than its timeout.
func BeginBusy(ctx context.Context, rate, clients int, timeout time.Duration, op Keyed) *Steady {
	return begin(ctx, rate, busyGrain, timeout, op, clients, func(context.Context, chan<- turn, turn) bool { return false })
}

// turn is an operation that is due.
type turn struct {
	number int
	due    time.Time
}

// busyText is why what is due is not begun.
const busyText = "all clients wait"

// begin starts a Steady of so many clients at most. Clients stay, as those of users do: with
// a goroutine for each operation, the growing of its stack would be measured too. busy decides what becomes
// of an operation that is due while all clients are at work; false: it has failed.
func begin(ctx context.Context, rate int, grain, timeout time.Duration, op Keyed, most int, busy func(pacing context.Context, clients chan<- turn, next turn) bool) *Steady {
	ctx, abandon := context.WithCancel(ctx)
	pacing, cancel := context.WithCancel(ctx)
	s := &Steady{began: time.Now(), cancel: cancel, abandon: abandon, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		var wg sync.WaitGroup
		clients, hired, number := make(chan turn), 0, 0
		limited := func(l *limit, client int, t turn) (key int, err error) {
			if grain > 0 { // as the clients of a closed loop, with whom these are compared
				return op(l.begin(ctx, t.due, timeout), client, t.number)
			}
			ctx, cancel := context.WithDeadline(ctx, t.due.Add(timeout))
			defer cancel()
			return op(ctx, client, t.number)
		}
		work := func(l *limit, client int, t turn) {
			key, err := limited(l, client, t)
			sample := Sample{Due: t.due.Sub(s.began), Took: time.Since(t.due), Key: key}
			if err != nil {
				sample.Err = errorName(err)
			}
			s.add(sample)
		}
		pace(pacing, rate, grain, s.began, s.began.Add(24*time.Hour), func(due time.Time) {
			next := turn{number, due}
			select {
			case clients <- next:
			default:
				if hired < most {
					client := hired
					hired++
					wg.Go(func() {
						var l limit
						defer l.end()
						work(&l, client, next)
						for t := range clients {
							work(&l, client, t)
						}
					})
				} else if !busy(pacing, clients, next) {
					s.add(Sample{Due: due.Sub(s.began), Key: -1, Err: busyText})
					return
				}
			}
			number++
		})
		close(clients)
		wg.Wait()
	}()
	return s
}

func (s *Steady) add(sample Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.mu.traces) - 1
	if last < 0 || len(s.mu.traces[last]) == traceSamples {
		s.mu.traces = append(s.mu.traces, make(Trace, 0, traceSamples))
		last++
	}
	s.mu.traces[last] = append(s.mu.traces[last], sample)
}

// Now is the time since the beginning, as samples count it.
func (s *Steady) Now() time.Duration { return time.Since(s.began) }

// Abandon begins nothing more, gives up what is under way, and returns all that was done.
func (s *Steady) Abandon() Trace {
	s.abandon()
	return s.Stop()
}

// Stop begins nothing more, waits for what is under way, and returns all that was done.
func (s *Steady) Stop() Trace {
	s.cancel()
	defer s.abandon()
	<-s.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.mu.traces...)
}

// Puts are puts of keys out of the shared keyspace, which choose picks for each number, on each connection in turn.
func (e *Env) Puts(choose func(number int) int) Keyed {
	return func(ctx context.Context, _, number int) (int, error) {
		return e.put(ctx, e.Conn(number), choose, number)
	}
}

// ClientPuts are Puts of clients that stay at their connections, as those of a closed loop do. Answers that arrive together
// then have the next requests leave together.
func (e *Env) ClientPuts(choose func(number int) int) Keyed {
	return func(ctx context.Context, client, number int) (int, error) {
		return e.put(ctx, e.Conn(client), choose, number)
	}
}

func (e *Env) put(ctx context.Context, conn *clientv3.Client, choose func(number int) int, number int) (key int, err error) {
	key = choose(number)
	_, err = conn.Put(ctx, Key(key), e.value(e.random(number)))
	return key, err
}

// Anywhere picks a random key of the shared keyspace for each number.
func (e *Env) Anywhere(number int) int { return e.random(-number - 1).IntN(e.Keys) }

// Popular picks a rank for each number, the first most often.
func (e *Env) Popular(number int) int { return e.zipf.rank(e.random(-number - 1)) }

// Fill writes every key of the shared keyspace, once.
func (e *Env) Fill(ctx context.Context) error { return e.fill(ctx) }

// Key is the i-th key of the shared keyspace.
func Key(i int) string { return sharedKeys.key(i) }
