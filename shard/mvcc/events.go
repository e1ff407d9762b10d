package mvcc

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// eventOf is what a watch shows of a version. It keeps key and value.
func eventOf(key []byte, h Header, value []byte) *mvccpb.Event {
	kv := &mvccpb.KeyValue{Key: key}
	if h.Deleted { // a delete event shows nothing else
		kv.ModRevision = int64(h.Mod)
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv}
	}
	kv.Value = value
	h.fill(kv)
	return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv}
}

// Event is the change as Events lists it, without the previous version. Key and value are copies,
// because they may be parts of something much larger.
func (c *Change) Event() *mvccpb.Event {
	return eventOf(bytes.Clone(c.Key), c.Header, bytes.Clone(c.Value))
}

// Previous returns the version that a change of this update replaced, as Events adds it; nil if the
// key did not exist. The result belongs to the caller.
func (w *Writer) Previous(c *Change) (*mvccpb.KeyValue, error) {
	if !c.Existed {
		return nil, nil
	}
	f, err := w.Fetch(shard.PointSpan(c.Key), c.Header.Mod-1, listing.FetchOptions{})
	if err != nil || len(f.KVs) == 0 {
		return nil, err
	}
	return f.KVs[0], nil
}

// addPrevious looks up what each event's version replaced, as long as there is some left of the bytes.
func addPrevious(r engine.Reader, events []*mvccpb.Event, left *int) (err error) {
	it, err := r.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for _, e := range events {
		if e.Kv.Version == 1 { // a put that created the key
			continue
		}
		g := newGather(shard.Revision(e.Kv.ModRevision-1), listing.FetchOptions{})
		if err := fetchPoint(it, e.Kv.Key, g); err != nil {
			return fmt.Errorf("previous version of key %q before revision %d: %w", e.Kv.Key, e.Kv.ModRevision, err)
		}
		if len(g.out.KVs) > 0 {
			e.PrevKv = g.out.KVs[0]
			if *left -= len(e.PrevKv.Key) + len(e.PrevKv.Value); *left < 0 {
				return errLarge
			}
		}
	}
	return nil
}
