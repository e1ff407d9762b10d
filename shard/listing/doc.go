// Package listing translates a range request into what it needs from the store, and what
// was found into etcd's response. It is pure. A single shard and a router that combines the
// parts of several shards give the same answers because both use it.
//
//	request ─OptionsFor─> FetchOptions ─(mvcc, once per shard)─> Fetched ─Respond─> response
//
// It reads nothing and knows no shard; parts are passed in key order.
//
// Invariants:
//
//	L1  Respond over the concatenated parts of several shards equals Respond
//	    over one shard that holds all their keys.
//	L2  A response's Count is that of the whole requested span, whatever the limit.
package listing
