package mvcc

import (
	"cmp"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// model is what the package should do, said slowly: every version of every key ever
// written, with nothing dropped.
type model struct {
	history map[string][]modelVersion // oldest first
}

type modelVersion struct {
	Header
	value string
}

// found is the header without what a Writer does not tell.
func (v *modelVersion) found() Header {
	h := v.Header
	h.Sub = 0
	return h
}

func newModel() *model { return &model{history: map[string][]modelVersion{}} }

func (m *model) clone() *model {
	c := newModel()
	for k, vs := range m.history {
		c.history[k] = slices.Clone(vs)
	}
	return c
}

// at returns the newest version not newer than rev; nil if there is none.
func (m *model) at(key string, rev shard.Revision) *modelVersion {
	vs := m.history[key]
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].Mod <= rev {
			return &vs[i]
		}
	}
	return nil
}

func (m *model) exists(key string, rev shard.Revision) bool {
	v := m.at(key, rev)
	return v != nil && !v.Deleted
}

func (m *model) put(key, value string, lease int64, rev shard.Revision, sub uint32) {
	h := Header{Create: rev, Mod: rev, Version: 1, Lease: lease, Sub: sub}
	if v := m.at(key, latest); v != nil && !v.Deleted {
		h.Create, h.Version = v.Create, v.Version+1
	}
	m.history[key] = append(m.history[key], modelVersion{h, value})
}

func (m *model) delete(key string, rev shard.Revision, sub uint32) {
	m.history[key] = append(m.history[key], modelVersion{Header{Mod: rev, Sub: sub, Deleted: true}, ""})
}

func (m *model) keyValue(key string, rev shard.Revision) *mvccpb.KeyValue {
	if !m.exists(key, rev) {
		return nil
	}
	v := m.at(key, rev)
	kv := &mvccpb.KeyValue{
		Key: []byte(key), CreateRevision: int64(v.Create), ModRevision: int64(v.Mod), Version: v.Version, Lease: v.Lease,
	}
	if v.value != "" {
		kv.Value = []byte(v.value)
	}
	return kv
}

func (m *model) fetch(s shard.Span, rev shard.Revision, o listing.FetchOptions) listing.Fetched {
	if rev == 0 {
		rev = latest
	}
	var f listing.Fetched
	size := 0
	for _, key := range slices.Sorted(maps.Keys(m.history)) {
		if !s.Contains([]byte(key)) || !m.exists(key, rev) {
			continue
		}
		if f.More || o.Done(len(f.KVs)) {
			break
		}
		f.Count++
		if o.CountOnly || o.Limit > 0 && len(f.KVs) == int(o.Limit) {
			continue
		}
		kv := m.keyValue(key, rev)
		if o.KeysOnly {
			kv.Value, kv.Lease = nil, 0
		}
		f.KVs = append(f.KVs, kv)
		size += listing.PairBytes(kv.Key, kv.Value)
		f.More = o.Bytes > 0 && int64(size) >= o.Bytes
	}
	return f
}

func (m *model) events(s shard.Span, from, to shard.Revision, prev bool) []*mvccpb.Event {
	type ordered struct {
		v modelVersion
		e *mvccpb.Event
	}
	var list []ordered
	for key, vs := range m.history {
		for _, v := range vs {
			if !s.Contains([]byte(key)) || v.Mod <= from || v.Mod > to {
				continue
			}
			e := &mvccpb.Event{Kv: m.keyValue(key, v.Mod)}
			if v.Deleted {
				e.Type, e.Kv = mvccpb.Event_DELETE, &mvccpb.KeyValue{Key: []byte(key), ModRevision: int64(v.Mod)}
			}
			if prev {
				e.PrevKv = m.keyValue(key, v.Mod-1)
			}
			list = append(list, ordered{v, e})
		}
	}
	slices.SortFunc(list, func(a, b ordered) int { return cmp.Or(cmp.Compare(a.v.Mod, b.v.Mod), cmp.Compare(a.v.Sub, b.v.Sub)) })
	var out []*mvccpb.Event
	for _, o := range list {
		out = append(out, o.e)
	}
	return out
}
