package conformance

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func limitStories() []*story { return []*story{limitOps(), limitNested(), limitSizes()} }

const opsMax = 128 // etcd's default

func reads(n int) []*pb.RequestOp {
	return repeat(n, func(int) *pb.RequestOp { return rangeOp(get("a")) })
}

func limitOps() *story {
	s := newStory("limits/operations")
	s.put("a", "1")
	compared := func(n int) []*pb.Compare { return repeat(n, func(int) *pb.Compare { return exists("a") }) }
	s.do("", txn(nil, reads(opsMax), nil))
	s.do("", txn(nil, reads(opsMax+1), nil))
	s.do("", txn(nil, nil, reads(opsMax)))
	s.do("", txn(nil, nil, reads(opsMax+1)))
	s.do("", txn(compared(opsMax), nil, nil))
	s.do("", txn(compared(opsMax+1), nil, nil))
	s.do("the parts are counted apart", txn(compared(opsMax), reads(opsMax), reads(opsMax)))
	s.do("puts of many keys are one revision", txn(nil, repeat(opsMax, func(i int) *pb.RequestOp {
		return putOp(put(fmt.Sprintf("k%03d", i), "v"))
	}), nil))
	s.do("", span("k", "l", keysOnly))
	s.do("deletes of many keys are one revision", txn(nil, repeat(opsMax, func(i int) *pb.RequestOp {
		return delOp(del(fmt.Sprintf("k%03d", i), ""))
	}), nil))
	s.do("too many comes before an empty key", txn(nil, append(reads(opsMax), putOp(put("", "1"))), nil))
	s.see("")
	return s
}

func limitNested() *story {
	s := newStory("limits/nested")
	s.put("a", "1")
	level := func(outer, inner int) *pb.TxnRequest {
		return txn(nil, append(reads(outer-1), txnOp(txn(nil, reads(inner), nil))), nil)
	}
	s.do("what the outer level leaves", level(1, opsMax-1))
	s.do("one more", level(1, opsMax))
	s.do("", level(64, 64))
	s.do("", level(64, 65))
	s.do("nothing is left", level(opsMax, 0))
	s.do("", level(opsMax, 1))
	s.do("siblings have a budget each", txn(nil, ops(txnOp(txn(nil, reads(opsMax-2), nil)), txnOp(txn(nil, reads(opsMax-2), nil))), nil))
	s.do("", txn(nil, ops(txnOp(txn(nil, reads(opsMax-2), nil)), txnOp(txn(nil, reads(opsMax-1), nil))), nil))
	s.do("compares inside count", txn(nil, ops(txnOp(txn(repeat(opsMax, func(int) *pb.Compare { return exists("a") }), nil, nil))), nil))
	s.do("in the branch not taken", txn(nil, nil, ops(txnOp(txn(nil, nil, reads(opsMax))))))
	s.do("three deep", txn(nil, ops(txnOp(txn(nil, ops(txnOp(txn(nil, reads(opsMax-2), nil))), nil))), nil))
	s.do("", txn(nil, ops(txnOp(txn(nil, ops(txnOp(txn(nil, reads(opsMax-1), nil))), nil))), nil))
	return s
}

// limitSizes stay clear of the exact border: it depends on the framing of etcd's
// own log entry, which no client can know.
func limitSizes() *story {
	const (
		requestBytesMax = 3 << 19 // 1.5 MiB, etcd's default
		receiveBytesMax = requestBytesMax + 512<<10
		slack           = 1 << 10
	)
	s := newStory("limits/sizes")
	big := func(n int) string { return strings.Repeat("x", n) }
	s.do("just below the limit", put("big", big(requestBytesMax-slack)))
	s.do("", get("big"))
	s.do("", get("big", keysOnly))
	s.do("above it", put("big", big(requestBytesMax+1)))
	s.do("at it, with the key above it", put("big", big(requestBytesMax)))
	s.do("above what a server receives", put("big", big(receiveBytesMax+slack)))
	s.do("a transaction below it", txn(nil, ops(putOp(put("b1", big(requestBytesMax/2-slack))), putOp(put("b2", big(requestBytesMax/2-slack)))), nil))
	s.do("a transaction above it", txn(nil, ops(putOp(put("b1", big(requestBytesMax/2))), putOp(put("b2", big(requestBytesMax/2)))), nil))
	s.do("a compare above it", txn(compares(comparison("big", pb.Compare_VALUE, pb.Compare_EQUAL, 0, big(requestBytesMax+1))), ops(putOp(put("c", "1"))), nil))
	s.do("a read-only transaction has no such limit", txn(compares(comparison("big", pb.Compare_VALUE, pb.Compare_EQUAL, 0, big(requestBytesMax+1))), ops(rangeOp(get("c"))), nil))
	s.do("a long key", put(big(64<<10), "1"))
	s.do("", get(big(64<<10)))
	s.do("a key above it", put(big(requestBytesMax+1), "1"))
	s.do("reading such a key", get(big(requestBytesMax+1)))
	s.do("deleting such a key", del(big(requestBytesMax+1), ""))
	s.see("several big values in one answer")
	s.do("prev_kv of all", &pb.DeleteRangeRequest{Key: zero(), RangeEnd: zero(), PrevKv: true})
	return s
}
