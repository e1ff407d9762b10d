package engine

import "sync"

// backgroundBytes is how much of the cache holds what was read in the background, about: enough that a walk over
// versions, whose values may be in a hundred files, reads each block once.
const backgroundBytes = 32 << 20

// background is how much the cache has for those who wait for what they read.
type background struct {
	sync.Mutex
	asked int64 // by how much the cache has grown outside of Background, as far as that is still there
	last  int64 // how large it was at the end of the last Background
}

// Background runs what reads much for nobody who waits, a step at a time. The cache does not grow for it beyond
// what it has grown by for others: nobody reads that again soon, and it is the node's largest block of memory (E8).
// Pebble has no iterators that leave the cache alone, so the room is taken away meanwhile.
func (e *Engine) Background(read func()) {
	b := &e.background
	b.Lock()
	defer b.Unlock()
	size := e.cache.Size()
	b.asked = min(b.asked+max(0, size-b.last), size)
	// Pebble takes what memtables have from the cache's room itself.
	spare := e.cache.MaxSize() - b.asked - backgroundBytes - memTableBytes - e.unflushed.bytes.Load()
	release := e.cache.Reserve(int(max(0, spare)))
	defer func() {
		release()
		b.last = e.cache.Size()
	}()
	read()
}
