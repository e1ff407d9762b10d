package apply

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// events collects an update's changes for watches. Whether there are watches makes no difference to
// what is written (A1).
type events struct {
	batch *watch.Batch // nil when nobody watches
	// last is the revision of the last added command.
	last shard.Revision
}

// add adds the changes of the command that was just executed. Writer.Changed returns those of the
// last command that wrote, so a command without writes is recognised by its revision.
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

// Subscribe opens a feed of the changes that this replica applies.
//
// Changes are published between the View that contains them and the results of their commands. So a
// caller that subscribes after it got an answer, or has read the View after a barrier, misses no
// later change and can distinguish later changes from earlier ones by their revision.
func (m *Machine) Subscribe(o watch.Options) (*watch.Subscription, error) { return m.hub.Subscribe(o) }

// Heed tells watches that the shard has promised floor: no change up to it follows the entry of the
// Raft log with the given index. It reports whether they have been told of everything up to that
// entry; if not, it does nothing.
func (m *Machine) Heed(floor shard.Revision, index uint64) bool { return m.hub.Heed(floor, index) }

// history implements watch.History. As for other reads, what is allowed afterwards was not missing
// before (snapshot.Fetch). A watch may begin at the compaction revision.
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
