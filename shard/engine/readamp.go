package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// A read of one key looks into a table of each sublevel of L0 and of each level below, and in all but one does not find
// it. Writes are cheaper the more sublevels there may be (options.go), so a store that was written to for a while and
// is read from now has up to thirty-two of them; a get then took five times as long as without any.
//
// So reads have L0 compacted, too: as soon as looking into tables in vain has cost them half of what that compaction
// will cost. Half, because requests wait for the one and none for the other. Whatever reads and writes come next, what was
// spent too much until then is no more than that, and the compaction itself. Reads that caches answer look into no table.

const (
	// lookBytes is how many bytes of tables are compacted in twice the time of one look in vain. One look takes as long as
	// 116 bytes (2.9 µs, 25 ns a byte), and with a machine's caches under load as long as 140. Values are not among these bytes:
	// they are in files of their own.
	lookBytes = 256
	// readAmpMin: with fewer sublevels than this, the levels below are a large part of what reads look into in vain.
	readAmpMin = 4
)

// readAmp is what reads have cost because of L0 since it was last compacted for them.
type readAmp struct {
	sync.Mutex
	seen  int64 // looks in vain of which the store told last, since it was opened
	looks int64 // those of them that count
}

// tooLong is told of the store's looks in vain, and reports whether reads have cost half of what it costs to compact this
// much of L0, which has these many sublevels, and of the base level.
func (r *readAmp) tooLong(seen int64, sublevels int, bytes int64) bool {
	r.looks += seen - r.seen
	r.seen = seen
	if sublevels < readAmpMin {
		r.looks = 0
	}
	if r.looks*lookBytes < max(bytes, 1) {
		return false
	}
	r.looks = 0 // also if compacting fails: it is tried again when reads have paid for it again
	return true
}

// compacted is told of the store's looks in vain when L0 has been compacted. Those since tooLong were into tables that
// are gone, and pay for nothing.
func (r *readAmp) compacted(seen int64) { r.seen = seen }

// ShortenReads compacts L0 if reads had to look into its tables for so long that it is worth it, and returns when
// that is done (E10). Whoever owns the store calls it at intervals. The store can be used normally meanwhile.
func (e *Engine) ShortenReads(ctx context.Context) (done bool, err error) {
	r := &e.readAmp
	r.Lock()
	defer r.Unlock()
	m := e.db.Metrics()
	if !r.tooLong(m.Filter.Hits, int(m.Levels[0].Sublevels), upperBytes(m)) {
		return false, nil
	}
	levels, err := e.db.SSTables()
	if err != nil {
		return false, fmt.Errorf("shorten reads: list tables: %w", err)
	}
	key := deepest(levels[0])
	if key == nil { // a compaction that was due anyway came first
		return false, nil
	}
	// Pebble adds all tables of L0 that overlap with those of this one key, and so on. Of each level below it then
	// moves down the one table that may have the key.
	if err := e.db.Compact(ctx, key, comparer.ImmediateSuccessor(nil, key), false); err != nil {
		return false, fmt.Errorf("shorten reads: %w", err)
	}
	r.compacted(e.db.Metrics().Filter.Hits)
	return true, nil
}

// upperBytes is the size of the tables of L0 and of the base level, which a compaction of L0 rewrites.
func upperBytes(m *pebble.Metrics) int64 {
	bytes := m.Levels[0].TablesSize
	for _, l := range m.Levels[1:] {
		if l.TablesCount > 0 {
			return bytes + l.TablesSize
		}
	}
	return bytes
}

// deepest returns the prefix of a key that as many of these tables as possible may have, nil if there are none.
func deepest(tables []pebble.SSTableInfo) []byte {
	type edge struct {
		key []byte
		in  int // 1: a table begins; -1: it has ended
	}
	edges := make([]edge, 0, 2*len(tables))
	for _, t := range tables {
		edges = append(edges, edge{t.Smallest.UserKey, 1}, edge{t.Largest.UserKey, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { // of the same key, beginnings come first
		return cmp.Or(comparer.Compare(a.key, b.key), cmp.Compare(b.in, a.in))
	})
	depth, most, at := 0, 0, []byte(nil)
	for _, e := range edges {
		if depth += e.in; depth > most {
			most, at = depth, e.key
		}
	}
	if at == nil {
		return nil
	}
	return at[:comparer.Split(at)]
}
