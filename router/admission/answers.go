package admission

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// SmallAnswer is the size below which an answer asks for no room. Most are far smaller: they pay an addition, and are
	// sent at once.
	SmallAnswer = 32 << 10

	// stallMin and sendRate: a client may take that long for an answer, and a second more for each so many bytes,
	// while others wait for room.
	stallMin = 10 * time.Second
	sendRate = 1 << 20
)

// ErrTurn: a large answer found no room. Whoever makes it drops what there is of it, waits for its turn and
// makes it again (Within).
var ErrTurn = errors.New("a large answer waits for its turn")

// errNoRoom: it has waited for as long as it may.
var errNoRoom = errors.New("the node has no room for the answer")

// NoRoom reports whether err ended an answer for which this node had no room. It is of no use to try again what did not fit:
// all that was read must be dropped first.
func NoRoom(err error) bool { return errors.Is(err, ErrTurn) || errors.Is(err, errNoRoom) }

// Answers bounds the memory of answers to reads, from when they are read until their clients have taken
// them. Methods may be called on nil, which bounds nothing, and concurrently.
type Answers struct {
	metrics *Metrics
	max     int64
	full    error

	mu struct {
		sync.Mutex
		held    int64         // the sum of the answers' reserved
		turn    *Answer       // the only one that may wait for room while it holds some
		waiting int           // goroutines of it that do
		queue   list.List     // of *Answer that wait for the turn, in the order of their coming
		sending list.List     // of *Answer that are made, in the order in which they were
		freed   chan struct{} // closed when room was returned
	}
}

// NewAnswers returns Answers that hold at most bytesMax.
func NewAnswers(m *Metrics, bytesMax int64) *Answers {
	s := &Answers{metrics: m, max: bytesMax, full: fmt.Errorf("%w: %w", errNoRoom, shard.ErrOverloaded)}
	s.mu.freed = make(chan struct{})
	return s
}

// Bytes is what answers hold.
func (s *Answers) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.held
}

// Answer is the room of one answer, or of one part of a stream after the other:
//
//	Within ─> Add, Add, ... ─> Finish ─> Leave
//
// Add may be called by several goroutines, the other methods by one at a time. Methods may be called on nil, which
// holds nothing.
type Answer struct {
	of     *Answers
	ctx    context.Context
	hangup func()
	small  int64 // below this it asks for nothing

	used    atomic.Int64 // of what is being made
	counted atomic.Bool  // of has heard of it; else there is nothing to return, and no lock to take

	// Guarded by of.mu.
	reserved int64
	patience time.Time     // until when it waits; zero: it has not waited
	granted  chan struct{} // closed when it gets the turn
	place    *list.Element // in the queue
	finished time.Time
	sending  *list.Element
}

// New returns an answer that holds nothing yet. Waiting ends with ctx. hangup, unless it is nil, disconnects a
// client that does not take the answer; it must not block for long. Below small bytes it asks for nothing.
func (s *Answers) New(ctx context.Context, small int, hangup func()) *Answer {
	if s == nil {
		return nil
	}
	return &Answer{of: s, ctx: ctx, small: int64(small), hangup: hangup}
}

// Within makes an answer, and, if there was no room for it, makes it again in its turn (A2). After an error the answer
// holds nothing.
func (a *Answer) Within(make func() error) error {
	err := make()
	if a == nil {
		return err
	}
	if errors.Is(err, ErrTurn) {
		if err = a.inTurn(); err == nil {
			err = make()
		}
	}
	if err != nil {
		a.Leave()
	}
	return err
}

// Add makes room for n more bytes of the answer, which are in memory already. After an error the whole answer must be
// dropped: after ErrTurn it may be made again in its turn, any other wraps shard.ErrOverloaded or is the
// context's cause. The answer in its turn waits here until there is room.
func (a *Answer) Add(n int) error {
	if a == nil {
		return nil
	}
	used := a.used.Add(int64(n))
	if used < a.small {
		return nil
	}
	s := a.of
	s.mu.Lock()
	defer s.mu.Unlock()
	for used > a.reserved {
		fits := s.fits(used - a.reserved)
		if !fits && s.mu.turn == nil { // then the queue is empty
			s.mu.turn = a
			a.counted.Store(true)
		}
		switch {
		case s.mu.turn != a && (!fits || s.mu.waiting > 0): // what is free is for the one that waits (A4)
			return ErrTurn
		case fits, s.mu.held == a.reserved: // there is room, or no other holds any
			a.reserve(used)
		default:
			if err := a.await(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Take makes room for an answer that is made, if there is any now. It does not wait.
func (a *Answer) Take(bytes int) bool {
	if a == nil || int64(bytes) < a.small {
		return true
	}
	s := a.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.waiting > 0 || !s.fits(int64(bytes)) && s.mu.held > 0 {
		return false
	}
	a.used.Store(int64(bytes))
	a.reserve(int64(bytes))
	return true
}

// Restart says that what was read is dropped, and is read again. Its room stays for that.
func (a *Answer) Restart() {
	if a != nil {
		a.used.Store(0)
	}
}

// Used is how much of the answer was added.
func (a *Answer) Used() int {
	if a == nil {
		return 0
	}
	return int(a.used.Load())
}

// Finish says that the answer is made, takes that many bytes from now on, and is about to be sent. It reports whether it is
// held, until Leave. A small one is not. There may be no room for more than was added: what a write has read is
// counted, but its answer is not refused.
func (a *Answer) Finish(bytes int) (held bool) {
	if a == nil {
		return false
	}
	if int64(bytes) < a.small {
		a.Leave()
		return false
	}
	s := a.of
	s.mu.Lock()
	defer s.mu.Unlock()
	freed := int64(bytes) < a.reserved
	a.reserve(int64(bytes))
	a.pass()
	if freed {
		s.free()
	}
	a.finished = time.Now()
	a.sending = s.mu.sending.PushBack(a)
	return true
}

// Leave returns what the answer holds, the turn included. It may then be used for another one. To leave again changes nothing.
func (a *Answer) Leave() {
	if a == nil {
		return
	}
	a.used.Store(0)
	if !a.counted.Load() {
		return
	}
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.release()
	a.patience = time.Time{}
}

// fits reports whether there is room for n more bytes; s.mu is held.
func (s *Answers) fits(n int64) bool { return s.mu.held+n <= s.max }

// reserve makes the answer hold that much; s.mu is held.
func (a *Answer) reserve(bytes int64) {
	a.of.mu.held += bytes - a.reserved
	a.reserved = bytes
	a.counted.Store(true)
}

// await waits, in the answer's turn, until room was returned. s.mu is held, but not while it waits.
func (a *Answer) await() error {
	s, now := a.of, time.Now()
	if a.patience.IsZero() {
		a.patience = now.Add(WaitMax)
	}
	if !now.Before(a.patience) {
		s.metrics.refused(Read, "answers")
		return s.full
	}
	s.disconnect(now)
	s.mu.waiting++
	freed := s.mu.freed
	s.mu.Unlock()
	err := a.wait(freed, now)
	s.mu.Lock()
	s.mu.waiting--
	return err
}

// inTurn drops what the answer holds and waits for its turn, in which it alone may wait for room (A2).
func (a *Answer) inTurn() error {
	s, now := a.of, time.Now()
	s.mu.Lock()
	a.used.Store(0)
	a.release()
	if a.patience.IsZero() {
		a.patience = now.Add(WaitMax)
	}
	a.counted.Store(true)
	if s.mu.turn == nil {
		s.mu.turn = a
		s.mu.Unlock()
		return nil
	}
	s.disconnect(now)
	a.granted = make(chan struct{})
	a.place = s.mu.queue.PushBack(a)
	s.mu.Unlock()
	err := a.wait(a.granted, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.place == nil {
		return err // it has the turn; after an error Within returns that
	}
	s.mu.queue.Remove(a.place)
	a.place = nil
	if err == nil {
		s.metrics.refused(Read, "answers")
		err = s.full
	}
	return err
}

// wait waits for c until the answer's patience or its context ends. The former is no error.
func (a *Answer) wait(c <-chan struct{}, now time.Time) error {
	a.of.metrics.answersWait(1)
	defer a.of.metrics.answersWait(-1)
	timer := time.NewTimer(a.patience.Sub(now))
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	case <-a.ctx.Done():
		return context.Cause(a.ctx)
	}
	return nil
}

// release returns what the answer holds, the turn included; s.mu is held.
func (a *Answer) release() {
	s := a.of
	if a.sending != nil {
		s.mu.sending.Remove(a.sending)
		a.sending = nil
	}
	freed := a.reserved > 0
	a.reserve(0)
	a.pass()
	if freed {
		s.free()
	}
}

// pass passes the turn on, if the answer has it; s.mu is held.
func (a *Answer) pass() {
	s := a.of
	if s.mu.turn != a {
		return
	}
	s.mu.turn = nil
	if first := s.mu.queue.Front(); first != nil {
		next := first.Value.(*Answer)
		s.mu.queue.Remove(first)
		next.place = nil
		s.mu.turn = next
		close(next.granted)
	}
}

// free wakes the answer that waits for room; s.mu is held.
func (s *Answers) free() {
	if s.mu.waiting > 0 {
		close(s.mu.freed)
		s.mu.freed = make(chan struct{})
	}
}

// disconnect disconnects the clients that take too long for their answers (A5); s.mu is held.
func (s *Answers) disconnect(now time.Time) {
	for e := s.mu.sending.Front(); e != nil; e = e.Next() {
		a := e.Value.(*Answer)
		took := now.Sub(a.finished)
		if took < stallMin {
			break // those after it are younger
		}
		if a.hangup == nil || took < stallMin+time.Duration(a.reserved)*time.Second/sendRate {
			continue
		}
		s.metrics.disconnected()
		go a.hangup() // which may return the room
		a.hangup = nil
	}
}

type answerKey struct{}

// answering is a context with an answer.
type answering struct {
	context.Context
	answer *Answer
}

// With returns a context that carries the answer to those who read for it.
func With(ctx context.Context, a *Answer) context.Context {
	if a == nil {
		return ctx
	}
	return answering{ctx, a}
}

// Value implements context.Context.
func (c answering) Value(key any) any {
	if key == (answerKey{}) {
		return c.answer
	}
	return c.Context.Value(key)
}

// AfterFunc is context.AfterFunc for this context. Package context looks for this method: without it a context derived
// from that of a call (package rpcfront) costs a goroutine.
func (c answering) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(c.Context, f) }

// AnswerOf returns the answer of a context; nil if there is none.
func AnswerOf(ctx context.Context) *Answer {
	a, _ := ctx.Value(answerKey{}).(*Answer)
	return a
}
