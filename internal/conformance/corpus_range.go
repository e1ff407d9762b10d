package conformance

import (
	"fmt"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func rangeStories() []*story {
	return []*story{
		rangeEnds(), rangeLimits(), rangeSorts(), rangeSortErrors(),
		rangeProjections(), rangeFilters(), rangeRevisions(), rangeStreams(),
	}
}

func keysOnly(r *pb.RangeRequest)  { r.KeysOnly = true }
func countOnly(r *pb.RangeRequest) { r.CountOnly = true }
func anyState(r *pb.RangeRequest)  { r.Serializable = true }

func limited(n int64) func(*pb.RangeRequest) {
	return func(r *pb.RangeRequest) { r.Limit = n }
}

func atRevision(rev int64) func(*pb.RangeRequest) {
	return func(r *pb.RangeRequest) { r.Revision = rev }
}

func sorted(target pb.RangeRequest_SortTarget, order pb.RangeRequest_SortOrder) func(*pb.RangeRequest) {
	return func(r *pb.RangeRequest) { r.SortTarget, r.SortOrder = target, order }
}

func rangeEnds() *story {
	s := newStory("range/ends")
	s.see("nothing yet")
	s.do("", get("a"))
	s.do("", span("a", "b", countOnly))
	for _, k := range []string{"a", "a\x00", "a\x00\x00", "ab", "b", "b\xff", "c", "\xff"} {
		s.put(k, k)
	}
	s.do("no key", get(""))
	s.do("no key, with an end", span("", "z"))
	s.do("no key, everything", span("", "\x00"))
	s.do("no key, count only", get("", countOnly))
	s.do("a key", get("a"))
	s.do("a missing key", get("aa"))
	s.do("a prefix of a key is not the key", get("\xff\xff"))
	s.do("[a, b)", span("a", "b"))
	s.do("the first key after a", span("a\x00", "b"))
	s.do("[a, a\\0) is a alone", span("a", "a\x00"))
	s.do("from b on", span("b", "\x00"))
	s.do("everything", span("\x00", "\x00"))
	s.do("from the missing aa on", span("aa", "\x00"))
	s.do("the prefix \\xff", span("\xff", "\x00"))
	s.do("beyond the last key", span("\xff\x00", "\x00"))
	s.do("end above all keys", span("c", "\xff\xff"))
	s.do("an end of two zero bytes is an ordinary end", span("\x00", "\x00\x00"))
	s.do("an inverted range is empty", span("c", "a"))
	s.do("an equal end is empty", span("a", "a"))
	s.do("an inverted range, count only", span("c", "a", countOnly))
	s.do("an inverted range, with a limit", span("c", "a", limited(1)))
	s.do("an inverted range, keys only", span("c", "a", keysOnly))
	s.do("an inverted range at a future revision", span("c", "a", atRevision(never)))
	s.do("serializable", span("a", "c", anyState))
	s.do("serializable, a missing key", get("zz", anyState))
	return s
}

func rangeLimits() *story {
	s := newStory("range/limits")
	for i := range 5 {
		s.put(fmt.Sprintf("k%d", i), fmt.Sprint(i))
	}
	for _, n := range []int64{0, -1, math.MinInt64, 1, 2, 4, 5, 6, math.MaxInt64 - 1, math.MaxInt64} {
		s.do("", span("k", "l", limited(n)))
	}
	s.do("a limit on one key", get("k0", limited(1)))
	s.do("count speaks of the whole range", span("k", "l", limited(2), keysOnly))
	s.do("count_only ignores the limit", span("k", "l", limited(2), countOnly))
	s.do("the next page", span("k1\x00", "l", limited(2)))
	s.do("the last page", span("k3\x00", "l", limited(2)))
	s.do("serializable", span("k", "l", limited(3), anyState))
	s.do("from the third on", span("k2", "\x00", limited(2)))
	return s
}

// sortScene writes five keys that stand in a different order by each target.
func sortScene(s *story) {
	s.put("d", "3") // create: d b e a c
	s.put("b", "5")
	s.put("e", "1")
	s.put("a", "4")
	s.put("c", "2")
	for _, k := range []string{"c", "c", "c", "c", "b", "b", "e", "e", "e", "a"} { // version: d a b e c
		s.do("", put(k, "", withIgnoreValue))
	}
	s.do("", put("c", "", withIgnoreValue))
}

func rangeSorts() *story {
	s := newStory("range/sorts")
	sortScene(s)
	for target := range pb.RangeRequest_SortTarget(len(pb.RangeRequest_SortTarget_name)) {
		for order := range pb.RangeRequest_SortOrder(len(pb.RangeRequest_SortOrder_name)) {
			s.do(fmt.Sprintf("by %s, %s", target, order), span("a", "z", sorted(target, order)))
			why := "the limit cuts after sorting"
			if order == pb.RangeRequest_NONE && target != pb.RangeRequest_KEY {
				why = "without an order, only the first limit+1 keys are sorted"
			}
			s.do(why, span("a", "z", sorted(target, order), limited(2)))
		}
	}
	s.do("keys only, by value: the value is used, then left out",
		span("a", "z", sorted(pb.RangeRequest_VALUE, pb.RangeRequest_DESCEND), keysOnly))
	s.do("keys only, by version",
		span("a", "z", sorted(pb.RangeRequest_VERSION, pb.RangeRequest_DESCEND), keysOnly))
	s.do("keys only, by mod_revision, limited",
		span("a", "z", sorted(pb.RangeRequest_MOD, pb.RangeRequest_ASCEND), keysOnly, limited(3)))
	s.do("count only", span("a", "z", sorted(pb.RangeRequest_MOD, pb.RangeRequest_DESCEND), countOnly))
	s.do("one key", get("a", sorted(pb.RangeRequest_MOD, pb.RangeRequest_DESCEND)))
	s.do("serializable", span("a", "z", sorted(pb.RangeRequest_CREATE, pb.RangeRequest_DESCEND), limited(1), anyState))
	s.do("a limit as large as the range", span("a", "z", sorted(pb.RangeRequest_VALUE, pb.RangeRequest_ASCEND), limited(5)))
	return s
}

func rangeSortErrors() *story {
	s := newStory("range/sort_errors")
	s.put("a", "1")
	s.do("", span("a", "z", sorted(5, pb.RangeRequest_ASCEND)))
	s.do("", span("a", "z", sorted(-1, pb.RangeRequest_ASCEND)))
	s.do("", span("a", "z", sorted(pb.RangeRequest_KEY, 3)))
	s.do("", span("a", "z", sorted(pb.RangeRequest_KEY, -1)))
	s.do("no key comes first", get("", sorted(9, 9)))
	s.do("before the revision is looked at", get("a", sorted(9, 9), atRevision(never)))
	s.do("count only does not help", get("a", sorted(9, 0), countOnly))
	s.do("in a transaction", txn(nil, ops(rangeOp(get("a", sorted(9, 0)))), nil))
	s.do("in the branch not taken", txn(nil, nil, ops(rangeOp(get("a", sorted(0, 9))))))
	return s
}

func rangeProjections() *story {
	s := newStory("range/projections")
	s.put("a", "1")
	s.put("b", "2")
	s.put("c", "")
	for _, with := range [][]func(*pb.RangeRequest){
		{keysOnly}, {countOnly}, {keysOnly, countOnly}, {keysOnly, limited(1)}, {keysOnly, anyState},
		{countOnly, anyState}, {keysOnly, limited(3)},
		{keysOnly, sorted(pb.RangeRequest_VALUE, pb.RangeRequest_NONE)},
		{keysOnly, sorted(pb.RangeRequest_VALUE, pb.RangeRequest_ASCEND)},
	} {
		s.do("", span("a", "z", with...))
	}
	s.do("", get("b", keysOnly))
	s.do("", get("b", countOnly))
	s.do("a missing key", get("x", keysOnly))
	s.do("", get("x", countOnly))
	return s
}

func rangeFilters() *story {
	s := newStory("range/filters")
	a := s.put("a", "1")
	b := s.put("b", "1")
	c := s.put("c", "1")
	a2 := s.put("a", "2")
	type field struct {
		name string
		set  func(*pb.RangeRequest, int64)
	}
	fields := []field{
		{"min_mod_revision", func(r *pb.RangeRequest, v int64) { r.MinModRevision = v }},
		{"max_mod_revision", func(r *pb.RangeRequest, v int64) { r.MaxModRevision = v }},
		{"min_create_revision", func(r *pb.RangeRequest, v int64) { r.MinCreateRevision = v }},
		{"max_create_revision", func(r *pb.RangeRequest, v int64) { r.MaxCreateRevision = v }},
	}
	for _, f := range fields {
		for _, v := range []int64{a.Rev(), b.Rev(), c.Rev(), a2.Rev(), a2.Plus(1), -1, never} {
			s.do("", span("a", "z", func(r *pb.RangeRequest) { f.set(r, v) }))
		}
		s.do("the limit counts what the filter left; count does not",
			span("a", "z", limited(1), func(r *pb.RangeRequest) { f.set(r, b.Rev()) }))
		s.do("count_only ignores filters",
			span("a", "z", countOnly, func(r *pb.RangeRequest) { f.set(r, b.Rev()) }))
		s.do("keys only",
			span("a", "z", keysOnly, func(r *pb.RangeRequest) { f.set(r, b.Rev()) }))
	}
	between := func(lo, hi int64) func(*pb.RangeRequest) {
		return func(r *pb.RangeRequest) { r.MinModRevision, r.MaxModRevision = lo, hi }
	}
	s.do("between", span("a", "z", between(b.Rev(), c.Rev())))
	s.do("nothing between", span("a", "z", between(c.Rev(), b.Rev())))
	s.do("created before, changed after", span("a", "z", func(r *pb.RangeRequest) {
		r.MaxCreateRevision, r.MinModRevision = a.Rev(), a2.Rev()
	}))
	s.do("one key, filtered away", get("b", func(r *pb.RangeRequest) { r.MinModRevision = c.Rev() }))
	s.do("an old revision is filtered as it was", span("a", "z", atRevision(c.Rev()), func(r *pb.RangeRequest) { r.MaxModRevision = a.Rev() }))
	s.do("sorted and limited: the second oldest create", span("a", "z", limited(1),
		sorted(pb.RangeRequest_CREATE, pb.RangeRequest_DESCEND), func(r *pb.RangeRequest) { r.MaxCreateRevision = c.Plus(-1) }))
	s.do("no order, but a filter: everything is fetched before the limit", span("a", "z", limited(1),
		sorted(pb.RangeRequest_MOD, pb.RangeRequest_NONE), func(r *pb.RangeRequest) { r.MinModRevision = a.Rev() }))
	return s
}

func rangeRevisions() *story {
	s := newStory("range/revisions")
	a := s.put("a", "1")
	b := s.put("b", "1")
	a2 := s.put("a", "2")
	gone := s.do("", del("a", ""))
	again := s.put("a", "3")
	both := s.do("", txn(nil, ops(putOp(put("a", "4")), putOp(put("b", "4"))), nil))
	for _, r := range []Ref{base, a, b, a2, gone, again, both} {
		s.do("", span("a", "z", atRevision(r.Rev())))
		s.do("", get("a", atRevision(r.Rev())))
	}
	s.do("just before a write is the write before it", span("a", "z", atRevision(a2.Plus(-1))))
	s.do("count at an old revision", span("a", "z", atRevision(a.Rev()), countOnly))
	s.do("keys at an old revision", span("a", "z", atRevision(b.Rev()), keysOnly))
	s.do("limit at an old revision", span("a", "z", atRevision(b.Rev()), limited(1)))
	s.do("sorted at an old revision", span("a", "z", atRevision(a2.Rev()), sorted(pb.RangeRequest_MOD, pb.RangeRequest_DESCEND)))
	s.do("serializable at an old revision", span("a", "z", atRevision(gone.Rev()), anyState))
	s.do("0 is now", get("a", atRevision(0)))
	s.do("negative is now", get("a", atRevision(-1)))
	s.do("", get("a", atRevision(math.MinInt64)))
	s.do("the next revision is a future one", get("a", atRevision(both.Plus(1))))
	s.do("", get("a", atRevision(never)))
	s.do("of a missing key, too", get("x", atRevision(never)))
	s.do("count only", get("a", atRevision(never), countOnly))
	s.do("keys only", get("a", atRevision(never), keysOnly))
	return s
}

func rangeStreams() *story {
	s := newStory("range/streams")
	s.stream("nothing yet", span("a", "z"))
	a := s.put("a", "1")
	for i := range 30 {
		s.put(fmt.Sprintf("k%02d", i), "v")
	}
	s.stream("one key", get("a"))
	s.stream("a missing key", get("x"))
	s.stream("more keys than a first chunk holds", span("k", "l"))
	s.stream("limited", span("k", "l", limited(12)))
	s.stream("limited to one", span("k", "l", limited(1)))
	s.stream("keys only", span("a", "k02", keysOnly))
	s.stream("count only", span("a", "z", countOnly))
	s.stream("an old revision", span("a", "z", atRevision(a.Rev())))
	s.stream("a future revision", span("a", "z", atRevision(never)))
	s.stream("an inverted range", span("z", "a"))
	s.stream("serializable", span("a", "k01", anyState))
	s.stream("no key", get(""))
	s.stream("an unknown sort order", get("a", sorted(0, 9)))
	s.stream("key order, said aloud", span("a", "k01", sorted(pb.RangeRequest_KEY, pb.RangeRequest_ASCEND)))
	s.stream("descending is not streamed", span("a", "k01", sorted(pb.RangeRequest_KEY, pb.RangeRequest_DESCEND)))
	s.stream("nor by another target", span("a", "k01", sorted(pb.RangeRequest_MOD, pb.RangeRequest_ASCEND)))
	s.stream("another target without an order", span("a", "k01", sorted(pb.RangeRequest_MOD, pb.RangeRequest_NONE)))
	s.stream("nor filtered", span("a", "k01", func(r *pb.RangeRequest) { r.MinModRevision = 1 }))
	return s
}
