package engine

import "sync"

// Owners is locked by whoever changes which replica has which keys of the node, from looking at the other replicas'
// records until its own change is committed (E9). The engine itself does not know what these records mean.
//
// It is held for one commit or ingest, never over a flush of the store: apply workers wait for it, and a full disk
// would stop all of them. An ingest syncs no more than the names of its tables.
type Owners struct {
	mu    sync.Mutex
	turns uint64 // how often it was locked
}

// Lock implements sync.Locker.
func (o *Owners) Lock() {
	o.mu.Lock()
	o.turns++
}

// Unlock implements sync.Locker.
func (o *Owners) Unlock() { o.mu.Unlock() }

// seen returns how many changes there were.
func (o *Owners) seen() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.turns
}

// lockUnchanged locks if there were no changes since seen.
func (o *Owners) lockUnchanged(seen uint64) bool {
	o.mu.Lock()
	if o.turns != seen {
		o.mu.Unlock()
		return false
	}
	o.turns++
	return true
}
