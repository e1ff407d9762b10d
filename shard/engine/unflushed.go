package engine

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// hurryBytes are more than a memtable, and than one gathered batch (package apply): a second one has come while the
// first was written.
const hurryBytes = memTableBytes + 8<<20

// unflushed is what was committed and is in memory only.
type unflushed struct {
	// bytes is about how much that is. It is told before a commit, so it is never less than what is left of
	// whole batches; what Pebble's memtables need for themselves may take from that.
	bytes  atomic.Int64
	wanted atomic.Int64 // how many wait until it is durable
}

// urgent reports whether somebody waits for flushes, or will: it becomes more than those that take their time bring away.
func (u *unflushed) urgent() bool { return u.wanted.Load() > 0 || u.bytes.Load() > hurryBytes }

// flushed is told of each flush that has ended.
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
