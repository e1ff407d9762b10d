package conformance

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func putStories() []*story {
	return []*story{putPlain(), putFlags(), putErrors()}
}

func withPrev(r *pb.PutRequest)        { r.PrevKv = true }
func withIgnoreValue(r *pb.PutRequest) { r.IgnoreValue = true }
func withIgnoreLease(r *pb.PutRequest) { r.IgnoreLease = true }

func withLease(id int64) func(*pb.PutRequest) {
	return func(r *pb.PutRequest) { r.Lease = id }
}

func putPlain() *story {
	s := newStory("put/plain")
	s.do("create", put("a", "1"))
	s.do("overwrite: version rises, create_revision stays", put("a", "2"))
	s.do("", get("a"))
	s.do("the same value again is a write all the same", put("a", "2"))
	s.do("", get("a"))
	s.do("prev_kv of a new key is absent", put("b", "1", withPrev))
	s.do("prev_kv of an old key", put("b", "2", withPrev))
	s.do("an empty value", put("b", ""))
	s.do("", get("b"))
	s.do("prev_kv whose value is empty", put("b", "3", withPrev))
	s.do("any bytes make a key", put("\x00", "zero"))
	s.do("", put("\xff\xfe", "high"))
	s.do("", put("\x00\x00", "\x00\x01\xff"))
	s.do("", put("a b/c", "space"))
	s.see("all of them, in byte order")
	s.do("delete and create again: version starts over", del("a", ""))
	s.do("", put("a", "3", withPrev))
	s.do("", get("a"))
	return s
}

func putFlags() *story {
	s := newStory("put/flags")
	s.put("a", "1")
	s.do("ignore_value keeps the value", put("a", "", withIgnoreValue))
	s.do("", get("a"))
	s.do("with prev_kv", put("a", "", withIgnoreValue, withPrev))
	s.do("ignore_lease keeps the lease, none here", put("a", "2", withIgnoreLease))
	s.do("both", put("a", "", withIgnoreValue, withIgnoreLease, withPrev))
	s.do("", get("a"))
	s.do("", del("a", ""))
	s.do("a deleted key is a missing key", put("a", "", withIgnoreValue))
	s.do("", put("a", "3", withIgnoreLease))
	s.see("neither wrote")
	return s
}

func putErrors() *story {
	s := newStory("put/errors")
	s.put("a", "1")
	s.do("no key", put("", "1"))
	s.do("no key and no value", put("", ""))
	s.do("no key comes before everything else", put("", "1", withIgnoreValue, withIgnoreLease, withLease(7)))
	s.do("ignore_value with a value", put("a", "2", withIgnoreValue))
	s.do("ignore_lease with a lease", put("a", "2", withIgnoreLease, withLease(7)))
	s.do("both wrong: the value is looked at first", put("a", "2", withIgnoreValue, withIgnoreLease, withLease(7)))
	s.do("ignore_value on a missing key", put("b", "", withIgnoreValue))
	s.do("ignore_lease on a missing key", put("b", "2", withIgnoreLease))
	s.do("an unknown lease", put("a", "2", withLease(9001)))
	s.do("a negative lease", put("a", "2", withLease(-1)))
	s.do("missing key and unknown lease: the lease is looked at first", put("b", "", withIgnoreValue, withLease(9001)))
	s.do("ignore_value on a missing key with a value is refused for the value", put("b", "2", withIgnoreValue))
	s.see("nothing of it wrote")
	return s
}
