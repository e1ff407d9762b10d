package client

import (
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Option modifies an operation. An option that does not apply makes the operation fail.
type Option func(*Op)

func (o Op) with(options []Option) Op {
	if len(options) == 0 {
		return o
	}
	return withAll(o, options)
}

// withAll allocates the operation, which options modify.
func withAll(o Op, options []Option) Op {
	for _, apply := range options {
		apply(&o)
	}
	return o
}

func (o *Op) misfit(option string) {
	o.err = fmt.Errorf("%s means nothing to a %s", option, o.kind)
}

// noRevision refuses what would otherwise mean the present.
func (o *Op) noRevision(option string, rev int64) {
	o.err = fmt.Errorf("%s(%d): revisions are positive, and 0 means the present", option, rev)
}

// upTo sets the end of the operation's span.
func (o *Op) upTo(option string, end []byte) {
	switch o.kind {
	case get, watch:
		o.get.RangeEnd = end
	case del:
		o.del.RangeEnd = end
	default:
		o.misfit(option)
	}
}

// WithRange extends a get, delete or watch to all keys from its own up to end, which is excluded.
func WithRange(end string) Option { return func(o *Op) { o.upTo("WithRange", []byte(end)) } }

// WithPrefix extends a get, delete or watch to all keys that begin with its own; with the empty
// key, to all keys.
func WithPrefix() Option {
	return func(o *Op) {
		end := prefixEnd([]byte(o.firstKey()))
		switch {
		case (o.kind == get || o.kind == watch) && len(o.get.Key) == 0:
			o.get.Key = []byte{0}
		case o.kind == del && len(o.del.Key) == 0:
			o.del.Key = []byte{0}
		}
		o.upTo("WithPrefix", end)
	}
}

// WithFromKey extends a get, delete or watch to all keys from its own on.
func WithFromKey() Option { return func(o *Op) { o.upTo("WithFromKey", []byte{0}) } }

// prefixEnd is etcd's range_end of all keys with a prefix.
func prefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return []byte{0}
}

// WithLease attaches the key of a put to a lease.
func WithLease(id int64) Option {
	return func(o *Op) {
		if o.kind != put {
			o.misfit("WithLease")
			return
		}
		o.put.Lease = id
	}
}

// WithSameLease keeps the key of a put attached to its present lease.
func WithSameLease() Option {
	return func(o *Op) {
		if o.kind != put {
			o.misfit("WithSameLease")
			return
		}
		o.put.IgnoreLease = true
	}
}

// WithPrevious makes a put or delete return what it replaced, and a watch what each event replaced.
func WithPrevious() Option {
	return func(o *Op) {
		switch o.kind {
		case put:
			o.put.PrevKv = true
		case del:
			o.del.PrevKv = true
		case watch:
			o.previous = true
		default:
			o.misfit("WithPrevious")
		}
	}
}

// FromRevision makes a watch begin at a revision, in the past or the future. Revisions are positive; 0
// means from now on.
func FromRevision(rev int64) Option {
	return func(o *Op) {
		switch {
		case o.kind != watch:
			o.misfit("FromRevision")
		case rev < 0:
			o.noRevision("FromRevision", rev)
		default:
			o.get.Revision = rev
		}
	}
}

// reading makes an option of gets.
func reading(name string, set func(*Op)) Option {
	return func(o *Op) {
		if o.kind != get {
			o.misfit(name)
			return
		}
		set(o)
	}
}

// WithLimit makes a get return at most n keys. 0 is no limit.
func WithLimit(n int64) Option { return reading("WithLimit", func(o *Op) { o.get.Limit = n }) }

// AtRevision makes a get read the store as it was at a revision. Revisions are positive; 0 means the
// latest state.
func AtRevision(rev int64) Option {
	return reading("AtRevision", func(o *Op) {
		if rev < 0 {
			o.noRevision("AtRevision", rev)
			return
		}
		o.get.Revision = rev
	})
}

// AtTime makes a get read the store as it was at a time, by the clocks of the nodes that wrote. If
// nothing was written since, it reads the latest state.
func AtTime(t time.Time) Option {
	return reading("AtTime", func(o *Op) { o.at, o.get.Revision = t, int64(revisionAt(t)) })
}

// Serializable lets any replica answer a get from its local state, which may be stale.
func Serializable() Option {
	return reading("Serializable", func(o *Op) { o.get.Serializable = true })
}

// KeysOnly makes a get omit the values.
func KeysOnly() Option { return reading("KeysOnly", func(o *Op) { o.get.KeysOnly = true }) }

// CountOnly makes a get only count keys.
func CountOnly() Option { return reading("CountOnly", func(o *Op) { o.get.CountOnly = true }) }

// Descending makes a get return the last keys first.
func Descending() Option {
	return reading("Descending", func(o *Op) {
		o.get.SortOrder, o.get.SortTarget = pb.RangeRequest_DESCEND, pb.RangeRequest_KEY
	})
}

// Compare is a condition of a transaction.
type Compare struct{ proto *pb.Compare }

// Relation is how a compare relates a key's state to the given value.
type Relation = pb.Compare_CompareResult

// The relations.
const (
	Equal    = pb.Compare_EQUAL
	NotEqual = pb.Compare_NOT_EQUAL
	Less     = pb.Compare_LESS
	Greater  = pb.Compare_GREATER
)

// IfValue compares a key's value. A key that does not exist fails every relation, NotEqual
// too, as with etcd.
func IfValue(key string, r Relation, value []byte) Compare {
	return Compare{&pb.Compare{Key: []byte(key), Result: r, Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: value}}}
}

// IfModified compares the revision of a key's last change, 0 if it does not exist.
func IfModified(key string, r Relation, rev int64) Compare {
	return Compare{&pb.Compare{Key: []byte(key), Result: r, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}}
}

// IfCreated compares the revision at which a key was created, 0 if it does not exist.
func IfCreated(key string, r Relation, rev int64) Compare {
	return Compare{&pb.Compare{Key: []byte(key), Result: r, Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev}}}
}

// IfVersion compares how often a key was written since its creation, 0 if it does not exist.
func IfVersion(key string, r Relation, version int64) Compare {
	return Compare{&pb.Compare{Key: []byte(key), Result: r, Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: version}}}
}
