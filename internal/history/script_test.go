package history

import (
	"time"
)

// Hand-made histories are written in milliseconds: what ran when, and what it was told.

func did(client int, call, ret int, req Request, resp Response) Op {
	return Op{Client: client, Call: ms(call), Return: ms(ret), Request: req, Outcome: OK, Response: resp}
}

func lostTrack(client int, call, ret int, req Request) Op {
	return Op{Client: client, Call: ms(call), Return: ms(ret), Request: req, Outcome: Unknown, Err: "deadline exceeded"}
}

func refused(client int, call, ret int, req Request, msg string) Op {
	return Op{Client: client, Call: ms(call), Return: ms(ret), Request: req, Outcome: Refused, Err: msg}
}

func final(op Op) Op {
	op.Final = true
	return op
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// put is an acknowledged put.
func put(client, call, ret int, key, value string, rev int64) Op {
	return did(client, call, ret, Put(key, value), Response{Revision: rev, Succeeded: true, Results: make([]Result, 1)})
}

// del is an acknowledged delete of a key that was there.
func del(client, call, ret int, key string, rev int64) Op {
	return did(client, call, ret, Delete(key), Response{Revision: rev, Succeeded: true, Results: []Result{{Deleted: true}}})
}

// get is an answered linearizable get.
func get(client, call, ret int, key string, header int64, kvs ...KV) Op {
	return did(client, call, ret, Get(key, 0), Response{Revision: header, KVs: kvs})
}

func getAt(client, call, ret int, key string, at int64, kvs ...KV) Op {
	return did(client, call, ret, Get(key, at), Response{Revision: at, KVs: kvs})
}

// all is an answered range over everything.
func all(client, call, ret int, header int64, kvs ...KV) Op {
	return did(client, call, ret, Range("a", "\x00", 0), Response{Revision: header, KVs: kvs})
}

func kv(key, value string, create, mod, version int64) KV {
	return KV{Key: key, Value: value, Create: create, Mod: mod, Version: version}
}

// cas is "if mod(key)==expect then put key=value else get key".
func cas(key string, expect int64, value string) Request {
	return Request{
		If:   []Compare{{Key: key, Mod: expect}},
		Then: []Action{{Kind: ActionPut, Key: key, Value: value}},
		Else: []Action{{Kind: ActionGet, Key: key}},
	}
}

// both puts two keys at once.
func both(k1, k2, value string) Request {
	return Request{Then: []Action{{Kind: ActionPut, Key: k1, Value: value}, {Kind: ActionPut, Key: k2, Value: value}}}
}

func won(rev int64) Response {
	return Response{Revision: rev, Succeeded: true, Results: make([]Result, 1)}
}

func wonBoth(rev int64) Response {
	return Response{Revision: rev, Succeeded: true, Results: make([]Result, 2)}
}

// number makes a history of operations.
func number(ops []Op) History {
	for i := range ops {
		ops[i].ID = i
	}
	return History{Ops: ops}
}

// attach is an acknowledged put that attaches its key to a lease.
func attach(client, call, ret int, key, value string, lease, rev int64) Op {
	return did(client, call, ret, Attach(key, value, lease), Response{Revision: rev, Succeeded: true, Results: make([]Result, 1)})
}

func leasedKV(key, value string, create, mod, version, lease int64) KV {
	kv := kv(key, value, create, mod, version)
	kv.Lease = lease
	return kv
}

// watch is a watch of everything from a revision on, with previous values.
func watch(from int64, responses ...WatchResponse) Watch {
	return Watch{Of: Read{Key: "a", End: "\x00"}, From: from, PrevKV: true, Responses: responses}
}

// created, events, progress and answered are responses of a watch, at a millisecond.
func created(at int, rev int64) WatchResponse {
	return WatchResponse{At: ms(at), Revision: rev, Created: true}
}

func events(at int, rev int64, list ...Event) WatchResponse {
	return WatchResponse{At: ms(at), Revision: rev, Events: list}
}

func progress(at int, rev int64) WatchResponse { return WatchResponse{At: ms(at), Revision: rev} }

func answered(at int, rev int64) WatchResponse {
	return WatchResponse{At: ms(at), Revision: rev, Requested: true}
}

func fragment(resp WatchResponse) WatchResponse {
	resp.Fragment = true
	return resp
}

func born(kv KV) Event { return Event{Put: true, KV: kv} }

func changed(prev, kv KV) Event { return Event{Put: true, KV: kv, Prev: prev} }

func gone(prev KV, rev int64) Event { return Event{KV: KV{Key: prev.Key, Mod: rev}, Prev: prev} }

// granted, renewed, revoked and missing are calls about lease 7; times to live are in
// milliseconds too.
func granted(call, ret, ttl int) LeaseOp {
	return LeaseOp{Call: ms(call), Return: ms(ret), Kind: Grant, Lease: 7, Outcome: OK, TTL: ms(ttl)}
}

func renewed(call, ret, ttl int) LeaseOp {
	return LeaseOp{Call: ms(call), Return: ms(ret), Kind: Renew, Lease: 7, Outcome: OK, TTL: ms(ttl)}
}

func revoked(call, ret int) LeaseOp {
	return LeaseOp{Call: ms(call), Return: ms(ret), Kind: Revoke, Lease: 7, Outcome: OK}
}

func there(call, ret int) LeaseOp {
	return LeaseOp{Call: ms(call), Return: ms(ret), Kind: Ask, Lease: 7, Outcome: OK, TTL: ms(1)}
}

func missing(kind LeaseCall, call, ret int) LeaseOp {
	return LeaseOp{Call: ms(call), Return: ms(ret), Kind: kind, Lease: 7, Outcome: OK, Gone: true}
}
