package engine

import "sync"

// backgroundBytes is roughly the part of the cache for blocks of background reads: enough that a walk over versions,
// whose values may lie in a hundred files, reads each block only once.
const backgroundBytes = 32 << 20

// background tracks how much of the cache belongs to foreground reads.
type background struct {
	sync.Mutex
	asked int64 // growth of the cache outside Background, as far as it is still there
	last  int64 // size of the cache at the end of the last Background
}

// Background runs read, one step of a long read that no request waits for. The cache does not grow for it beyond what
// foreground reads have made it: nobody will read those blocks again soon, and the cache is the node's largest block
// of memory (E8). Pebble has no iterators that bypass the cache, so the free room is reserved during the read.
func (e *Engine) Background(read func()) {
	b := &e.background
	b.Lock()
	defer b.Unlock()
	size := e.cache.Size()
	b.asked = min(b.asked+max(0, size-b.last), size)
	// Pebble itself takes the memtables' memory from the cache's room.
	spare := e.cache.MaxSize() - b.asked - backgroundBytes - memTableBytes - e.unflushed.bytes.Load()
	release := e.cache.Reserve(int(max(0, spare)))
	defer func() {
		release()
		b.last = e.cache.Size()
	}()
	read()
}
