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
}

// Done reports whether a fetch that found that many keys need not look further.
func (o FetchOptions) Done(found int) bool {
	return o.NoCount && !o.CountOnly && o.Limit > 0 && int64(found) >= o.Limit
}

// Fetched is what a span holds at a revision.
type Fetched struct {
	KVs []*mvccpb.KeyValue // in key order
	// Count is the number of keys in the whole span, whatever the limit; of a fetch
	// that NoCount ended it is len(KVs).
	Count int64
}
