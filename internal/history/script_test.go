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

func number(ops []Op) []Op {
	for i := range ops {
		ops[i].ID = i
	}
	return ops
}
