package conformance

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func txnStories() []*story {
	return []*story{txnPlain(), txnReads(), txnDuplicates(), txnErrors(), txnRecipes()}
}

func txnPlain() *story {
	s := newStory("txn/plain")
	s.do("empty", txn(nil, nil, nil))
	s.do("no compare holds always", txn(nil, ops(putOp(put("a", "1"))), ops(putOp(put("b", "1")))))
	s.see("")
	s.do("the branch of failure", txn(compares(missing("a")), ops(putOp(put("a", "2"))), ops(putOp(put("b", "2")))))
	s.see("")
	s.do("several writes are one revision", txn(nil, ops(putOp(put("a", "3")), putOp(put("b", "3")), putOp(put("c", "3"))), nil))
	s.see("")
	s.do("prev_kv in a transaction", txn(nil, ops(putOp(put("a", "4", withPrev)), delOp(&pb.DeleteRangeRequest{Key: []byte("b"), PrevKv: true})), nil))
	s.do("a delete of nothing is no write", txn(nil, ops(delOp(del("x", ""))), nil))
	s.do("with a read beside it", txn(nil, ops(delOp(del("x", "")), rangeOp(get("a"))), nil))
	s.do("the empty branch is no write", txn(compares(exists("x")), ops(putOp(put("x", "1"))), nil))
	s.do("an operation without a request", txn(nil, ops(&pb.RequestOp{}), nil))
	s.do("in the branch not taken", txn(nil, nil, ops(&pb.RequestOp{})))
	s.do("ignore_value and ignore_lease", txn(nil, ops(putOp(put("a", "", withIgnoreValue)), putOp(put("c", "5", withIgnoreLease))), nil))
	s.see("")
	return s
}

func txnReads() *story {
	s := newStory("txn/reads")
	a := s.put("a", "1")
	b := s.put("b", "1")
	all := func(with ...func(*pb.RangeRequest)) *pb.RequestOp { return rangeOp(span("a", "z", with...)) }
	s.do("read only", txn(nil, ops(rangeOp(get("a")), rangeOp(get("b"))), nil))
	s.do("serializable", txn(nil, ops(rangeOp(get("a", anyState))), nil))
	s.do("partly serializable", txn(nil, ops(rangeOp(get("a", anyState)), rangeOp(get("b"))), nil))
	s.do("a read sees the writes before it, not those after", txn(nil, ops(all(), putOp(put("c", "1")), all(), putOp(put("d", "1")), all()), nil))
	s.do("a read after a delete", txn(nil, ops(delOp(del("a", "")), all()), nil))
	s.do("deleted, then put beside it", txn(nil, ops(putOp(put("a", "2")), delOp(del("b", "c")), all(), rangeOp(get("b"))), nil))
	s.do("an old revision sees no writes of the transaction", txn(nil, ops(putOp(put("e", "1")), all(atRevision(b.Rev()))), nil))
	s.do("count after writes", txn(nil, ops(putOp(put("f", "1")), all(countOnly)), nil))
	s.do("keys after writes", txn(nil, ops(putOp(put("f", "2")), all(keysOnly)), nil))
	s.do("sorted and limited after writes", txn(nil, ops(putOp(put("a", "5")), all(sorted(pb.RangeRequest_MOD, pb.RangeRequest_DESCEND), limited(1))), nil))
	s.do("a filter between the writes", txn(nil, ops(putOp(put("b", "5")), all(func(r *pb.RangeRequest) { r.MaxModRevision = b.Rev() })), nil))
	s.do("reads at two revisions", txn(nil, ops(all(atRevision(a.Rev())), all(atRevision(b.Rev()))), nil))
	s.do("missing and inverted", txn(nil, ops(rangeOp(get("x")), rangeOp(span("z", "a"))), nil))
	s.do("more", txn(nil, ops(all(limited(1))), nil))
	return s
}

func txnDuplicates() *story {
	s := newStory("txn/duplicates")
	s.put("a", "1")
	s.put("b", "1")
	s.do("the same key twice", txn(nil, ops(putOp(put("a", "2")), putOp(put("a", "3"))), nil))
	s.do("in the branch not taken", txn(nil, nil, ops(putOp(put("a", "2")), putOp(put("a", "3")))))
	s.do("in different branches is fine", txn(nil, ops(putOp(put("a", "2"))), ops(putOp(put("a", "3")))))
	s.do("put, then delete", txn(nil, ops(putOp(put("a", "2")), delOp(del("a", ""))), nil))
	s.do("delete, then put", txn(nil, ops(delOp(del("a", "")), putOp(put("a", "2"))), nil))
	s.do("put within a deleted range", txn(nil, ops(delOp(del("a", "c")), putOp(put("b", "2"))), nil))
	s.do("before it", txn(nil, ops(putOp(put("b", "2")), delOp(del("a", "c"))), nil))
	s.do("at its end is outside", txn(nil, ops(putOp(put("c", "2")), delOp(del("a", "c"))), nil))
	s.see("")
	s.put("a", "1")
	s.do("below its start is outside", txn(nil, ops(putOp(put("A", "2")), delOp(del("a", "b"))), nil))
	s.put("a", "1")
	s.do("delete and delete may overlap", txn(nil, ops(delOp(del("a", "")), delOp(del("a", "c")), delOp(del("a", ""))), nil))
	s.put("a", "1")
	s.put("b", "1")
	s.do("overlapping delete ranges", txn(nil, ops(delOp(del("a", "b\x00")), delOp(del("b", "d"))), nil))
	s.do("a key that exists nowhere, twice", txn(nil, ops(putOp(put("new", "1")), putOp(put("new", "2"))), nil))
	s.do("put and read are no duplicates", txn(nil, ops(putOp(put("a", "2")), rangeOp(get("a")), rangeOp(get("a"))), nil))
	s.do("a delete from a key on is checked as the range up to \\0, which holds nothing",
		txn(nil, ops(putOp(put("z", "1")), delOp(del("y", "\x00"))), nil))
	s.see("")
	s.do("", txn(nil, ops(delOp(del("y", "\x00")), putOp(put("z", "1"))), nil))
	s.see("")
	return s
}

func txnErrors() *story {
	s := newStory("txn/errors")
	s.put("a", "1")
	s.do("no key in a put", txn(nil, ops(putOp(put("", "1"))), nil))
	s.do("no key in a range", txn(nil, ops(rangeOp(get(""))), nil))
	s.do("no key in a delete", txn(nil, ops(delOp(del("", ""))), nil))
	s.do("no key in the branch not taken", txn(nil, nil, ops(putOp(put("", "1")))))
	s.do("ignore_value with a value", txn(nil, ops(putOp(put("a", "2", withIgnoreValue))), nil))
	s.do("ignore_lease with a lease", txn(nil, ops(putOp(put("a", "2", withIgnoreLease, withLease(3)))), nil))
	s.do("in the branch not taken", txn(nil, nil, ops(putOp(put("a", "2", withIgnoreValue)))))
	s.do("ignore_value on a missing key: nothing is applied", txn(nil, ops(putOp(put("b", "1")), putOp(put("c", "", withIgnoreValue))), nil))
	s.see("")
	s.do("ignore_lease on a missing key", txn(nil, ops(putOp(put("b", "1")), putOp(put("c", "1", withIgnoreLease))), nil))
	last := s.do("only the taken path is looked at", txn(nil, ops(putOp(put("a", "2"))), ops(putOp(put("c", "", withIgnoreValue)))))
	s.do("an unknown lease: nothing is applied", txn(nil, ops(putOp(put("b", "1")), putOp(put("c", "1", withLease(9001)))), nil))
	s.do("on the path not taken", txn(nil, ops(rangeOp(get("a"))), ops(putOp(put("c", "1", withLease(9001))))))
	s.do("a future revision: nothing is applied", txn(nil, ops(putOp(put("b", "1")), rangeOp(get("a", atRevision(never)))), nil))
	s.do("a read before the write", txn(nil, ops(rangeOp(get("a", atRevision(never))), putOp(put("b", "1"))), nil))
	s.do("the first refusal wins", txn(nil, ops(rangeOp(get("a", atRevision(never))), putOp(put("c", "1", withLease(9001)))), nil))
	s.do("", txn(nil, ops(putOp(put("c", "1", withLease(9001))), rangeOp(get("a", atRevision(never)))), nil))
	s.do("a read-only one", txn(nil, ops(rangeOp(get("a", atRevision(never)))), nil))
	s.do("the revision the write would get is still a future one", txn(nil, ops(putOp(put("b", "1")), rangeOp(get("a", atRevision(last.Plus(1))))), nil))
	s.do("a negative revision is compacted", txn(nil, ops(rangeOp(get("a", atRevision(-2)))), nil))
	s.do("beside a write", txn(nil, ops(putOp(put("b", "1")), rangeOp(get("a", atRevision(-2)))), nil))
	s.do("a malformed operation comes before a duplicate", txn(nil, ops(putOp(put("a", "1")), putOp(put("a", "1")), putOp(put("", "1"))), nil))
	s.do("a duplicate comes before an unknown lease", txn(nil, ops(putOp(put("a", "1", withLease(9001))), putOp(put("a", "1"))), nil))
	s.do("no key in a compare comes first", txn(compares(exists("")), ops(putOp(put("", "1")), putOp(put("a", "2", withIgnoreValue))), nil))
	s.do("ignore_value reads the key as it is, not as the transaction leaves it",
		txn(nil, ops(delOp(del("b", "")), putOp(put("a", "", withIgnoreValue)), rangeOp(get("a"))), nil))
	s.see("only what was accepted wrote")
	return s
}

// txnRecipes are the transactions that common clients live on.
func txnRecipes() *story {
	s := newStory("txn/recipes")
	s.do("create if absent", txn(compares(modIs("k", 0)), ops(putOp(put("k", "1"))), ops(rangeOp(get("k")))))
	s.do("it is there", txn(compares(modIs("k", 0)), ops(putOp(put("k", "2"))), ops(rangeOp(get("k")))))
	last := s.put("k", "2")
	s.do("optimistic update", txn(compares(modIs("k", last.Rev())), ops(putOp(put("k", "3"))), ops(rangeOp(get("k")))))
	s.do("it lost", txn(compares(modIs("k", last.Rev())), ops(putOp(put("k", "4"))), ops(rangeOp(get("k")))))
	s.do("optimistic delete lost", txn(compares(modIs("k", last.Rev())), ops(delOp(del("k", ""))), ops(rangeOp(get("k")))))
	now := s.put("k", "5")
	s.do("optimistic delete", txn(compares(modIs("k", now.Rev())), ops(delOp(del("k", ""))), ops(rangeOp(get("k")))))
	mine := s.do("a queue: my place, and who is first", queueUp("queue/a"))
	second := s.do("the second waits behind it", queueUp("queue/b"))
	s.do("whom does it wait for", lastBefore(second))
	s.do("I have a place already", queueUp("queue/a"))
	s.do("the first goes", txn(compares(createIs("queue/a", mine.Rev())), ops(delOp(del("queue/a", ""))), nil))
	s.do("nobody before it", lastBefore(second))
	return s
}

func modIs(key string, rev int64) *pb.Compare {
	return comparison(key, pb.Compare_MOD, pb.Compare_EQUAL, rev, "")
}

func createIs(key string, rev int64) *pb.Compare {
	return comparison(key, pb.Compare_CREATE, pb.Compare_EQUAL, rev, "")
}

// queueUp takes a place in the queue as clients' locks and elections do: the oldest
// key is the owner.
func queueUp(key string, with ...func(*pb.PutRequest)) *pb.TxnRequest {
	oldest := rangeOp(span("queue/", "queue0", sorted(pb.RangeRequest_CREATE, pb.RangeRequest_ASCEND), limited(1)))
	return txn(compares(createIs(key, 0)), ops(putOp(put(key, "", with...)), oldest), ops(rangeOp(get(key)), oldest))
}

// lastBefore asks for the youngest place in the queue that is older than the given one.
func lastBefore(place Ref) *pb.RangeRequest {
	return span("queue/", "queue0", sorted(pb.RangeRequest_CREATE, pb.RangeRequest_DESCEND), limited(1),
		func(r *pb.RangeRequest) { r.MaxCreateRevision = place.Plus(-1) })
}
