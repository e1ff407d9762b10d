package apply_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// split divides the model. Both know the whole past and answer for their own keys.
func (m *model) split(d *shard.Descriptor) *model {
	child := *m
	child.id, child.epoch, child.slot, child.span = d.ID, d.Epoch, d.Slot, d.Span
	child.history = slices.Clone(m.history)
	child.leases.records, child.leases.registered = maps.Clone(m.leases.records), maps.Clone(m.leases.registered)
	m.epoch, m.span.End = d.Epoch, d.Span.Start
	for _, half := range []*model{m, &child} {
		maps.DeleteFunc(half.leases.records, func(id int64, _ modelLease) bool { return !half.isHome(id) })
	}
	return &child
}

// A shard and all that are split off from it, and from those, give what the model gives:
// results, every readable past, leases. Restarts and garbage collection in between change
// nothing.
func TestSplitsFollowModel(t *testing.T) {
	g := seeded(t)
	f := newFixture(t)
	start := initCommand(shard.Span{Start: []byte("b"), End: []byte("y")})
	f.apply(start)
	first := &model{}
	first.apply(start)
	models := []*model{first}
	for range 900 {
		m := models[g.IntN(len(models))]
		f.turn(m.id)
		switch key := g.key(); {
		case g.oneIn(60) && m.span.Contains(key) && string(key) != string(m.span.Start):
			cmd := splitCommand(f.machine.View().Descriptor, models[len(models)-1].id+1, shard.Slot(10+len(models)), string(key))
			// Commands of the same entry come before and after it.
			before, after := m.draw(g), &shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: m.epoch + 1, Revision: int64(g.revision())}
			got := f.apply(before, cmd, after)
			require.True(t, sameResult(m.apply(before), got[0]), describe(before))
			require.NoError(t, got[1].Err)
			child := m.split(shard.DescriptorOf(cmd.Child))
			require.True(t, sameResult(m.apply(after), got[2]))
			models = append(models, child)
			if g.oneIn(2) {
				f.restart()
			}
			f.turn(child.id)
			require.NoError(t, f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: cmd.Child})[0].Err)
			m = child
		case g.oneIn(40):
			f.restart()
		case g.oneIn(4):
			_, err := f.machine.Collect(mvcc.CollectLimits{Versions: 1 + g.IntN(20)})
			require.NoError(t, err)
		default:
			cmd := m.draw(g)
			got := f.apply(cmd)[0]
			if want := m.apply(cmd); !sameResult(want, got) {
				t.Fatalf("shard %s: %s\nmodel:   %v\nmachine: %v", m.id, describe(cmd), want, got)
			}
		}
		view := f.machine.View()
		require.Equal(t, []shard.Revision{m.rev, m.floor, m.compacted}, []shard.Revision{view.Rev, view.Floor, view.Compacted})
		require.True(t, m.span.Equal(view.Descriptor.Span))
		m.checkRead(t, g, f)
		m.checkLeases(t, f)
	}
}

// draw makes a command for the shard.
func (m *model) draw(g *generator) *shardpb.Command {
	g.model = *m
	cmd := g.draw()
	cmd.Epoch += m.epoch - testEpoch
	return cmd
}
