package node_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// A node without room for a shard that it is sent refuses it, keeps nothing of it and goes on with its other replicas. It receives it
// once there is room.
func TestNoRoomForASnapshot(t *testing.T) {
	t.Parallel()
	c := moveCluster(t, func(_ string, cfg *node.Config) {
		cfg.RaftLogEntries, cfg.TickInterval, cfg.MinFreeDisk = 100, steadyTick, 2<<20 // a joiner needs a snapshot
	})
	first, fourth := c.Node(1), c.Node(4)
	random, value := rand.NewChaCha8([32]byte{1}), make([]byte, 64<<10) // what cannot be compressed, in several chunks of 2 MiB
	for i := range 150 {
		random.Read(value)
		put(t, c.Client(t, first), fmt.Sprintf("k/%03d", i), string(value))
	}
	d := theShard(first)
	from := id(leaderOf(t, c, first, ""))
	fourth.Disk.SetFree(6 << 20) // for the first chunk, twice, and half of MinFreeDisk
	beginMove(t, first, d.ID, from, id(fourth))
	testcluster.Until(t, "the node to refuse it", func() bool { return fourth.TimesLogged("receive chunk 1 of a snapshot") >= 2 })
	fourth.Disk.SetFree(1 << 20) // not even for that; what the next attempts bring is none of this
	testcluster.Eventually(t, "nothing of it to be kept", func(context.Context) error { return noRests(fourth.Config().DataDir) })
	require.Error(t, moved(first, d.ID, from, id(fourth)))
	fourth.Disk.SetFree(10 << 30)
	requireMoved(t, first, d.ID, from, id(fourth))
	requireSameMembers(t, c, d.ID)
	got, err := c.Client(t, fourth).Get(t.Context(), "k/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	require.EqualValues(t, 150, got.Count)
}

// noRests is nil if nothing is left of snapshots that did not arrive whole.
func noRests(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && (strings.HasSuffix(e.Name(), ".receiving")) {
			err = fmt.Errorf("%s is left", path)
		}
		return err
	})
}
