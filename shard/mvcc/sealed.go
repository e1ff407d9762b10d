package mvcc

import "github.com/cockroachdb/pebble/v2"

// Sealed is what a Writer has collected and another goroutine stores, while the Writer continues
// and reads it back (V8).
type Sealed struct {
	over *overlay // nil for nothing
	done chan struct{}
	err  error // set before done is closed
}

// Seal takes the collected writes out of the Writer, between two updates. Nothing may be sealed at
// the time.
func (w *Writer) Seal() *Sealed {
	s := &Sealed{over: w.over, done: make(chan struct{})}
	w.over, w.sealed, w.other = nil, s, w.other^otherOverlay
	return s
}

// BatchBytes is what Writer.BatchBytes was.
func (s *Sealed) BatchBytes() int { return s.over.batchBytes() }

// Store adds all of it to the batch. The caller calls End after the batch was committed.
func (s *Sealed) Store(b *pebble.Batch) error { return s.over.store(b) }

// End reports that it is stored, or why it never will be.
func (s *Sealed) End(err error) {
	s.err = err
	close(s.done)
}

// Ended reports whether Wait would return at once.
func (s *Sealed) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Wait returns what End was passed. A nil Sealed is stored.
func (s *Sealed) Wait() error {
	if s == nil {
		return nil
	}
	<-s.done
	return s.err
}

// Settle forgets what was sealed, after it was stored successfully: the cache has it from then on (V4). It may
// come in the middle of an update, whose lookups so far saw the store as it was before.
func (w *Writer) Settle() {
	w.closeLookups()
	s := w.sealed
	w.sealed = nil
	w.settle(s.over)
}
