package node

import (
	"fmt"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// level is that of the build.
func (n *Node) level() shard.Level { return shard.CommandLevel - n.cfg.Knobs.OlderBy }

// commonLevel is the highest level that this node and all others of the map run, as far as it is known. The table gives a node no
// higher one: builds from before levels would leave it out of their copies of the table, whose versions then differ. Besides,
// as long as one node is not upgraded, all others can go back.
func (n *Node) commonLevel(m *placement.Map) shard.Level {
	common := n.level()
	for _, other := range m.Nodes() {
		if other.ID != n.self.NodeID {
			common = min(common, max(other.Level, n.health.level(other.ID)))
		}
	}
	if own := m.Node(n.self.NodeID); own != nil {
		common = max(common, own.Level) // it stays, even if a node does not answer now (placement P12)
	}
	return common
}

// bind keeps builds of a lower level from ever starting on the data directory (D6).
func (n *Node) bind(level shard.Level) error {
	n.access.mark.Lock() // which guards the identity file
	defer n.access.mark.Unlock()
	if level <= n.identity.Level {
		return nil
	}
	next := *n.identity
	next.Format, next.Level = identityFormatMax, level
	if err := next.save(n.cfg.FS, n.cfg.DataDir); err != nil {
		return err
	}
	n.identity.Format, n.identity.Level = next.Format, next.Level
	n.log.Info("builds of a lower command level cannot start on this data directory any more", "level", level)
	return nil
}

// checkLevel refuses a directory whose log or store may have what this build does not know.
func checkLevel(id *Identity, level shard.Level, dir string) error {
	if id.Level <= level {
		return nil
	}
	return fmt.Errorf("data directory %s needs command level %d, and this build has %d: it would misread what newer builds have written; start a build at least as new as the last one", dir, id.Level, level)
}
