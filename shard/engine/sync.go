package engine

import "sync"

// rounds coalesces calls of one slow operation: however many callers wait while one
// round runs, they share the next (E2). It spawns nothing; the first caller of a
// round runs it.
type rounds struct {
	run func() error

	turn chan struct{} // holds one token while run runs

	mu   sync.Mutex
	next *round // the round newcomers join; nil when none gathers
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
	r.turn <- struct{}{} // others join while we wait for the running round
	r.mu.Lock()
	r.next = nil // before the run begins: who comes now needs a later one
	r.mu.Unlock()
	mine.err = r.run()
	<-r.turn
	close(mine.done)
	return mine.err
}
