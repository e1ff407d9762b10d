package apply_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// split divides the model. Both know the whole past and answer for their own keys.
func (m *model) split(d *shard.Descriptor) *model {
	child := *m
	child.id, child.epoch, child.slot, child.span = d.ID, d.Epoch, d.Slot, d.Span
	child.history = slices.Clone(m.history)
	child.leases.records, child.leases.left = maps.Clone(m.leases.records), maps.Clone(m.leases.left)
	child.leases.registered, child.leases.newest = maps.Clone(m.leases.registered), maps.Clone(m.leases.newest)
	m.epoch, m.span.End = d.Epoch, d.Span.Start
	for _, half := range []*model{m, &child} {
		maps.DeleteFunc(half.leases.records, func(id int64, _ modelLease) bool { return !half.isHome(id) })
		maps.DeleteFunc(half.leases.left, func(id int64, _ uint64) bool { return !half.isHome(id) })
	}
	return &child
}

// reshaping is a cluster of one node on which shards split and merge, and the model of each.
type reshaping struct {
	*fixture
	*generator
	t         *testing.T
	models    []*model
	last      shard.ID
	followers []*follower
	// second, unless nil, has the same shards.
	second *secondNode
}

// crash has the node lose power, and then brings its replicas on by their logs.
func (r *reshaping) crash() {
	at := r.id
	r.crashKeeping(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * r.IntN(2), RNG: r.Rand})
	r.dropFeeds()
	for _, id := range slices.Sorted(maps.Keys(r.log)) {
		r.turn(id)
		for entries := r.log[id][r.index:]; len(entries) > 0; {
			n := 1 + r.IntN(len(entries))
			require.NoError(r.t, r.machine.Update(slices.Clone(entries[:n]), nil))
			entries = entries[n:]
		}
	}
	r.turn(at)
}

// mishap is something that makes no difference, or nothing.
func (r *reshaping) mishap() {
	switch {
	case r.oneIn(40):
		r.restart()
		r.dropFeeds()
	case r.oneIn(20):
		r.crash()
	case r.oneIn(20):
		r.fixture.store()
	case r.oneIn(4):
		r.backlog.Gather()
	case r.oneIn(4):
		_, err := r.machine.Collect(mvcc.CollectLimits{Versions: 1 + r.IntN(20)})
		require.NoError(r.t, err)
	}
}

// secure is what goes before an INIT or SUBSUME: what it finds on the node is durable.
func (r *reshaping) secure() {
	require.NoError(r.t, r.engine.Sync())
	if r.oneIn(4) {
		r.crash()
	}
}

// split divides the shard at hand, as part of an entry with other commands, and goes on
// with the child.
func (r *reshaping) split(m *model, key []byte) *model {
	r.last++
	cmd := splitCommand(r.machine.View().Descriptor, r.last, shard.Slot(10+r.last), string(key))
	var child *model
	r.amid(m, cmd, func() { child = m.split(shard.DescriptorOf(cmd.Child)) })
	r.models = append(r.models, child)
	r.secure()
	r.mishap()
	r.turn(child.id)
	require.NoError(r.t, r.fixture.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: cmd.Child})[0].Err)
	return child
}

// amid applies a command in an entry with one before and one after it.
func (r *reshaping) amid(m *model, cmd *shardpb.Command, change func()) {
	before := m.draw(r.generator)
	after := &shardpb.Command{Kind: shardpb.Kind_CLOSE, Revision: int64(r.revision())}
	after.Epoch = cmd.Descriptor_.Epoch
	var got []shard.Result
	if r.oneIn(2) {
		got = r.fixture.apply(before, cmd, after)
	} else { // in one update all the same
		for _, e := range r.updateAll(r.entry(before), r.entry(cmd), r.entry(after)) {
			got = append(got, e.Results...)
		}
	}
	require.True(r.t, sameResult(m.apply(before), got[0]), describe(before))
	require.NoError(r.t, got[1].Err)
	change()
	require.True(r.t, sameResult(m.apply(after), got[2]))
}

// attach does what goes before a REGISTER, where the lease's home is another shard: ATTACH. It
// reports whether the lease is there: for one that is not nobody would send REGISTER, and keys
// would hang on it that its home, should they come there, knows nothing of.
func (r *reshaping) attach(m *model, register *shardpb.Command) bool {
	var req shardpb.LeaseCommand
	require.NoError(r.t, req.UnmarshalVT(register.Body))
	for _, home := range r.models {
		if home == m || !home.isHome(req.Lease) {
			continue
		}
		rec, ok := home.leases.records[req.Lease]
		if !ok || rec.revoking {
			return false
		}
		attach := command(r.t, shardpb.Kind_LEASE_ATTACH, r.stamp, &shardpb.LeaseCommand{
			Lease: req.Lease, Span: &shardpb.Span{Start: m.span.Start, End: m.span.End},
		})
		attach.Epoch = home.epoch
		r.turn(home.id)
		require.True(r.t, sameResult(home.apply(attach), r.fixture.apply(attach)[0]), describe(attach))
		r.turn(m.id)
		req.Incarnation = rec.incarnation
		body, err := req.MarshalVT()
		require.NoError(r.t, err)
		register.Body = body
	}
	return true
}

// hangs reports whether keys hang on a lease that is to be forgotten, or may yet.
func (r *reshaping) hangs(forget *shardpb.Command) bool {
	var req shardpb.LeaseCommand
	require.NoError(r.t, req.UnmarshalVT(forget.Body))
	return slices.ContainsFunc(r.models, func(m *model) bool {
		return m.leases.registered[req.Lease] != 0 || len(m.attached(req.Lease, m.span)) > 0
	})
}

// merge joins the shard at hand and its right neighbour, or begins to and gives it up.
func (r *reshaping) merge(left, right *model) *model {
	if r.second != nil && !r.second.bring(right.id) {
		return left
	}
	r.turn(right.id)
	rightNow := r.machine.View().Descriptor
	r.turn(left.id)
	r.last++
	operator, plan := uint64(r.last), merge(r.machine.View().Descriptor, rightNow)
	r.turn(right.id)
	freeze := plan.freeze(operator)
	freeze.Stamp = int64(r.stamp)
	require.NoError(r.t, r.fixture.apply(freeze)[0].Err)
	right.floor = max(right.floor, r.stamp.Revision())
	for range r.IntN(3) {
		require.Error(r.t, r.fixture.apply(right.draw(r.generator))[0].Err)
		_, err := r.machine.Range(r.rangeRequest(), 0)
		require.Error(r.t, err)
		r.mishap()
		r.watch()
		r.turn(right.id)
		step, err := r.machine.Collect(mvcc.CollectLimits{Versions: 5})
		require.NoError(r.t, err)
		require.False(r.t, step.Ran)
	}
	if r.oneIn(3) {
		require.NoError(r.t, r.fixture.apply(&shardpb.Command{Kind: shardpb.Kind_THAW, OperatorId: operator})[0].Err)
		right.leases.reign++
		return right
	}
	if r.second != nil {
		require.True(r.t, r.second.goOn(right.id, 1000))
		require.NoError(r.t, r.second.engine.Sync())
	}
	r.secure()
	r.turn(left.id)
	r.amid(left, plan.subsume(operator), func() { left.merge(right, plan.into) })
	r.models = slices.DeleteFunc(r.models, func(m *model) bool { return m == right })
	return left
}

// merge gives the model what the right one has.
func (m *model) merge(right *model, into *shard.Descriptor) {
	revs := make(map[shard.Revision]bool)
	for _, s := range slices.Concat(m.history, right.history) {
		revs[s.rev] = true
	}
	join := func(at shard.Revision) state {
		s := state{rev: at, kvs: make(map[string]*mvccpb.KeyValue)}
		for _, half := range []*model{m, right} {
			for _, kv := range inSpan(half.at(at), half.span) {
				s.kvs[string(kv.Key)] = kv
			}
		}
		return s
	}
	var history []state
	for _, rev := range slices.Sorted(maps.Keys(revs)) {
		history = append(history, join(rev))
	}
	m.history, m.now = history, history[len(history)-1]
	m.rev, m.floor, m.compacted = max(m.rev, right.rev), max(m.floor, right.floor), max(m.compacted, right.compacted)
	m.epoch, m.span = into.Epoch, into.Span
	l, other := &m.leases, &right.leases
	maps.Copy(l.records, other.records)
	maps.Copy(l.left, other.left)
	clear(l.registered)
	for id, incarnation := range other.newest {
		l.newest[id] = max(l.newest[id], incarnation)
	}
	for class, fence := range other.fences {
		l.fences[class] = max(l.fences[class], fence)
	}
	l.reign = max(l.reign, other.reign) + 1
}

// rightOf is the shard that begins where the model ends, nil if there is none.
func (r *reshaping) rightOf(m *model) *model {
	i := slices.IndexFunc(r.models, func(o *model) bool { return string(o.span.Start) == string(m.span.End) })
	if i < 0 {
		return nil
	}
	return r.models[i]
}

// A shard and all that are split off from it, and from those, and what is merged again,
// give what the model gives: results, every readable past, leases, watches. Restarts, crashes, garbage
// collection and what is stored when change nothing: reads, which have it stored, are rare.
func TestReshapesFollowModel(t *testing.T) {
	g := seeded(t)
	f := newNode(t, 1, vfs.NewCrashableMem())
	f.log = make(map[shard.ID][]apply.Entry)
	start := initCommand(shard.Span{Start: []byte("b"), End: []byte("y")})
	f.apply(start)
	first := &model{}
	first.apply(start)
	r := &reshaping{fixture: f, generator: g, t: t, models: []*model{first}, last: first.id}
	for range 900 {
		r.step()
	}
	r.checkFollowers()
}

// step does something to a shard.
func (r *reshaping) step() {
	m := r.models[r.IntN(len(r.models))]
	r.turn(m.id)
	switch key, right := r.key(), r.rightOf(m); {
	case r.oneIn(60) && m.span.Contains(key) && string(key) != string(m.span.Start):
		m = r.split(m, key)
	case r.oneIn(20) && right != nil:
		m = r.merge(m, right)
	case r.oneIn(4):
		r.mishap()
	case r.oneIn(4):
		r.watch()
	default:
		r.write(m)
	}
	r.turn(m.id)
	view := r.machine.View()
	require.Equal(r.t, []shard.Revision{m.rev, m.floor, m.compacted}, []shard.Revision{view.Rev, view.Floor, view.Compacted})
	require.True(r.t, m.span.Equal(view.Descriptor.Span))
	if r.oneIn(4) {
		m.checkRead(r.t, r.generator, r.fixture)
	}
	if r.oneIn(8) {
		m.checkLeases(r.t, r.fixture)
	}
}

// write gives the shard at hand some entries at once, of a command each.
func (r *reshaping) write(m *model) {
	var entries []apply.Entry
	var cmds []*shardpb.Command
	var want []shard.Result
	for range 1 + r.IntN(3) {
		cmd := m.draw(r.generator)
		if cmd.Kind == shardpb.Kind_LEASE_REGISTER && (len(cmds) > 0 || !r.attach(m, cmd)) || cmd.Kind == shardpb.Kind_LEASE_FORGET && r.hangs(cmd) {
			continue // nobody would send it, or now
		}
		entries, cmds, want = append(entries, r.entry(cmd)), append(cmds, cmd), append(want, m.apply(cmd))
	}
	for i, e := range r.updateAll(entries...) {
		if got := e.Results[0]; !sameResult(want[i], got) {
			r.t.Fatalf("shard %s: %s\nmodel:   %v\nmachine: %v", m.id, describe(cmds[i]), want[i], got)
		}
	}
}

// draw makes a command for the shard.
func (m *model) draw(g *generator) *shardpb.Command {
	g.model = *m
	cmd := g.draw()
	cmd.Epoch += m.epoch - testEpoch
	return cmd
}
