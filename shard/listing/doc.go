// Package listing says what a range request needs from the store and turns what was
// found into etcd's answer. It is pure: one shard and a router that puts several
// shards' parts together answer alike because both come here.
//
//	request ─OptionsFor─> FetchOptions ─(mvcc, once per shard)─> Fetched ─Respond─> response
//
// It reads nothing and knows no shard; parts come in key order.
//
// Invariants:
//
//	L1  Respond over the parts of several shards, one after the other, equals Respond
//	    over one shard that holds all their keys.
//	L2  A response's Count is that of the whole requested span, whatever the limit.
package listing
