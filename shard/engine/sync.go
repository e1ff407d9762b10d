package engine

import "sync"

// rounds combines calls of one slow operation: all callers that wait while a round runs share the next one (E2). It
// starts no goroutine; the first caller of a round runs it.
type rounds struct {
	run func() error

	turn chan struct{} // holds a token while run runs

	mu   sync.Mutex
	next *round // the round that new callers join; nil if none is being gathered
}

type round struct {
	done chan struct{} // closed after err is set
	err  error
}

func newRounds(run func() error) *rounds {
	return &rounds{run: run, turn: make(chan struct{}, 1)}
}

// Do returns the result of a run that began after Do was called.
func (r *rounds) Do() error {
	r.mu.Lock()
	mine := r.next
	first := mine == nil
	if first {
		mine = &round{done: make(chan struct{})}
		r.next = mine
	}
	r.mu.Unlock()

	if !first {
		<-mine.done
		return mine.err
	}
	r.turn <- struct{}{} // others can join while this one waits for the running round
	r.mu.Lock()
	r.next = nil // before the run begins: later callers need a later run
	r.mu.Unlock()
	mine.err = r.run()
	<-r.turn
	close(mine.done)
	return mine.err
}
