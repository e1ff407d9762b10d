package cmd_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
)

// The flag package wants its variables before the tests run; nothing else changes it.
var endpointsFlag = flag.String("endpoints", "", "run the client commands against these servers, whose data is lost, instead of a demo")

// shell runs scripts in which flotilla is this binary, connected to a cluster.
type shell struct {
	env []string
	dir string
}

// newShell starts three nodes, or uses the servers that -endpoints names.
func newShell(t *testing.T) *shell {
	t.Helper()
	return newShellAt(t, *endpointsFlag)
}

// newShellAt starts a cluster if there are no endpoints.
func newShellAt(t *testing.T, endpoints string) *shell {
	t.Helper()
	self, err := proccluster.Self()
	require.NoError(t, err)
	sh := &shell{dir: t.TempDir()}
	require.NoError(t, os.Symlink(self.Path, filepath.Join(sh.dir, "flotilla")))
	if endpoints == "" {
		c, err := proccluster.New(t, proccluster.Config{Program: self, Nodes: 3, Args: founder})
		require.NoError(t, err)
		require.NoError(t, c.Start(t.Context()))
		endpoints = strings.Join(c.Endpoints(), ",")
	}
	sh.env = append(os.Environ(), self.Env...)
	sh.env = append(sh.env, "PATH="+sh.dir+":"+os.Getenv("PATH"), "FLOTILLA_ENDPOINTS="+endpoints)
	return sh
}

// besideOthers lets a test that has a cluster of its own run beside others: alone it leaves processors idle. With
// -endpoints all tests have the same servers, and run one after the other.
func besideOthers(t *testing.T) {
	t.Helper()
	if *endpointsFlag == "" {
		t.Parallel()
	}
}

// founder is how one of a cluster's first nodes is started.
func founder(node proccluster.Spec, all []proccluster.Spec) []string {
	var join []string
	for _, n := range all {
		join = append(join, n.PeerAddr)
	}
	return []string{
		"start", "--name", node.Name, "--data-dir", node.DataDir, "--client-addr", node.ClientAddr, "--peer-addr", node.PeerAddr,
		"--join", strings.Join(join, ","), "--bootstrap-expect", fmt.Sprint(len(all)), "--initial-splits", "g,n,t",
	}
}

// patience is long because other tests may share the machine.
const patience = time.Minute

// run returns what a script prints on stdout and stderr.
func (sh *shell) run(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-c", script)
	c.Env, c.Dir, c.WaitDelay = sh.env, sh.dir, time.Second
	out, err := c.CombinedOutput()
	require.NoError(t, ctx.Err(), "%s\nhas printed %s", script, out)
	if err != nil {
		return string(out) + err.Error() + "\n"
	}
	return string(out)
}

// masked replaces what differs from run to run.
func masked(text string) string {
	for _, mask := range [][2]string{
		{`\b\d{15,20}\b`, "NUMBER"}, // a revision, the cluster's ID
		{`\b[0-9a-f]{14,16}\b`, "ID"},
		{`member_id(\W+)\d`, "member_id${1}N"},
		{`127\.0\.0\.1:\d+`, "ADDRESS"},
		{`took = \S+`, "took = TIME"},
		{`remaining\(\d+s\)`, "remaining(TTL)"},
		// The width of a table depends on what is masked.
		{`(?m)^[-+|]*\+$\n`, ""},
		{` +\|`, " |"},
		{`\| +`, "| "},
	} {
		text = regexp.MustCompile(mask[0]).ReplaceAllString(text, mask[1])
	}
	return text
}

// TestClientStories runs shell scripts on a cluster of three nodes and four shards.
func TestClientStories(t *testing.T) {
	besideOthers(t)
	sh := newShell(t)
	stories := []string{"testdata/client", "testdata/streams"}
	if *endpointsFlag != "" {
		stories = stories[1:] // what is told of the cluster itself is Flotilla's
	}
	for _, story := range stories {
		datadriven.Walk(t, story, func(t *testing.T, path string) {
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				require.Equal(t, "sh", d.Cmd)
				return masked(sh.run(t, d.Input))
			})
		})
	}
}
