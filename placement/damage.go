package placement

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-kv/flotilla/shard"
)

// The results of comparing replicas are recorded as settings, so that they last until somebody removes them. A
// setting's value gives the reason.
const (
	damagedPrefix  = "damaged/"  // followed by a node: one of its replicas held different data from the others
	disputedPrefix = "disputed/" // followed by a shard: no majority of its replicas holds the same data
)

// DamagedSetting returns the name of the setting that records that a node had damaged data.
func DamagedSetting(id shard.NodeID) string { return damagedPrefix + id.String() }

// DisputedSetting returns the name of the setting that makes a shard refuse writes.
func DisputedSetting(id shard.ID) string { return disputedPrefix + id.String() }

// Damaged returns the nodes that had damaged data, ascending.
func (m *Map) Damaged() []shard.NodeID { return named[shard.NodeID](m, damagedPrefix) }

// Disputed returns the shards that refuse writes, ascending.
func (m *Map) Disputed() []shard.ID { return named[shard.ID](m, disputedPrefix) }

// named returns the IDs that settings with this prefix are about. Names that are not IDs are skipped.
func named[ID interface {
	~uint64
	cmp.Ordered
}](m *Map, prefix string) (ids []ID) {
	for _, s := range m.settings {
		word, is := strings.CutPrefix(s.Name, prefix)
		if id, err := strconv.ParseUint(word, 10, 64); is && err == nil {
			ids = append(ids, ID(id))
		}
	}
	slices.Sort(ids)
	return ids
}
