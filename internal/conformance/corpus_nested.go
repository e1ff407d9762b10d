package conformance

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func nestedStories() []*story {
	s := newStory("nested/paths")
	s.put("a", "1")
	s.do("an empty one", txn(nil, ops(txnOp(txn(nil, nil, nil))), nil))
	s.do("reads only", txn(nil, ops(txnOp(txn(nil, ops(rangeOp(get("a"))), nil))), nil))
	s.do("its compare holds", txn(nil, ops(txnOp(txn(compares(exists("a")), ops(putOp(put("b", "then"))), ops(putOp(put("b", "else")))))), nil))
	s.do("its compare fails", txn(nil, ops(txnOp(txn(compares(missing("a")), ops(putOp(put("b", "then"))), ops(putOp(put("b", "else")))))), nil))
	s.do("in the branch of failure", txn(compares(missing("a")), nil,
		ops(txnOp(txn(compares(exists("b")), ops(rangeOp(get("b"))), nil)))))
	s.do("compares see the state before the whole transaction", txn(nil,
		ops(putOp(put("c", "1")), txnOp(txn(compares(exists("c")), ops(putOp(put("d", "saw it"))), ops(putOp(put("d", "did not")))))), nil))
	s.see("")
	s.do("reads see the writes before them", txn(nil,
		ops(putOp(put("c", "2")), txnOp(txn(nil, ops(rangeOp(get("c")), putOp(put("d", "2"))), nil)), rangeOp(span("a", "z"))), nil))
	s.do("two beside each other, one each way", txn(nil, ops(
		txnOp(txn(compares(exists("a")), ops(putOp(put("e", "1"))), nil)),
		txnOp(txn(compares(missing("a")), ops(putOp(put("f", "1"))), ops(rangeOp(get("e")))))), nil))
	s.do("three deep", txn(nil, ops(txnOp(txn(nil, ops(txnOp(txn(compares(missing("x")),
		ops(putOp(put("x", "deep")), rangeOp(get("x"))), nil))), nil))), nil))
	s.do("three deep, then one beside it", txn(nil, ops(
		txnOp(txn(compares(missing("x")), nil, ops(txnOp(txn(compares(exists("x")), ops(rangeOp(get("x"))), nil))))),
		txnOp(txn(compares(exists("x")), ops(rangeOp(get("a"))), nil))), nil))
	s.do("a failed outer compare leaves the inner alone", txn(compares(missing("a")),
		ops(txnOp(txn(nil, ops(putOp(put("never", "1"))), nil))), nil))

	d := newStory("nested/duplicates")
	d.put("a", "1")
	inner := func(o ...*pb.RequestOp) *pb.RequestOp { return txnOp(txn(nil, o, nil)) }
	put2 := func() *pb.RequestOp { return putOp(put("a", "2")) }
	d.do("outside and inside", txn(nil, ops(put2(), inner(put2())), nil))
	d.do("inside and outside", txn(nil, ops(inner(put2()), put2()), nil))
	d.do("in two nested ones", txn(nil, ops(inner(put2()), inner(put2())), nil))
	d.do("in both branches of one", txn(nil, ops(txnOp(txn(nil, ops(put2()), ops(putOp(put("a", "3")))))), nil))
	d.do("in the branches of two", txn(nil, ops(txnOp(txn(nil, ops(put2()), nil)), txnOp(txn(nil, nil, ops(put2())))), nil))
	d.do("twice in a branch not taken", txn(nil, ops(txnOp(txn(nil, nil, ops(put2(), put2())))), nil))
	d.do("deleted outside, put inside", txn(nil, ops(delOp(del("a", "")), inner(put2())), nil))
	d.do("deleted inside, put outside", txn(nil, ops(inner(delOp(del("a", "b"))), put2()), nil))
	d.do("deleted inside the branch not taken, put outside", txn(nil, ops(txnOp(txn(nil, nil, ops(delOp(del("a", "b"))))), put2()), nil))
	d.do("deleted in one nested, put in the next", txn(nil, ops(inner(delOp(del("a", ""))), inner(put2())), nil))
	d.do("put in one nested, deleted in the next", txn(nil, ops(inner(put2()), inner(delOp(del("a", "")))), nil))
	d.do("put in one branch, deleted in the other", txn(nil, ops(txnOp(txn(nil, ops(put2()), ops(delOp(del("a", "")))))), nil))
	d.do("deleted everywhere", txn(nil, ops(delOp(del("a", "")), inner(delOp(del("a", "z")))), nil))
	d.see("")

	e := newStory("nested/errors")
	e.put("a", "1")
	e.do("no key inside", txn(nil, ops(inner(putOp(put("", "1")))), nil))
	e.do("no key in an inner compare", txn(nil, ops(txnOp(txn(compares(exists("")), nil, nil))), nil))
	e.do("an empty operation inside", txn(nil, ops(inner(&pb.RequestOp{})), nil))
	e.do("an unknown sort inside", txn(nil, ops(inner(rangeOp(get("a", sorted(9, 0))))), nil))
	e.do("a future revision inside: nothing is applied", txn(nil, ops(putOp(put("b", "1")), inner(rangeOp(get("a", atRevision(never))))), nil))
	e.do("an unknown lease inside: nothing is applied", txn(nil, ops(putOp(put("b", "1")), inner(putOp(put("c", "1", withLease(9001))))), nil))
	e.do("ignore_value of a missing key inside: nothing is applied", txn(nil, ops(putOp(put("b", "1")), inner(putOp(put("c", "", withIgnoreValue)))), nil))
	e.do("in the inner branch not taken", txn(nil, ops(putOp(put("b", "1")), txnOp(txn(nil, nil, ops(putOp(put("c", "1", withLease(9001))))))), nil))
	e.see("")
	return []*story{s, d, e}
}
