package lease

import (
	"fmt"
	"maps"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Absorb takes in what another shard knew, whose keys become this one's. Its records stay
// where they are stored. Afterwards:
//
//   - Nobody attaches by a registration of either: the record of a lease that was
//     registered with one of the shards need not cover the other's keys (L2). They still
//     tell a late DETACH of an earlier lease from one that is meant.
//   - The fences are the higher ones, so that they have not fallen for anybody (L6).
//   - A new reign is to begin: what was found expired in a reign of either is void (L3). How
//     long leases have left is known as far as the last reigns have told (L9).
func (u *Update) Absorb(s *shardpb.LeaseState) error {
	other, err := NewTable(s)
	if err != nil {
		return fmt.Errorf("leases of the neighbour: %w", err)
	}
	b := u.write()
	b.reign = max(b.reign, other.book.reign) + 1
	// Before the leases come: each will speaks of those that its own shard had.
	u.leave(joined(b.reign, bequest{u.lastWill(), u.Record}, bequest{other.will, other.Record}))
	u.came = other.records
	mine := maps.Clone(u.t.registered)
	maps.Copy(mine, u.registered)
	for _, registered := range []map[int64]registration{mine, other.registered} {
		for id, r := range registered {
			if newest := max(r.incarnation, u.Newest(id)); newest != 0 {
				put(&u.registered, id, registration{incarnation: newest, void: true})
			}
		}
	}
	for class, fence := range other.book.fences {
		b.fences[class] = max(b.fences[class], fence)
	}
	return nil
}
