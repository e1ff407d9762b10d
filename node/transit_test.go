package node_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/node/raftnet"
)

// noise damages what Raft sends: of so many pieces, one. It counts what it did.
type noise struct {
	oneIn int

	mu     sync.Mutex
	random *rand.Rand
	done   map[string]int
}

func (n *noise) damage(_, _ string, first, data []byte) ([]byte, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !bytes.HasPrefix(first, []byte(raftnet.Preface)) || n.random.IntN(n.oneIn) > 0 {
		return data, true
	}
	at := n.random.IntN(len(data))
	switch n.random.IntN(4) {
	case 0:
		n.done["bits flipped"]++
		data[at] ^= 1 << n.random.IntN(8)
		return data, true
	case 1:
		n.done["pieces sent twice"]++
		return append(data[:len(data):len(data)], data[at:]...), true
	case 2:
		n.done["pieces lost"]++
		return append(data[:at:at], data[min(at+n.random.IntN(100)+1, len(data)):]...), true
	default:
		n.done["connections cut short"]++
		return data[:at], false
	}
}

// What Raft sends is damaged on its way: the connection ends, and what was sent is sent again. Nothing damaged is
// applied, and no piece of a snapshot that did not arrive stays behind.
func TestDamageInTransit(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := moveCluster(t, func(_ string, cfg *node.Config) {
		cfg.RaftLogEntries, cfg.TickInterval = 100, steadyTick // a joiner needs a snapshot
	})
	first, fourth := c.Node(1), c.Node(4)
	random := rand.NewChaCha8([32]byte{1})
	value := make([]byte, 8<<10)
	for i := range 600 {
		random.Read(value)
		put(t, c.Client(t, first), fmt.Sprintf("k/%03d", i), string(value))
	}
	d := theShard(first)
	from := id(leaderOf(t, c, first, ""))
	n := &noise{oneIn: 20, random: rand.New(rand.NewPCG(seed, 0)), done: make(map[string]int)}
	c.Network().Damage(n.damage)
	w := startWriters(t, 3, c.Client(t, c.Node(1)), c.Client(t, c.Node(2)), c.Client(t, c.Node(3)))
	beginMove(t, first, d.ID, from, id(fourth))
	testcluster.Eventually(t, "all kinds of damage", func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, kind := range []string{"bits flipped", "pieces sent twice", "pieces lost", "connections cut short"} {
			if n.done[kind] < 5 {
				return fmt.Errorf("so far %v", n.done)
			}
		}
		return nil
	})
	t.Logf("damage: %v; the move: %v", n.done, moved(first, d.ID, from, id(fourth)))
	c.Network().Damage(nil)
	requireMoved(t, first, d.ID, from, id(fourth))
	requireSameMembers(t, c, d.ID)
	before := w.count()
	testcluster.Until(t, "the writers to go on", func() bool { return w.count() > before+20 })
	w.requireKept(t, c.Client(t))
	got, err := c.Client(t, fourth).Get(t.Context(), "k/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	require.EqualValues(t, 600, got.Count)
	require.Equal(t, "agree", check(t, c, first, d.ID).Verdict)
	for _, node := range c.Nodes() {
		testcluster.Eventually(t, "no rest of a snapshot on "+node.Name, func(context.Context) error { return noRests(node.Config().DataDir) })
	}
}
