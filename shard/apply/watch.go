package apply

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// events gathers what an update changes for those who watch. Whether they do makes no
// difference to what is written (A1).
type events struct {
	batch *watch.Batch // nil when nobody watches
	// last is the revision of the last command that was added.
	last shard.Revision
}

// add takes the changes of the command that was just carried out. They are those of the
// last one that wrote: a command that writes nothing begins nothing.
func (e *events) add(w *mvcc.Writer) error {
	if e.batch == nil {
		return nil
	}
	changed := w.Changed()
	if len(changed) == 0 || changed[0].Header.Mod == e.last {
		return nil
	}
	e.last = changed[0].Header.Mod
	for i := range changed {
		c := &changed[i]
		var prev *mvccpb.KeyValue
		if e.batch.PrevKV {
			var err error
			if prev, err = w.Previous(c); err != nil {
				return err
			}
		}
		e.batch.Add(c.Event(), prev)
	}
	return nil
}

// Subscribe begins a feed of the changes that this replica applies.
//
// Changes are published between the View that shows them and the results of their
// commands. So whoever was answered, or has read the View after a barrier, and subscribes
// then, misses nothing that comes later and can tell it from what was before by the
// revision.
func (m *Machine) Subscribe(o watch.Options) (*watch.Subscription, error) { return m.hub.Subscribe(o) }

// Heed tells those who watch that the shard has promised floor: no change up to it follows
// the entry of the Raft log with the given index. It reports whether they have been told of
// all up to that entry; if not, it does nothing.
func (m *Machine) Heed(floor shard.Revision, index uint64) bool { return m.hub.Heed(floor, index) }

// history implements watch.History. As for other reads, what was allowed after it was
// not missing before it (snapshot.Fetch). A watch may begin at the compacted revision.
func (m *Machine) history(span shard.Span, from, to shard.Revision, o mvcc.EventsOptions) ([]*mvccpb.Event, shard.Revision, error) {
	list, through, err := m.options.Trails.Events(m.stored(), span, from, to, o, func() error {
		view, err := m.settled()
		switch {
		case err != nil:
			return err
		case view.Descriptor == nil || !view.Descriptor.Span.ContainsSpan(span): // as snapshot.stillReadable
			return view.WrongShard(m.id)
		case from+1 < view.Compacted:
			return &shard.CompactedError{Compacted: view.Compacted}
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read shard %s: %w", m.id, err)
	}
	return list, through, nil
}
