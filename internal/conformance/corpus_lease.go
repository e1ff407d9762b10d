package conformance

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// leaseStories are all that grant leases.
func leaseStories() []*story {
	return []*story{leasePut(), leaseRange(), leaseDelete(), leaseCompare(), leaseLock()}
}

// grant asks for a lease that outlives the script by far.
func grant(id int64) *pb.LeaseGrantRequest { return &pb.LeaseGrantRequest{ID: id, TTL: 3600} }

func leasePut() *story {
	const id, other = 101, 102
	s := newStory("lease/put")
	s.do("", grant(id))
	s.do("", grant(other))
	s.do("a lease that exists", grant(id))
	s.do("a TTL above the limit", &pb.LeaseGrantRequest{ID: 103, TTL: 9_000_000_001})
	s.do("attach", put("a", "1", withLease(id)))
	s.do("", get("a"))
	s.do("keys_only leaves out value and lease", get("a", keysOnly))
	s.do("ignore_lease keeps it", put("a", "2", withIgnoreLease))
	s.do("ignore_value with a lease moves it", put("a", "", withIgnoreValue, withLease(other), withPrev))
	s.do("", get("a"))
	s.do("lease 0 detaches", put("a", "3", withPrev))
	s.do("", get("a"))
	s.do("", put("b", "1", withLease(id)))
	s.do("", put("c", "1", withLease(id)))
	s.do("", put("d", "1", withLease(other)))
	s.do("deleting a key detaches it", del("c", ""))
	s.do("", put("c", "2"))
	s.do("revoking deletes what is attached", &pb.LeaseRevokeRequest{ID: id})
	s.see("")
	s.do("revoking again", &pb.LeaseRevokeRequest{ID: id})
	s.do("the revoked lease is unknown", put("b", "2", withLease(id)))
	s.do("", txn(nil, ops(putOp(put("b", "2", withLease(id)))), nil))
	s.do("attach in a transaction", txn(nil, ops(putOp(put("e", "1", withLease(other))), putOp(put("f", "1", withLease(other)))), nil))
	s.do("both keys go in one revision", &pb.LeaseRevokeRequest{ID: other})
	s.see("")
	return s
}

func leaseRange() *story {
	const id = 301
	s := newStory("lease/range")
	s.do("", grant(id))
	s.put("a", "2")
	s.do("", put("b", "1", withLease(id)))
	s.do("", span("a", "z"))
	s.do("keys_only leaves the lease out", span("a", "z", keysOnly))
	s.do("", get("b", keysOnly))
	s.do("unless the keys are sorted by value", span("a", "z", keysOnly, sorted(pb.RangeRequest_VALUE, pb.RangeRequest_ASCEND)))
	s.do("or would be", span("a", "z", keysOnly, sorted(pb.RangeRequest_VALUE, pb.RangeRequest_NONE)))
	s.do("by version it is left out", span("a", "z", keysOnly, sorted(pb.RangeRequest_VERSION, pb.RangeRequest_ASCEND)))
	s.stream("streamed", span("a", "z"))
	return s
}

func leaseDelete() *story {
	const id = 201
	s := newStory("lease/delete")
	s.do("", grant(id))
	s.do("", put("l", "1", withLease(id)))
	s.do("prev_kv has the lease", &pb.DeleteRangeRequest{Key: []byte("l"), PrevKv: true})
	return s
}

func leaseCompare() *story {
	const id = 401
	s := newStory("lease/compare")
	s.do("", grant(id))
	s.do("", put("k", "1", withLease(id)))
	s.put("l", "1")
	for _, result := range compareResultsAll() {
		for _, v := range []int64{0, id - 1, id, id + 1} {
			s.do("", whether(comparison("k", pb.Compare_LEASE, result, v, "")))
		}
	}
	every := comparison("k", pb.Compare_LEASE, pb.Compare_EQUAL, id, "")
	every.RangeEnd = []byte("z")
	s.do("not every key has it", whether(every))
	return s
}

// leaseLock is the lock of common clients: a place in a queue that goes with its owner.
func leaseLock() *story {
	const id, other = 501, 502
	s := newStory("lease/lock")
	s.do("", grant(id))
	s.do("", grant(other))
	s.do("my place, and the owner", queueUp("queue/a", withLease(id)))
	second := s.do("the second waits behind it", queueUp("queue/b", withLease(other)))
	s.do("whom does it wait for", lastBefore(second))
	s.do("the owner dies", &pb.LeaseRevokeRequest{ID: id})
	s.do("nobody before it", lastBefore(second))
	return s
}
