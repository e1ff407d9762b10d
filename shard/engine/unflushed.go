package engine

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// hurryBytes are more than one gathered batch (package apply): a second one has come while the first was written.
const hurryBytes = 24 << 20

// unflushed is about how much was committed and is in memory only. It is told before a commit, so it is never
// less than what is left of whole batches; what Pebble's memtables need for themselves may take from that.
type unflushed struct{ bytes atomic.Int64 }

// much reports whether it becomes more than flushes that take their time bring away.
func (u *unflushed) much() bool { return u.bytes.Load() > hurryBytes }

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
