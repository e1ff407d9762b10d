package listing

import "go.etcd.io/etcd/api/v3/mvccpb"

// FetchOptions says how much of a span to fetch.
type FetchOptions struct {
	Limit int64 // keys to return at most, in key order; 0 means all
	// KeysOnly leaves Value and, as etcd does, Lease empty.
	KeysOnly bool
	// CountOnly returns no keys; values are not even looked at.
	CountOnly bool
	// NoCount ends the fetch with the Limit-th key, so that a page costs what it holds
	// and not what the span holds. It means nothing without a Limit or with CountOnly.
	NoCount bool
	// Bytes ends the fetch with the pair by which what is returned comes to that size, as PairBytes sees it, so that
	// at least one pair is returned; 0 means it does not matter. The values of a span may be of any size: without this
	// nobody knows before how much a number of keys is.
	Bytes int64
	// Room, unless it is nil, is asked for room for what is returned.
	Room Room
}

// Room is memory for what is read, and is shared with others.
type Room interface {
	// Add makes room for n more bytes, which are in memory already. It may wait. After an error everything that was
	// read must be dropped, and the error goes to whoever asked for the read.
	Add(n int) error
}

// Done reports whether a fetch that found that many keys need not look further.
func (o FetchOptions) Done(found int) bool {
	return o.NoCount && !o.CountOnly && o.Limit > 0 && int64(found) >= o.Limit
}

// Fetched is what a span holds at a revision.
type Fetched struct {
	KVs []*mvccpb.KeyValue // in key order
	// Count is the number of keys in the whole span, whatever the limit; of a fetch
	// that NoCount or Bytes ended it is len(KVs).
	Count int64
	// More: Bytes ended the fetch. Nothing after the last of KVs was looked at, so there may be more keys or not.
	More bool
}

// PairBytes is what a key and its value take in memory, about.
func PairBytes(key, value []byte) int { return len(key) + len(value) + pairBytes }

const pairBytes = 128
