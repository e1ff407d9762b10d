package mvcc

// ApproachMax is how many keys are approached together at most: what belongs to them stays in a processor's first cache.
const ApproachMax = 64

// Approach comes before Find of keys, at most ApproachMax, and only makes it faster. Most of what finding and writing a key
// takes is waiting for memory that is in no cache, several times in turn. Here each step is made for all keys before
// the next one, so the processor waits for many at a time.
func (w *Writer) Approach(keys [][]byte) {
	var (
		hashes [ApproachMax]uint64
		found  [ApproachMax]*cached
		n      int    // of found
		wait   uint64 // depends on all that is read, so that none of it is left out
	)
	all := &w.cache.byKey
	for i, key := range keys { // where the headers are
		hashes[i] = all.hash(key)
		at := all.of(hashes[i])
		wait += at.slots[at.home(hashes[i])].hash
	}
	for _, hash := range hashes[:len(keys)] { // the headers, which take two cache lines
		if h := all.first(hash); h != nil {
			wait += uint64(h.header.Mod) + uint64(h.pending)
			found[n] = h
			n++
		}
	}
	for _, h := range found[:n] { // their keys, and what waits to be stored, which takes two
		if len(h.key) > 0 {
			wait += uint64(h.key[0])
		}
		if e := w.pending(h); e != nil {
			wait += uint64(len(e.versions)) + uint64(e.first[0].header.Sub)
		}
	}
	w.waited = wait
}
