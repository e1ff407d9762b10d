package placement

import (
	"slices"

	"github.com/flotilla-kv/flotilla/shard"
)

const slotCount = 256

// slotUse counts the shards that have each slot.
type slotUse [slotCount]int

// take returns the least used slot that no neighbour has, the lowest if there are several, and counts it. So slots
// are unique while there are at most 256 shards (P3).
func (u *slotUse) take(neighbours ...shard.Slot) shard.Slot {
	best := -1
	for i := range u {
		if slices.Contains(neighbours, shard.Slot(i)) {
			continue
		}
		if best < 0 || u[i] < u[best] {
			best = i
		}
	}
	u[best]++
	return shard.Slot(best)
}
