package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// The life of a replica, told as what its node does next. Each situation is the one before,
// with what the words say.
func TestDuties(t *testing.T) {
	descriptor := func(epoch, generation uint64) *shard.Descriptor {
		return &shard.Descriptor{ID: 7, Epoch: epoch, Generation: generation}
	}
	for _, story := range []struct {
		name  string
		steps []chapter
	}{
		{"a replica of a new shard", []chapter{
			{"the table lists it", func(s *situation) { s.shard = descriptor(1, 1) }, dutyStart},
			{"what is left of another one is in its way", func(s *situation) { s.blocked = true }, dutyNone},
			{"that has gone", func(s *situation) { s.blocked = false }, dutyStart},
			{"it runs and has a leader elsewhere", func(s *situation) { s.running, s.weaned = true, true }, dutyNone},
			{"it leads itself", func(s *situation) { s.leads = true }, dutyInit},
			{"it has applied INIT", func(s *situation) { s.view.Descriptor = descriptor(1, 1) }, dutyNone},
			{"the table gives it another member", func(s *situation) { s.shard = descriptor(1, 2) }, dutyUpdate},
			{"history was compacted too", func(s *situation) { s.compacted = 100 }, dutyUpdate},
			{"it knows the member", func(s *situation) { s.view.Descriptor = descriptor(1, 2) }, dutyCompact},
			{"another node should lead as well", func(s *situation) { s.rightful.ID = 3 }, dutyCompact},
			{"it has compacted", func(s *situation) { s.view.Compacted = 100 }, dutyYield},
			{"it does not lead any more", func(s *situation) { s.leads = false }, dutyNone},
		}},
		{"a leader that may not propose", []chapter{
			{"its clock is wrong", func(s *situation) {
				*s = situation{shard: descriptor(1, 1), running: true, weaned: true, leads: true, clockOff: true}
			}, dutyResign},
			{"nothing else counts", func(s *situation) { s.view.Descriptor, s.shard = descriptor(1, 1), descriptor(1, 2) }, dutyResign},
			{"its clock is right, but it was quarantined", func(s *situation) { s.clockOff, s.unfit = false, true }, dutyResign},
			{"another one leads", func(s *situation) { s.leads = false }, dutyNone},
		}},
		{"a shard that is split", []chapter{
			{"it has given keys away, and may have to bring the seed again", func(s *situation) {
				*s = situation{shard: descriptor(1, 1), running: true, reshaping: true, view: shard.View{Descriptor: descriptor(2, 2)}}
			}, dutyNone},
			{"its node was down when the logs were cut", func(s *situation) { s.shard, s.reshaping = descriptor(2, 2), false }, dutyWean},
			{"it leads and may not propose, and cuts first", func(s *situation) { s.leads, s.clockOff = true, true }, dutyWean},
			{"its log is cut", func(s *situation) { s.weaned, s.clockOff = true, false }, dutyNone},
			{"the next split is under way: the table knows", func(s *situation) { s.shard = descriptor(3, 3) }, dutyNone},
			{"the group knows before the table", func(s *situation) {
				s.shard, s.view.Descriptor = descriptor(2, 3), descriptor(3, 3)
			}, dutyNone},
		}},
		{"the shard that is split off", []chapter{
			{"the operator lists it", func(s *situation) { *s = situation{shard: descriptor(2, 1), splitOff: true} }, dutyStart},
			{"it leads, and is told nothing until there is a seed", func(s *situation) { s.running, s.leads = true, true }, dutyNone},
			{"it was told without one", func(s *situation) { s.unfit = true }, dutyResign},
			{"it does not lead", func(s *situation) { s.leads = false }, dutyNone},
			{"it has begun, and the operator sees to its log", func(s *situation) { s.unfit, s.view.Descriptor = false, descriptor(2, 1) }, dutyNone},
			{"the operator has ended without it", func(s *situation) { s.splitOff = false }, dutyWean},
		}},
		{"a shard that is merged away", []chapter{
			{"it is frozen", func(s *situation) {
				*s = situation{shard: descriptor(1, 2), running: true, weaned: true, leads: true, merging: true, compacted: 100, view: shard.View{Frozen: &shard.Frozen{}}}
			}, dutyNone},
			{"the merge was given up", func(s *situation) { s.merging = false }, dutyThaw},
			{"its clock is wrong", func(s *situation) { s.clockOff = true }, dutyResign},
			{"another node's replica leads", func(s *situation) { s.leads, s.clockOff = false, false }, dutyNone},
			{"it serves again", func(s *situation) { s.leads, s.view = true, shard.View{Descriptor: descriptor(1, 1)} }, dutyUpdate},
		}},
	} {
		t.Run(story.name, func(t *testing.T) {
			var s situation
			for _, c := range story.steps {
				c.change(&s)
				require.Equal(t, c.want, s.duty(), c.what)
			}
		})
	}
}

// chapter changes a situation, and says what is to be done then.
type chapter struct {
	what   string
	change func(*situation)
	want   duty
}
