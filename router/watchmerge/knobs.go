package watchmerge

import "github.com/flotilla-kv/flotilla/shard"

// Knobs break the invariants on purpose, so that tests can show that the checkers detect it. The
// zero value breaks nothing.
type Knobs struct {
	// Reopen is added to the position at which a feed that has ended is reopened: what lies between
	// is lost (against W4), or with a negative value repeated (against W2).
	Reopen shard.Revision
	// FastestThrough reports the progress of the part that is furthest ahead (against W6).
	FastestThrough bool
	// Unmerged delivers events before lagging parts have reached them (against W1).
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
