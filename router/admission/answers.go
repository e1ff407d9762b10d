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
	// LargeAnswer is the size from which on a list shares its room with other long ones (A7).
	LargeAnswer = 256 << 10

	// stallMin and sendRate: a client may take that long for an answer, and a second more for each so many bytes,
	// while others wait for room.
	stallMin = 10 * time.Second
	sendRate = 1 << 20

	// queuedMax bounds the answers that wait for one turn; those beyond it could hardly be served in time. Waiting answers to a node
	// must be fewer than the reads that its stream may have in flight (package peer), or everything else on the
	// stream would wait behind them.
	queuedMax = 256
)

// Kind says what an answer may become, and so whose room it shares (A7).
type Kind int

const (
	// Get is the answer to a read of one key: it is no larger than a value.
	Get Kind = iota
	// List is the answer to a read of many keys: nobody knows its size before it is made.
	List
	// Part is a part of a stream. One that is smaller than LargeAnswer asks for nothing.
	Part
	// Written is the answer to a write: it is counted, and never refused (A8).
	Written
)

// AnswerBounds are how many bytes answers hold together, by what they share.
type AnswerBounds struct {
	Gets   int64 // of one key
	Pages  int64 // lists below LargeAnswer
	Lists  int64 // longer ones
	Writes int64 // what writes answer; beyond it, no more of them are begun
}

// Sum is all of it.
func (b AnswerBounds) Sum() int64 { return b.Gets + b.Pages + b.Lists + b.Writes }

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
	full    error
	crowded atomic.Bool // what writes have answered is more than its share

	mu struct {
		sync.Mutex
		gets, pages, lists, writes pool
	}
}

// pool is room that answers share. Its fields are guarded by Answers.mu.
type pool struct {
	max, held int64
	turn      *Answer       // the only one that may wait for room while it holds some
	waiting   int           // goroutines of it that do
	queue     list.List     // of *Answer that wait for the turn, in the order of their coming
	sending   list.List     // of *Answer that are made, in the order in which they were
	freed     chan struct{} // closed when room was returned
}

// NewAnswers returns Answers with these bounds.
func NewAnswers(m *Metrics, b AnswerBounds) *Answers {
	s := &Answers{metrics: m, full: fmt.Errorf("%w: %w", errNoRoom, shard.ErrOverloaded)}
	for p, most := range map[*pool]int64{&s.mu.gets: b.Gets, &s.mu.pages: b.Pages, &s.mu.lists: b.Lists, &s.mu.writes: b.Writes} {
		p.max, p.freed = most, make(chan struct{})
	}
	return s
}

// Bytes is what answers hold.
func (s *Answers) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.gets.held + s.mu.pages.held + s.mu.lists.held + s.mu.writes.held
}

// Crowded reports whether clients have yet to take so much of what writes have answered that no more of them should begin
// if they answer with keys (A8): they are refused with Refuse.
func (s *Answers) Crowded() bool {
	if s == nil || !s.crowded.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disconnect(&s.mu.writes, time.Now())
	return true
}

// Refuse is the error for a write that must not begin. It wraps shard.ErrOverloaded.
func (s *Answers) Refuse() error {
	s.metrics.refused(Write, "answers")
	return s.full
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
	pool     *pool
	reserved int64
	patience time.Time     // until when it waits; zero: it has not waited
	granted  chan struct{} // closed when it gets the turn
	place    *list.Element // in the queue
	finished time.Time
	sending  *list.Element
}

// New returns an answer that holds nothing yet. Waiting ends with ctx. hangup, unless it is nil, disconnects a
// client that does not take the answer; it must not block for long.
func (s *Answers) New(ctx context.Context, kind Kind, hangup func()) *Answer {
	if s == nil {
		return nil
	}
	a := &Answer{of: s, ctx: ctx, small: SmallAnswer, hangup: hangup}
	switch kind {
	case Get:
		a.pool = &s.mu.gets
	case List:
		a.pool = &s.mu.pages
	case Part:
		a.pool, a.small = &s.mu.lists, LargeAnswer
	case Written:
		a.pool = &s.mu.writes
	}
	return a
}

// Within makes an answer, and, if there was no room for it, makes it again in its turn (A2): a list may have to wait
// once as a page and once more as a long one. After an error the answer holds nothing.
func (a *Answer) Within(make func() error) error {
	err := make()
	if a == nil {
		return err
	}
	for errors.Is(err, ErrTurn) {
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
	if used >= LargeAnswer {
		a.lengthen()
	}
	for used > a.reserved {
		p := a.pool
		fits := p.fits(used - a.reserved)
		if !fits && p.turn == nil { // then the queue is empty
			p.turn = a
			a.counted.Store(true)
		}
		switch {
		case p.turn != a && (!fits || p.waiting > 0): // what is free is for the one that waits (A4)
			return ErrTurn
		case fits, p.held == a.reserved: // there is room, or no other holds any
			a.reserve(used)
		default:
			if err := a.await(); err != nil {
				return err
			}
		}
	}
	return nil
}

// lengthen moves a page to the long lists (A7). It remains there when it is made again; s.mu is held.
func (a *Answer) lengthen() {
	p, s := a.pool, a.of
	if p != &s.mu.pages {
		return
	}
	a.release()
	a.pool = &s.mu.lists
	p.free() // whoever makes another part of it and waits there
}

// Take makes room for an answer that is made, if there is any now. It does not wait.
func (a *Answer) Take(bytes int) bool {
	if a == nil || int64(bytes) < a.small {
		return true
	}
	s := a.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := a.pool; p.waiting > 0 || !p.fits(int64(bytes)) && p.held > 0 {
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
		a.pool.free()
	}
	a.finished = time.Now()
	a.sending = a.pool.sending.PushBack(a)
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

// fits reports whether there is room for n more bytes; Answers.mu is held.
func (p *pool) fits(n int64) bool { return p.held+n <= p.max }

// reserve makes the answer hold that much; s.mu is held.
func (a *Answer) reserve(bytes int64) {
	p, s := a.pool, a.of
	p.held += bytes - a.reserved
	a.reserved = bytes
	a.counted.Store(true)
	if p == &s.mu.writes {
		s.crowded.Store(p.held > p.max)
	}
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
	p := a.pool
	s.disconnect(p, now)
	p.waiting++
	freed := p.freed
	s.mu.Unlock()
	err := a.wait(freed, now)
	s.mu.Lock()
	p.waiting--
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
	p := a.pool
	if p.turn == nil {
		p.turn = a
		s.mu.Unlock()
		return nil
	}
	s.disconnect(p, now)
	if p.queue.Len() >= queuedMax || !now.Before(a.patience) {
		s.mu.Unlock()
		s.metrics.refused(Read, "answers")
		return s.full
	}
	a.granted = make(chan struct{})
	a.place = p.queue.PushBack(a)
	s.mu.Unlock()
	err := a.wait(a.granted, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.place == nil {
		return err // it has the turn; after an error Within returns that
	}
	p.queue.Remove(a.place)
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
	p := a.pool
	if a.sending != nil {
		p.sending.Remove(a.sending)
		a.sending = nil
	}
	freed := a.reserved > 0
	a.reserve(0)
	a.pass()
	if freed {
		p.free()
	}
}

// pass passes the turn on, if the answer has it; s.mu is held.
func (a *Answer) pass() {
	p := a.pool
	if p.turn != a {
		return
	}
	p.turn = nil
	if first := p.queue.Front(); first != nil {
		next := first.Value.(*Answer)
		p.queue.Remove(first)
		next.place = nil
		p.turn = next
		close(next.granted)
	}
}

// free wakes the answer that waits for room; Answers.mu is held.
func (p *pool) free() {
	if p.waiting > 0 {
		close(p.freed)
		p.freed = make(chan struct{})
	}
}

// disconnect disconnects the clients that take too long for their answers (A5); s.mu is held.
func (s *Answers) disconnect(p *pool, now time.Time) {
	for e := p.sending.Front(); e != nil; e = e.Next() {
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
