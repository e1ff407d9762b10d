package engine

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// hurryBytes is more than a memtable plus one gathered batch (package apply): beyond it, a second batch has arrived
// while the first was being written.
const hurryBytes = memTableBytes + 8<<20

// unflushed tracks what was committed but is only in memory.
type unflushed struct {
	// bytes is roughly how much that is. It is raised before a commit, so it never understates whole batches,
	// although what Pebble's memtables need for themselves may be subtracted from it.
	bytes  atomic.Int64
	wanted atomic.Int64 // how many callers wait for durability
}

// urgent reports whether flushes should hurry: somebody waits for them, or data arrives faster than unhurried flushes
// write it.
func (u *unflushed) urgent() bool { return u.wanted.Load() > 0 || u.bytes.Load() > hurryBytes }

// flushed is called after each flush.
func (u *unflushed) flushed(info pebble.FlushInfo) {
	if info.Err != nil || info.Ingest {
		return
	}
	for {
		was := u.bytes.Load()
		if u.bytes.CompareAndSwap(was, max(0, was-int64(info.InputBytes))) {
			return
		}
	}
}
