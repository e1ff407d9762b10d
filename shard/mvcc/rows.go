package mvcc

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// rowBytesMax is the largest size of a key with its value that Rows keep. Larger rows cost more to
// copy and send than to find.
const rowBytesMax = 1 << 10

// slotRows is how many rows share a slot. With one, a sixth of the reads of 20,000 keys in 64 Ki
// slots found another key there, and each of them cost as much as the rest of a get.
const slotRows = 2

// Rows caches the latest versions of single keys that were read, for all replicas of a
// node together: finding a key in the store was a fifth of a server's cost of a get.
// It is a table of slots that keys share by their hash; a slot has the last slotRows rows.
//
// A row enters its slot only if the slot has not changed since before the engine was
// read, and every update changes the slots of its keys, after its batch
// was committed and before its view is published. So a row that was read before an
// update cannot enter after it, and a reader of a view finds no row that is older
// than the view (V7).
type Rows struct {
	slots []atomic.Pointer[row]
	seed  maphash.Seed
}

// row is a key's latest version; Header.Mod is 0 when there is none. It never changes.
type row struct {
	owner      *ownership // nil: of a slot without rows
	epoch      uint64
	key, value []byte
	header     Header
	older      *row // another of the slot
	depth      int  // rows from here on
}

// ownership is compared by its address.
type ownership struct {
	// read is set before rows are looked for or the engine is read for one.
	read atomic.Bool
}

func (o *ownership) note() {
	if !o.read.Load() { // reading does not take the line away from other processors
		o.read.Store(true)
	}
}

// NewRows makes a table of the given number of slots, for slotRows times as many rows.
func NewRows(slots int) *Rows {
	return &Rows{slots: make([]atomic.Pointer[row], slots), seed: maphash.MakeSeed()}
}

func (r *Rows) slot(key []byte) *atomic.Pointer[row] {
	return &r.slots[maphash.Bytes(r.seed, key)%uint64(len(r.slots))]
}

// over puts w before what its slot holds. A full slot keeps the last row.
func (w *row) over(held *row) *row {
	w.depth = 1
	if held == nil || held.owner == nil {
		return w
	}
	if held.depth == slotRows {
		last := *held
		last.older, last.depth = nil, 1
		held = &last
	}
	w.older, w.depth = held, held.depth+1
	return w
}

// rowsUnreadMax is after how many updates without a read a replica's rows are forgotten: some seconds of a busy one.
const rowsUnreadMax = 1024

// RowReader is one replica's share of Rows.
type RowReader struct {
	rows   *Rows
	points *points
	owner  atomic.Pointer[ownership]
	// used and unread belong to whoever calls Outdate: whether the owner may have rows, and the number of updates
	// since it was read.
	used   bool
	unread int
}

// NewRowReader returns a reader that shares the table with others and finds none of their rows.
func NewRowReader(rows *Rows) *RowReader {
	r := &RowReader{rows: rows, points: newPoints()}
	r.Forget()
	return r
}

// Forget makes the reader find nothing that was read before. It must be called when keys have
// changed other than through a Writer, before a view of that is published.
func (r *RowReader) Forget() { r.owner.Store(new(ownership)) }

// Outdate invalidates the keys that w has written since its last Pause. It must be called when new
// readers of the engine find them there, and before their view is published.
func (r *RowReader) Outdate(w *Writer) {
	if len(w.written) == 0 || !r.read() {
		return
	}
	fresh := new(row) // owned by nobody
	for _, e := range w.written {
		r.rows.slot([]byte(e.key)).Store(fresh)
	}
}

// read reports whether there may be rows, or soon be any that were read before the update: clearing the slots of its
// keys costs a cache miss each. Replicas that nobody reads, and writes alone, do without. Whoever notes its read later
// reads the engine later as well, and finds the update there.
func (r *RowReader) read() bool {
	if r.owner.Load().read.Swap(false) {
		r.used, r.unread = true, 0
		return true
	}
	if r.used {
		if r.unread++; r.unread > rowsUnreadMax {
			r.Forget() // before this update is visible: its readers find no row of another owner
			r.used = false
		}
	}
	return r.used
}

// Fetch is what the function Fetch is. The caller has its revision from a published view of the
// given epoch, and all calls give a reader of the same store. The returned keys and values may be shared and must not
// be modified.
func (r *RowReader) Fetch(reader engine.Reader, span shard.Span, epoch uint64, at shard.Revision, o listing.FetchOptions) (listing.Fetched, error) {
	key, ok := pointOf(span)
	if !ok {
		return Fetch(reader, span, at, o)
	}
	slot, owner := r.rows.slot(key), r.owner.Load()
	owner.note()
	held := slot.Load() // before the engine is read
	g := newGather(at, o)
	if found := held.find(owner, key, epoch, g.at); found != nil {
		g.addRow(found)
		return g.finish()
	}
	latest, err := r.points.fetchLatest(reader, key, g)
	if err != nil {
		return listing.Fetched{}, fmt.Errorf("fetch %s at revision %s: %w", span, at, err)
	}
	if latest != nil {
		latest.owner, latest.epoch = owner, epoch
		slot.CompareAndSwap(held, latest.over(held))
	}
	return g.finish()
}

// Held is Fetch of a key if that is in memory.
func (r *RowReader) Held(key []byte, epoch uint64, at shard.Revision) (listing.Fetched, bool) {
	owner := r.owner.Load()
	owner.note()
	found := r.rows.slot(key).Load().find(owner, key, epoch, at)
	if found == nil {
		return listing.Fetched{}, false
	}
	g := gather{at: at}
	g.addRow(found)
	return g.out, true
}

// find returns the key's row among those of a slot, nil if there is none for the revision.
func (w *row) find(owner *ownership, key []byte, epoch uint64, at shard.Revision) *row {
	for ; w != nil; w = w.older {
		if w.owner == owner && w.epoch == epoch && w.header.Mod <= at && bytes.Equal(w.key, key) {
			return w
		}
	}
	return nil
}

// addRow takes the key's latest version, which is visible.
func (g *gather) addRow(w *row) {
	if !exists(w.header) || !g.wanted() {
		return
	}
	kv := g.newKV()
	kv.Key = w.key
	w.header.fill(kv)
	if g.o.KeysOnly {
		kv.Lease = 0
	} else if len(w.value) > 0 {
		kv.Value = w.value
	}
	g.out.KVs = append(g.out.KVs, kv)
}
