package replica

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// Whoever is told to stands for election at once, long before a timeout ends, and only in
// groups without a leader (P11).
func TestCampaign(t *testing.T) {
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { c.Raft.ElectionTicks = 1 << 20 })
	defer func() { p.close() }()
	p.startNew()
	_, term := p.host.Leader(testShard)
	p.host.Campaign([]Held{{testShard, testReplica}})
	p.put("a", "1")
	_, after := p.host.Leader(testShard)
	require.Equal(t, term, after)
	p.host.Campaign([]Held{{Shard: shard.ID(99), Replica: 1}}) // which does not run
	p.put("a", "2")
}
