package conformance

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func deleteStories() []*story {
	s := newStory("delete/all")
	prev := func(r *pb.DeleteRangeRequest) *pb.DeleteRangeRequest { r.PrevKv = true; return r }
	scene := func() (last Ref) {
		for _, k := range []string{"a", "a\x00", "ab", "b", "c"} {
			last = s.put(k, "v"+k)
		}
		return last
	}
	first := scene()
	s.do("no key", del("", ""))
	s.do("no key, with an end", del("", "z"))
	s.do("one key", del("a", ""))
	s.do("again: nothing to delete, no new revision", del("a", ""))
	s.do("a missing key with prev_kv", prev(del("a", "")))
	s.do("one key with prev_kv", prev(del("b", "")))
	s.do("a range", del("a", "b"))
	s.see("")
	scene()
	s.do("a range with prev_kv", prev(del("a", "b")))
	s.do("an inverted range", prev(del("z", "a")))
	s.do("an empty range", del("c", "c"))
	s.do("a range without keys", prev(del("x", "y")))
	s.do("from a key on", prev(del("b", "\x00")))
	s.see("")
	scene()
	s.do("everything", prev(del("\x00", "\x00")))
	s.see("")
	s.do("everything of nothing", prev(del("\x00", "\x00")))
	s.do("what was is still readable", span("a", "z", atRevision(first.Rev())))
	s.do("", get("a", atRevision(first.Rev())))
	return []*story{s}
}
