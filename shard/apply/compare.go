package apply

import (
	"bytes"
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// compare reports whether every key of the compare's range satisfies it. If there is no key, a
// compare of the value is false (an empty value could not be distinguished from a missing one) and
// any other sees zeros.
func (j judge) compare(c *pb.Compare) (bool, error) {
	if len(c.GetRangeEnd()) == 0 {
		return j.compareKey(c)
	}
	f, err := j.source.Fetch(shard.RequestSpan(c.Key, c.RangeEnd), 0, listing.FetchOptions{
		KeysOnly: c.Target != pb.Compare_VALUE && c.Target != pb.Compare_LEASE,
	})
	if err != nil {
		return false, err
	}
	if len(f.KVs) == 0 {
		return satisfies(c, nil), nil
	}
	for _, kv := range f.KVs {
		if !satisfies(c, kv) {
			return false, nil
		}
	}
	return true, nil
}

// compareKey compares one key. Only the value must be read from the store; the header is usually in
// memory.
func (j judge) compareKey(c *pb.Compare) (bool, error) {
	if c.GetTarget() == pb.Compare_VALUE {
		kv, err := j.source.Get(c.GetKey())
		return satisfies(c, kv), err
	}
	h, existed, err := j.source.Header(c.GetKey())
	if err != nil || !existed {
		return satisfies(c, nil), err
	}
	return satisfies(c, &mvccpb.KeyValue{
		CreateRevision: int64(h.Create), ModRevision: int64(h.Mod), Version: h.Version, Lease: h.Lease,
	}), nil
}

// satisfies compares one key's version, nil for a missing key, with the target of c. A target that
// is missing or of another kind than c.Target is zero.
func satisfies(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	var order int
	switch c.GetTarget() {
	case pb.Compare_VALUE:
		if kv == nil {
			return false
		}
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.GetCreateRevision(), c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.GetModRevision(), c.GetModRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.GetVersion(), c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.GetLease(), c.GetLease())
	}
	switch c.GetResult() {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	default: // a relation this version does not know holds, as in etcd
		return true
	}
}
