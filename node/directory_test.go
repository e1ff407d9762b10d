package node_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// requireRefused starts a node that must not come up, and requires that its one line
// of complaint has the words: what is wrong and what to do.
func requireRefused(t *testing.T, n *testcluster.Node, words ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := n.Run(ctx)
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	for _, w := range words {
		require.ErrorContains(t, err, w)
	}
	require.NotContains(t, err.Error(), "\n", "one line")
	return err
}

// single is a cluster of one node that has served and stopped.
func single(t *testing.T) *testcluster.Cluster {
	t.Helper()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	put(t, c.Client(t), "k", "v")
	c.StopAll()
	return c
}

func TestDirectoriesThatAreRefused(t *testing.T) {
	t.Parallel()
	t.Run("not a node's", func(t *testing.T) {
		c := testcluster.New(t, testcluster.Options{Nodes: 1})
		dir := c.Node(1).Config().DataDir
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600))
		requireRefused(t, c.Node(1), "thesis.txt", "not empty", "--data-dir")
	})
	t.Run("in use", func(t *testing.T) {
		c := testcluster.Start(t, testcluster.Options{Nodes: 1})
		other := c.Add()
		other.Edit(func(cfg *node.Config) { cfg.DataDir = c.Node(1).Config().DataDir })
		requireRefused(t, other, "in use")
		put(t, c.Client(t, c.Node(1)), "still", "here")
	})
	t.Run("cannot be written", func(t *testing.T) {
		// As on a file system that was remounted read-only; root may write to a directory whatever its mode.
		c := single(t)
		lock := filepath.Join(c.Node(1).Config().DataDir, "LOCK")
		require.NoError(t, os.Remove(lock))
		require.NoError(t, os.Mkdir(lock, 0o700))
		err := requireRefused(t, c.Node(1), "lock the data directory", "LOCK: is a directory")
		require.NotContains(t, err.Error(), "in use")
	})
	t.Run("wrong flags", func(t *testing.T) {
		c := single(t)
		n, was := c.Node(1), c.Node(1).Config()
		n.Edit(func(cfg *node.Config) { cfg.Name = "other" })
		requireRefused(t, n, `belongs to node "n1"`, "--name n1")
		n.Edit(func(cfg *node.Config) { *cfg = was; cfg.PeerAddr = testcluster.Lease(t); cfg.Join = nil })
		requireRefused(t, n, "--peer-addr "+was.PeerAddr)
	})
	t.Run("damaged identity", func(t *testing.T) {
		c := single(t)
		require.NoError(t, os.WriteFile(identityOf(c.Node(1)), []byte("{"), 0o600))
		requireRefused(t, c.Node(1), "damaged", "backup")
	})
	t.Run("newer identity", func(t *testing.T) {
		c := single(t)
		replaceIn(t, identityOf(c.Node(1)), `"format": 1`, `"format": 2`)
		requireRefused(t, c.Node(1), "format 2", "this version reads format 1", "start a version")
	})
	for _, part := range []string{"store", "raft"} {
		t.Run(part+" removed", func(t *testing.T) {
			c := single(t)
			require.NoError(t, os.RemoveAll(filepath.Join(c.Node(1).Config().DataDir, part)))
			requireRefused(t, c.Node(1), "gone", "join again with an empty data directory")
		})
	}
	t.Run("store and raft removed", func(t *testing.T) {
		c := single(t)
		for _, part := range []string{"store", "raft"} {
			require.NoError(t, os.RemoveAll(filepath.Join(c.Node(1).Config().DataDir, part)))
		}
		requireRefused(t, c.Node(1), "gone", "join again with an empty data directory")
	})
	for _, file := range []string{"store/data/MANIFEST-*", "store/FLOTILLA-STORE", "raft/*/*/segments/*"} {
		t.Run("damaged "+file, func(t *testing.T) {
			c := single(t)
			paths, err := filepath.Glob(filepath.Join(c.Node(1).Config().DataDir, file))
			require.NoError(t, err)
			require.NotEmpty(t, paths)
			for _, path := range paths {
				require.NoError(t, os.WriteFile(path, []byte("garbage garbage garbage garbage"), 0o600))
			}
			requireRefused(t, c.Node(1), c.Node(1).Config().DataDir)
		})
	}
}

func identityOf(n *testcluster.Node) string {
	return filepath.Join(n.Config().DataDir, "identity.json")
}

func replaceIn(t *testing.T, path, old, with string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(data), old)
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(string(data), old, with)), 0o600))
}
