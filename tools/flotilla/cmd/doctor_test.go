package cmd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
)

// A cluster that is well has no error. When a node has stopped that is told, with what follows from it.
func TestDoctor(t *testing.T) {
	besideOthers(t)
	self, err := proccluster.Self()
	require.NoError(t, err)
	c, err := proccluster.New(t, proccluster.Config{Program: self, Nodes: 3, Args: founder})
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context()))
	sh := newShellAt(t, strings.Join(c.Endpoints(), ","))

	// A cluster that was just founded may still be electing.
	out := sh.run(t, "until flotilla doctor > said 2>&1; do :; done; cat said")
	for _, words := range []string{
		"3 nodes are reachable and ready", "4 shards have a leader and all replicas", "no alarm is raised", "the clocks agree", "strangers are kept out",
	} {
		require.Contains(t, out, "ok      ")
		require.Contains(t, out, words)
	}
	require.NoError(t, c.Nodes()[2].Kill())
	out = sh.run(t, "until flotilla doctor > said 2>&1; [ $? = 1 ] && grep -q 'fewer than 3' said; do :; done; cat said")
	require.Contains(t, out, "error   node n3 does not answer: http://"+c.Nodes()[2].ClientAddr+" refuses connections")
	require.Contains(t, out, "do:  start it again with the same flags")
	require.Contains(t, out, "flotilla: found ")
	require.Contains(t, sh.run(t, "flotilla doctor -o json"), `"severity":"error"`)
	require.NotContains(t, readFile(t, filepath.Join(sh.dir, "said")), "could not be learned")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
