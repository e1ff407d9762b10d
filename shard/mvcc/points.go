package mvcc

import (
	"bytes"
	"runtime"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard/engine"
)

// points reads single keys from the engine, several of them with one iterator while many wait. An iterator over the
// levels and sublevels of a store takes longer to make and to close, and the garbage that it leaves longer to collect,
// than it takes to find a key with it; and keys in order are found faster.
//
// A read that finds fewer than readersMax others at work begins at once, on its own goroutine. The others wait, and
// when one at work has finished, the first of them reads for all that wait by then, up to pointsMax.
//
// Invariants:
//
//	1  An iterator is made after the reads that it is for have begun, so each of them sees all that a read of its own
//	   would see.
//	2  Each goroutine reads once, its own key among others, so it is not kept by reads that come later.
//	3  While reads wait, readersMax are at work.
type points struct {
	readersMax int // immutable
	mu         struct {
		sync.Mutex
		waiting []*point
		readers int
	}
}

// point is the read of one key.
type point struct {
	key []byte
	g   *gather
	// turn receives false when the read has been done, and true when its goroutine is to read for those that wait.
	turn  chan bool
	found *row
	err   error
}

const (
	// pointsPerProcessor: reads that wait for a disk must not keep others from theirs.
	pointsPerProcessor = 8
	// pointsMax bounds how long the first read of several waits for the last.
	pointsMax = 16
)

func newPoints() *points { return &points{readersMax: pointsPerProcessor * runtime.GOMAXPROCS(0)} }

// fetchLatest reads one key and returns its row, nil if it is not one to keep.
func (p *points) fetchLatest(r engine.Reader, key []byte, g *gather) (*row, error) {
	q := &point{key: key, g: g}
	if p.begin(q) || <-q.turn {
		p.read(r, q)
	}
	return q.found, q.err
}

// begin reports whether the read may begin at once. Otherwise it waits for its turn.
func (p *points) begin(q *point) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.readers < p.readersMax {
		p.mu.readers++
		return true
	}
	q.turn = make(chan bool, 1)
	p.mu.waiting = append(p.mu.waiting, q)
	return false
}

// read makes the read, others that wait with it, and then has the next one read.
func (p *points) read(r engine.Reader, own *point) {
	batch := p.join(own)
	fetchPoints(r, batch)
	for _, q := range batch {
		if q != own {
			q.turn <- false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.waiting) == 0 {
		p.mu.readers--
		return
	}
	p.take(1)[0].turn <- true
}

// join returns the read and those that wait, up to pointsMax, in the order of their keys.
func (p *points) join(own *point) []*point {
	p.mu.Lock()
	batch := append(p.take(pointsMax-1), own)
	p.mu.Unlock()
	slices.SortFunc(batch, func(a, b *point) int { return bytes.Compare(a.key, b.key) })
	return batch
}

// take removes the first of those that wait. p.mu is held.
func (p *points) take(most int) []*point {
	n := min(most, len(p.mu.waiting))
	taken := append(make([]*point, 0, n+1), p.mu.waiting[:n]...)
	p.mu.waiting = slices.Delete(p.mu.waiting, 0, n)
	return taken
}

// fetchPoints makes the reads, which are in the order of their keys.
func fetchPoints(r engine.Reader, batch []*point) {
	it, err := r.NewIter(nil)
	for _, q := range batch {
		if err == nil {
			q.found, q.err = fetchRow(it, q.key, q.g)
		} else {
			q.err = err
		}
	}
	if err == nil {
		_ = it.Close() // it only repeats errors that reads have returned
	}
}

// fetchRow reads one key through an iterator without bounds. It returns the key's row, nil if it is not one to keep.
func fetchRow(it *pebble.Iterator, key []byte, g *gather) (*row, error) {
	g.seek = engine.AppendDataKey(g.seek[:0], key, latest)
	if !it.SeekPrefixGE(g.seek) {
		return &row{key: bytes.Clone(key)}, it.Error()
	}
	_, rev, err := dataKeyAt(it)
	if err != nil {
		return nil, err
	}
	rec, err := it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	if rev > g.at || len(key)+len(rec) > rowBytesMax {
		return nil, fetchPoint(it, key, g)
	}
	h, value, err := decodeRecord(rec, rev)
	if err != nil {
		return nil, err
	}
	both := append(append(make([]byte, 0, len(key)+len(value)), key...), value...)
	found := &row{key: both[:len(key):len(key)], value: both[len(key):], header: h}
	g.addRow(found)
	return found, nil
}
