package watchmerge

import "github.com/flotilla-kv/flotilla/shard"

// Knobs break the invariants on purpose, so that tests can show that the checkers
// notice. The zero value breaks nothing.
type Knobs struct {
	// Reopen is added to where a feed that has ended is opened again: what lies between is
	// lost (against W4), or with a negative one comes again (against W2).
	Reopen shard.Revision
	// FastestThrough tells how far the part has come that is ahead of all others (against
	// W6).
	FastestThrough bool
	// Unmerged gives events before the parts that are behind have come there (against W1).
	Unmerged bool
}

// sabotage is how far the part that is ahead has come, if a knob says to take that for
// how far all have.
func (w *Watch) sabotage(knob bool, through shard.Revision) shard.Revision {
	if !knob {
		return through
	}
	for p := range w.parts {
		through = max(through, p.through)
	}
	return through
}
