package conformance

import (
	"bytes"
	"math"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// dice draws random requests that etcd and Flotilla must answer alike. Requests whose answers
// are known to differ are not drawn; docs/ETCD.md lists them.
type dice struct {
	rng *rand.Rand
	// group is the prefix of the keys of the current request. Each group lies in another shard, and
	// only a range may cover more than one of them.
	groups []string
	group  string
	// writes are the steps that wrote something, oldest first.
	writes []Ref
	// leases holds the IDs that requests may grant and use.
	leases []int64
}

// one is true with a probability of 1 in n.
func (d *dice) one(n int) bool { return d.rng.IntN(n) == 0 }

func pick[T any](d *dice, from ...T) T { return from[d.rng.IntN(len(from))] }

func (d *dice) key() []byte {
	return []byte(d.group + pick(d, "a", "a\x00", "a/b", "aa", "b", "b", "c", "d", "\xff", "\xff\xff"))
}

// span is a key and an end: no end, an end after or before the key, or all keys of the group.
func (d *dice) span() (key, end []byte) {
	switch d.rng.IntN(6) {
	case 0, 1:
		return d.key(), nil
	case 2:
		return []byte(d.group), []byte(d.group + "\xff\xff\xff")
	default:
		return d.key(), d.key()
	}
}

// wide is a span that may cover several groups.
func (d *dice) wide() (key, end []byte) {
	switch d.rng.IntN(6) {
	case 0:
		return zero(), zero()
	case 1:
		return d.key(), zero()
	case 2:
		return zero(), d.key()
	case 3:
		end = []byte(pick(d, d.groups...) + "b")
		return d.key(), end
	default:
		return d.span()
	}
}

// past is the revision of an earlier write. The newest one is drawn more often than the others.
func (d *dice) past() int64 {
	switch d.rng.IntN(4) {
	case 0:
		return d.writes[len(d.writes)-1].Rev()
	default:
		return d.writes[d.rng.IntN(len(d.writes))].Rev()
	}
}

func (d *dice) request() Step {
	d.group = pick(d, d.groups...)
	switch n := d.rng.IntN(100); {
	case n < 22:
		return Step{Request: d.put()}
	case n < 55:
		return Step{Request: d.ranging()}
	case n < 60:
		return d.stream()
	case n < 66:
		return Step{Request: d.delete()}
	case n < 90:
		return Step{Request: d.txn(2)}
	case n < 93:
		return Step{Request: &pb.CompactionRequest{Revision: pick(d, d.past(), d.past(), 0, -1, never), Physical: d.one(2)}}
	case n < 95:
		return Step{Request: &pb.LeaseGrantRequest{ID: pick(d, d.leases...), TTL: pick(d, int64(3600), 100_000, 9_000_000_000, 9_000_000_001, math.MaxInt64)}}
	case n < 96:
		return Step{Request: &pb.LeaseRevokeRequest{ID: pick(d, d.leases...)}}
	case n < 98:
		return Step{Request: &pb.LeaseTimeToLiveRequest{ID: pick(d, d.leases...), Keys: d.one(2)}}
	default:
		return Step{Request: &pb.LeaseKeepAliveRequest{ID: pick(d, d.leases...)}}
	}
}

func (d *dice) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: d.key(), Value: []byte(pick(d, "", "1", "2", "3", "x")), PrevKv: d.one(3)}
	if d.one(30) {
		r.Key = nil
	}
	if d.one(4) {
		r.Lease = pick(d, d.leases...)
	}
	if d.one(8) {
		r.IgnoreLease = true
		if !d.one(4) {
			r.Lease = 0
		}
	}
	if d.one(8) {
		r.IgnoreValue = true
		if !d.one(4) {
			r.Value = nil
		}
	}
	return r
}

func (d *dice) ranging() *pb.RangeRequest {
	r := &pb.RangeRequest{}
	r.Key, r.RangeEnd = d.wide()
	d.options(r)
	if group := []byte(d.group); len(d.groups) > 1 && !(bytes.HasPrefix(r.Key, group) && bytes.HasPrefix(r.RangeEnd, group)) {
		// etcd's sort leaves equal ones of more than twelve in any order.
		r.SortTarget = pb.RangeRequest_KEY
	}
	return r
}

// options sets a few of a range's options, to sensible values and to others.
func (d *dice) options(r *pb.RangeRequest) {
	if d.one(40) {
		r.Key = nil
	}
	if d.one(3) {
		r.Limit = pick(d, int64(1), 2, 3, 5, 100, -1, math.MaxInt64, math.MinInt64)
	}
	if d.one(4) {
		r.Revision = pick(d, d.past(), d.past(), d.past(), never, -2)
	}
	if d.one(3) {
		r.SortOrder = pick(d, pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND)
		r.SortTarget = pick(d, pb.RangeRequest_KEY, pb.RangeRequest_VERSION, pb.RangeRequest_CREATE, pb.RangeRequest_MOD, pb.RangeRequest_VALUE)
	}
	if d.one(60) {
		r.SortOrder = pick(d, pb.RangeRequest_SortOrder(3), -1)
	}
	if d.one(60) {
		r.SortTarget = pick(d, pb.RangeRequest_SortTarget(5), -1, pb.RangeRequest_VERSION)
	}
	r.KeysOnly, r.CountOnly = d.one(6), d.one(8)
	if d.one(10) {
		r.MinModRevision = pick(d, d.past(), -1, never)
	}
	if d.one(10) {
		r.MaxModRevision = pick(d, d.past(), -1, never)
	}
	if d.one(10) {
		r.MinCreateRevision = pick(d, d.past(), -1, never)
	}
	if d.one(10) {
		r.MaxCreateRevision = pick(d, d.past(), -1, never)
	}
	// A follower that lags gives an older answer, which cannot be compared.
	if d.one(20) && len(d.groups) == 1 {
		r.Serializable = true
	}
}

// stream is a range that is sent as RangeStream. A sort target without an order is not drawn, because
// etcd answers that wrongly.
func (d *dice) stream() Step {
	r := d.ranging()
	if r.SortOrder == pb.RangeRequest_NONE {
		r.SortTarget = pb.RangeRequest_KEY
	}
	return Step{Request: r, Stream: true}
}

func (d *dice) delete() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: d.one(2)}
	r.Key, r.RangeEnd = d.span()
	if d.one(30) {
		r.Key = nil
	}
	return r
}

func (d *dice) compare() *pb.Compare {
	c := &pb.Compare{
		Result: pick(d, pb.Compare_EQUAL, pb.Compare_GREATER, pb.Compare_LESS, pb.Compare_NOT_EQUAL),
		Target: pick(d, pb.Compare_VERSION, pb.Compare_CREATE, pb.Compare_MOD, pb.Compare_VALUE, pb.Compare_LEASE),
	}
	if d.one(4) {
		c.Key, c.RangeEnd = d.span()
	} else {
		c.Key = d.key()
	}
	target := c.Target
	if d.one(20) {
		// A value that belongs to another target.
		target = pick(d, pb.Compare_VERSION, pb.Compare_VALUE, pb.Compare_LEASE)
	}
	switch target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: pick(d, int64(0), 1, 2, 3, -1)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: pick(d, d.past(), 0, never)}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: pick(d, d.past(), 0, never)}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte(pick(d, "", "1", "2", "x"))}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: pick(d, append([]int64{0}, d.leases...)...)}
	}
	if d.one(30) {
		c.TargetUnion = nil
	}
	if d.one(40) {
		c.Key = nil
	}
	if d.one(40) {
		c.Result = pick(d, pb.Compare_CompareResult(4), -1)
	}
	if d.one(60) {
		c.Target = pick(d, pb.Compare_CompareTarget(5), -1)
	}
	return c
}

func (d *dice) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range d.rng.IntN(3) {
		r.Compare = append(r.Compare, d.compare())
	}
	r.Success, r.Failure = d.ops(depth), d.ops(depth)
	return r
}

// ops are up to four operations. At most one of them is a transaction, because Flotilla is stricter than
// etcd where one nested transaction puts a key and another deletes it.
func (d *dice) ops(depth int) (ops []*pb.RequestOp) {
	nested := false
	for range d.rng.IntN(5) {
		switch n := d.rng.IntN(20); {
		case n < 8:
			r := &pb.RangeRequest{}
			r.Key, r.RangeEnd = d.span()
			d.options(r)
			ops = append(ops, rangeOp(r))
		case n < 14:
			ops = append(ops, putOp(d.put()))
		case n < 17:
			ops = append(ops, delOp(d.delete()))
		case n < 19 && depth > 0 && !nested:
			nested = true
			ops = append(ops, txnOp(d.txn(depth-1)))
		case n == 19 && d.one(6):
			ops = append(ops, &pb.RequestOp{})
		}
	}
	return ops
}

// watch is a request for a watch that starts at a revision.
func (d *dice) watch(from int64) *pb.WatchCreateRequest {
	d.group = pick(d, d.groups...)
	r := &pb.WatchCreateRequest{StartRevision: from, PrevKv: d.one(2), Fragment: d.one(3), ProgressNotify: d.one(3)}
	r.Key, r.RangeEnd = d.wide()
	if d.one(4) {
		r.Filters = append(r.Filters, pick(d, pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE))
	}
	return r
}
