package mvcc

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

const (
	// trailBytesMax bounds one trail: some hundred thousand changes of few keys, some ten
	// thousand of many. Whoever is further behind walks over its span that much more often.
	trailBytesMax = 4 << 20
	// trailBytes is what a trail takes besides its refs and keys, refBytes a ref, keyBytes a key
	// besides itself.
	trailBytes, refBytes, keyBytes = 256, 16, 32
)

// Trail is an index of the changes of a span, in revision order. The store has them in key order,
// so finding the next few takes a scan over all of them: a trail is the result of one scan. It
// stays valid, but versions may be collected.
type Trail struct {
	span shard.Span
	// The refs are all changes with revisions in (from, through].
	from, through shard.Revision
	refs          []ref
	keys          [][]byte // ascending
	bytes         int
}

// ref is one change.
type ref struct {
	rev shard.Revision
	sub uint32 // its place among those of the revision
	key uint32 // in Trail.keys
}

func (r ref) compare(o ref) int { return cmp.Or(cmp.Compare(r.rev, o.rev), cmp.Compare(r.sub, o.sub)) }

// errCollected says that a version to which a trail refers has been collected.
var errCollected = fmt.Errorf("the version was collected: %w", shard.ErrUnavailable)

// findTrail walks over the span's blocks that can hold changes in (from, to]. The trail ends
// below to if it would be larger than bytesMax; it has one revision at least.
func findTrail(r engine.Reader, span shard.Span, from, to shard.Revision, bytesMax int) (t *Trail, err error) {
	t = &Trail{span: span, from: from, through: to, bytes: trailBytes}
	lower, upper := engine.DataSpanBounds(span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper, PointKeyFilters: engine.RevisionFilter(from, to)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	cutAt := 2 * bytesMax
	for valid := it.First(); valid; valid = it.Next() {
		key, rev, err := dataKeyAt(it)
		if err != nil {
			return nil, err
		}
		// The filter lets whole blocks through: look again.
		if rev <= from || rev > t.through {
			continue
		}
		rec, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		h, _, err := decodeRecord(rec, rev)
		if err != nil {
			return nil, fmt.Errorf("key %q at revision %s: %w", key, rev, err)
		}
		t.add(key, rev, h.Sub)
		if t.bytes >= cutAt {
			t.cut(bytesMax)
			cutAt = t.bytes + bytesMax // one revision can be larger than bytesMax
		}
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	t.cut(bytesMax)
	return t, nil
}

// add takes in a change, of the last key or of a later one.
func (t *Trail) add(key []byte, rev shard.Revision, sub uint32) {
	if n := len(t.keys); n == 0 || !bytes.Equal(t.keys[n-1], key) {
		t.keys = append(t.keys, bytes.Clone(key))
		t.bytes += len(key) + keyBytes
	}
	t.refs = append(t.refs, ref{rev: rev, sub: sub, key: uint32(len(t.keys) - 1)})
	t.bytes += refBytes
}

// cut sorts the trail and keeps its first changes, whole revisions, up to about bytesMax.
func (t *Trail) cut(bytesMax int) {
	slices.SortFunc(t.refs, ref.compare)
	if t.bytes <= bytesMax {
		return
	}
	kept := make([]bool, len(t.keys))
	n, size := 0, trailBytes
	for ; n < len(t.refs); n++ {
		r := t.refs[n]
		if size > bytesMax && r.rev != t.refs[n-1].rev {
			break
		}
		if !kept[r.key] {
			kept[r.key] = true
			size += len(t.keys[r.key]) + keyBytes
		}
		size += refBytes
	}
	if n < len(t.refs) {
		t.through = t.refs[n-1].rev
	}
	t.refs, t.bytes = slices.Clip(t.refs[:n:n]), size
	moved := make([]uint32, len(t.keys))
	var keys [][]byte
	for i, key := range t.keys {
		if kept[i] {
			moved[i] = uint32(len(keys))
			keys = append(keys, key)
		}
	}
	for i := range t.refs {
		t.refs[i].key = moved[t.refs[i].key]
	}
	t.keys = keys
}

// covers reports whether the trail leads on from there.
func (t *Trail) covers(from shard.Revision) bool { return t.from <= from && from < t.through }

// list reads the trail's changes in (from, to], the first limit and the rest of the last
// one's revision; 0 means all. Every change up to and including through is listed.
func (t *Trail) list(r engine.Reader, from, to shard.Revision, o EventsOptions) (events []*mvccpb.Event, through shard.Revision, err error) {
	through = min(t.through, to)
	refs := t.refs[t.after(from):t.after(through)]
	if o.Limit > 0 && len(refs) > o.Limit {
		end := o.Limit
		for end < len(refs) && refs[end].rev == refs[end-1].rev {
			end++
		}
		if end < len(refs) {
			refs, through = refs[:end], refs[end-1].rev
		}
	}
	for {
		whole := wholeRevisions(refs, len(refs)/2)
		left := eventsBytesMax
		if whole == len(refs) {
			left = math.MaxInt // one revision, or none
		}
		events, err = t.read(r, refs, &left)
		if err == nil && o.PrevKV {
			err = addPrevious(r, events, &left)
		}
		if !errors.Is(err, errLarge) {
			return events, through, err
		}
		refs, through = refs[:whole], refs[whole-1].rev
	}
}

// eventsBytesMax is about how much of keys and values one list has, if it is of more than one revision: values may have more
// than 1 MiB, every watch that has fallen behind has a list in memory, and it is sent in messages of 1 MiB.
const eventsBytesMax = 2 << 20

// errLarge: a list would have more than eventsBytesMax.
var errLarge = errors.New("the list of events is too large")

// wholeRevisions is how many of the first n changes there are if the last revision is whole, or left out; but those of
// the first one at least.
func wholeRevisions(refs []ref, n int) int {
	for n > 0 && refs[n].rev == refs[n-1].rev {
		n--
	}
	for n < len(refs) && (n == 0 || refs[n].rev == refs[n-1].rev) {
		n++
	}
	return n
}

// after is where the refs above rev begin.
func (t *Trail) after(rev shard.Revision) int {
	return sort.Search(len(t.refs), func(i int) bool { return t.refs[i].rev > rev })
}

// read reads changes in the order in which the store has them, as long as there is some left of the bytes.
func (t *Trail) read(r engine.Reader, refs []ref, left *int) (events []*mvccpb.Event, err error) {
	if len(refs) == 0 {
		return nil, nil
	}
	order := make([]int, len(refs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(refs[a].key, refs[b].key), cmp.Compare(refs[b].rev, refs[a].rev))
	})
	it, err := r.NewIter(nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	events = make([]*mvccpb.Event, len(refs))
	var seek []byte
	for _, i := range order {
		key, want := t.keys[refs[i].key], refs[i].rev
		seek = engine.AppendDataKey(seek[:0], key, want)
		found := it.SeekPrefixGE(seek)
		if err := it.Error(); err != nil {
			return nil, err
		}
		if !found || !bytes.Equal(it.Key(), seek) {
			return nil, fmt.Errorf("key %q at revision %s: %w", key, want, errCollected)
		}
		rec, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		h, value, err := decodeRecord(rec, want)
		if err != nil {
			return nil, fmt.Errorf("key %q at revision %s: %w", key, want, err)
		}
		if *left -= len(key) + len(value); *left < 0 {
			return nil, errLarge
		}
		events[i] = eventOf(bytes.Clone(key), h, bytes.Clone(value))
	}
	return events, nil
}
