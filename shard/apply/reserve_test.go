package apply_test

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// promiser is a proposer as package replica has it, with a clock that may say anything.
type promiser struct {
	node        uint64
	reservation uint64 // that it believes to have
	promised    shard.Revision
	lost        []*shardpb.Batch // nobody knows what became of them
}

// promising is a log that several proposers write to.
type promising struct {
	*fixture
	*generator
	t        *testing.T
	sequence uint64
	promised shard.Revision // by anybody
}

// launch makes a batch of the proposer's.
func (p *promising) launch(by *promiser, cmds ...*shardpb.Command) *shardpb.Batch {
	p.sequence++
	b := &shardpb.Batch{Format: 1, NodeId: by.node, Incarnation: 5, Sequence: p.sequence, Reservation: by.reservation, Commands: cmds}
	stamp := max(shard.Tick(p.IntN(2000)), by.promised.Tick()+1)
	for _, cmd := range cmds {
		cmd.Epoch, cmd.Stamp = p.machine.View().Descriptor.Epoch, int64(stamp)
	}
	return b
}

// commit applies a batch, and looks whether what it has minted was promised to nobody.
func (p *promising) commit(b *shardpb.Batch) {
	before := p.machine.View()
	data, err := b.MarshalVT()
	require.NoError(p.t, err)
	p.index++
	for _, result := range p.update(apply.Entry{Index: p.index, Data: data}) {
		require.NoError(p.t, result.Err)
	}
	if v := p.machine.View(); v.Rev > before.Rev {
		require.Greater(p.t, v.Rev, p.promised)
	}
}

// A12: whoever leads, in whatever order batches come, also those that were given up on,
// nothing is minted that one of them has promised not to. Restarts change nothing.
func TestReservedRevisionsAreMintedByOne(t *testing.T) {
	p := &promising{fixture: newFixture(t), generator: seeded(t), t: t}
	p.fixture.apply(initCommand(shard.Everything()))
	proposers := []*promiser{{node: 1}, {node: 2}, {node: 3}}
	by := proposers[0]
	kept := 0
	for range 3000 {
		if p.oneIn(10) {
			by = proposers[p.IntN(len(proposers))]
		}
		view := p.machine.View()
		holds := view.Reserved != nil && uint64(view.Reserved.Node) == by.node && view.Reserved.Sequence == by.reservation
		switch {
		case p.oneIn(8):
			b := p.launch(by, &shardpb.Command{Kind: shardpb.Kind_CLOSE, Revision: int64(view.Floor), Reserve: int64(view.Floor) + p.Int64N(20_000)})
			p.commit(b)
			by.reservation = b.Sequence
		case p.oneIn(3) && holds:
			to := max(view.Floor, view.Reserved.Until)
			by.promised = max(by.promised, view.Floor+shard.Revision(p.Int64N(int64(to-view.Floor)+1)))
			kept++
			p.promised = max(p.promised, by.promised)
		case p.oneIn(30):
			by.lost = append(by.lost, p.launch(by, command(t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: []byte("lost")})))
			by.reservation = 0
		case p.oneIn(10) && len(by.lost) > 0:
			b := by.lost[0]
			by.lost = by.lost[1:]
			p.commit(b)
		case p.oneIn(50):
			p.restart()
		default:
			p.commit(p.launch(by, command(t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: p.key()})))
		}
	}
	require.Greater(t, kept, 100)
}

// What gets some of the shard's keys begins above what was reserved, though the proposer
// that had reserved it writes the command.
func TestReservationsEndWhereKeysGo(t *testing.T) {
	reserved := func(f *fixture) shard.Revision {
		until := f.machine.View().Floor + 1<<20
		f.apply(&shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: f.machine.View().Descriptor.Epoch, Reserve: int64(until)})
		require.Equal(t, until, f.machine.View().Reserved.Until)
		return until
	}
	own := func(f *fixture, cmd *shardpb.Command) {
		data, err := (&shardpb.Batch{Format: 1, NodeId: 1, Sequence: 1, Reservation: 1, Commands: []*shardpb.Command{cmd}}).MarshalVT()
		require.NoError(t, err)
		f.index++
		require.NoError(t, f.update(apply.Entry{Index: f.index, Data: data})[0].Err)
	}
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	until := reserved(f)
	split := splitCommand(f.machine.View().Descriptor, 3, 9, "m")
	own(f, split)
	require.NotNil(t, f.machine.View().Reserved, "the parent's proposer may go on")
	left := f.machine.View().Descriptor
	f.turn(3)
	f.apply(&shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: split.Child})
	child := f.machine.View()
	require.GreaterOrEqual(t, child.Floor, until)
	require.Nil(t, child.Reserved)

	until = reserved(f)
	own(f, merge(left, f.machine.View().Descriptor).freeze(7))
	require.GreaterOrEqual(t, f.machine.View().Floor, until)
	require.Nil(t, f.machine.View().Reserved)
}

func TestReservationBytes(t *testing.T) {
	view := shard.View{Applied: 1, Rev: 1, Floor: 1, Reserved: &shard.Reservation{Until: 300, Node: 2, Incarnation: 3, Sequence: 4}}
	state, err := apply.MarshalState(view)
	require.NoError(t, err)
	require.Equal(t, "08011001180120016a0908ac02100218032004", hex.EncodeToString(state))
	back, err := apply.UnmarshalState(state)
	require.NoError(t, err)
	require.Equal(t, view, back)
	batch, err := (&shardpb.Batch{Format: 1, Reservation: 5, Commands: []*shardpb.Command{{Kind: shardpb.Kind_CLOSE, Reserve: 300}}}).MarshalVT()
	require.NoError(t, err)
	require.Equal(t, "08012205080460ac023005", hex.EncodeToString(batch))
}
