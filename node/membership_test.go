package node_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// A fourth node holds no replica, but it serves clients like the others.
func TestJoin(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	put(t, c.Client(t), spread(0, "before"), "v")
	fourth := c.Add()
	fourth.Start(t)
	client := c.Client(t, fourth)
	requireValue(t, client, spread(0, "before"), "v")
	for i := range 8 {
		put(t, client, spread(i, "through the fourth"), "v")
		requireValue(t, c.Client(t, c.Node(1)), spread(i, "through the fourth"), "v")
	}
	all, from := everything()
	resp, err := client.Get(t.Context(), all, from)
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 9)
	for _, n := range c.Nodes() {
		testcluster.Eventually(t, n.Name+" to list the fourth node", func(ctx context.Context) error {
			list, err := c.Client(t, n).MemberList(ctx)
			if err != nil {
				return err
			}
			var names []string
			for _, m := range list.Members {
				names = append(names, m.Name)
				if m.Name == "n4" && slices.Equal(m.ClientURLs, []string{"http://" + fourth.ClientAddr()}) {
					return nil
				}
			}
			return fmt.Errorf("it lists %v", names)
		})
	}
	t.Run("again after a restart", func(t *testing.T) {
		fourth.Restart(t)
		requireValue(t, c.Client(t, fourth), spread(0, "before"), "v")
	})
	t.Run("not by client ports", func(t *testing.T) {
		lost := c.Add()
		lost.Edit(func(cfg *node.Config) {
			cfg.Join = []string{c.Node(1).ClientAddr()}
			cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) { // the test's network knows peer ports only
				return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- lost.Run(ctx) }()
		testcluster.Until(t, "the node to say what is wrong", func() bool {
			return lost.Logged("is no node's --peer-addr, which --join wants, but a --client-addr perhaps")
		})
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	t.Run("not with its data lost", func(t *testing.T) {
		fourth.Stop()
		require.NoError(t, os.RemoveAll(fourth.Config().DataDir))
		requireRefused(t, fourth, `"n4"`, "another data directory", "new --name")
	})
	t.Run("not a founder with its data lost", func(t *testing.T) {
		founder := c.Node(2)
		founder.Stop()
		require.NoError(t, os.RemoveAll(founder.Config().DataDir))
		requireRefused(t, founder, `"n2"`, "another data directory", "new --name", "empty data directory")
		put(t, c.Client(t, c.Node(1)), spread(0, "after"), "v") // the others go on
	})
	t.Run("not under the name of another", func(t *testing.T) {
		impostor := c.Add()
		impostor.Edit(func(cfg *node.Config) { cfg.Name = "n1" })
		requireRefused(t, impostor, `"n1"`, "another data directory")
	})
}

// A node that was down while its replicas were replaced and it was removed comes back with all
// that it had. It is refused, says what to do, and serves nobody; another one may have its name.
func TestARemovedNodeComesBackWithItsData(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "m"})
	put(t, c.Client(t), "a", "old")
	put(t, c.Client(t), "z", "old")
	c.Add().Start(t)
	first, gone := c.Node(1), c.Node(3)
	briskly(t, first, nil)
	lost := id(gone)
	gone.Stop()
	setState(t, c, gone, placement.Decommissioning)
	requireVoters(t, first, 3, id(first), id(c.Node(2)), id(c.Node(4)))
	testcluster.Eventually(t, "the node to be removed", func(ctx context.Context) error {
		_, err := admin(t, c, first).RemoveNode(ctx, &adminpb.RemoveNodeRequest{Node: gone.Name})
		return err
	})
	client := c.Client(t, first, c.Node(2), c.Node(4))
	put(t, client, "a", "new")
	put(t, client, "z", "new")

	for range 2 {
		requireRefused(t, gone, "was removed from cluster", "empty data directory")
	}
	m := first.Inside().Map()
	require.Equal(t, placement.Removed, m.Node(lost).State)
	require.Empty(t, m.OnNode(lost))
	requireVoters(t, first, 3, id(first), id(c.Node(2)), id(c.Node(4)))
	namesake := c.Add()
	namesake.Edit(func(cfg *node.Config) { cfg.Name = gone.Name })
	namesake.Start(t)
	require.NotEqual(t, lost, id(namesake))
	requireRefused(t, gone, "was removed from cluster")
	for _, n := range []*testcluster.Node{first, c.Node(2), c.Node(4), namesake} {
		requireValue(t, c.Client(t, n), "a", "new")
		requireValue(t, c.Client(t, n), "z", "new")
	}
}

func TestTakenPorts(t *testing.T) {
	t.Parallel()
	for flag, edit := range map[string]func(*node.Config, string){
		"--client-addr": func(cfg *node.Config, addr string) { cfg.ClientAddr = addr },
		"--peer-addr":   func(cfg *node.Config, addr string) { cfg.PeerAddr, cfg.Join = addr, nil },
		"--admin-addr":  func(cfg *node.Config, addr string) { cfg.AdminAddr = addr },
	} {
		t.Run(flag, func(t *testing.T) {
			l, err := net.Listen("tcp", testcluster.Lease(t))
			require.NoError(t, err)
			defer l.Close()
			c := testcluster.New(t, testcluster.Options{Nodes: 1})
			was := c.Node(1).Config()
			c.Node(1).Edit(func(cfg *node.Config) { edit(cfg, l.Addr().String()) })
			requireRefused(t, c.Node(1), flag, l.Addr().String(), "address already in use")
			// What was begun is undone: the same directory and ports serve afterwards.
			if flag != "--peer-addr" {
				c.Node(1).Edit(func(cfg *node.Config) { *cfg = was })
				c.Node(1).Start(t)
			}
		})
	}
}

func TestFoundersThatDisagree(t *testing.T) {
	t.Parallel()
	t.Run("two of the same name", func(t *testing.T) {
		for _, same := range [][2]int{{1, 2}, {2, 3}} {
			t.Run(fmt.Sprint(same), func(t *testing.T) {
				c := testcluster.New(t, testcluster.Options{})
				c.Node(same[1]).Edit(func(cfg *node.Config) { cfg.Name = c.Node(same[0]).Name })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				failed := make(chan error, 3)
				for _, n := range c.Nodes() {
					go func() { failed <- n.Run(ctx) }()
				}
				err := <-failed
				require.ErrorContains(t, err, fmt.Sprintf("same --name %q", c.Node(same[0]).Name))
				cancel()
				<-failed
				<-failed
				for _, n := range c.Nodes() {
					require.NotContains(t, readFile(t, identityOf(n)), "cluster", "nothing was founded")
				}
			})
		}
	})
	t.Run("different --join lists", func(t *testing.T) {
		c := testcluster.New(t, testcluster.Options{})
		third := c.Node(3)
		good := third.Config()
		third.Edit(func(cfg *node.Config) {
			cfg.Join = []string{cfg.PeerAddr, testcluster.Lease(t)}
			cfg.BootstrapExpect = 2
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 3)
		for _, n := range c.Nodes() {
			go func() {
				if n == third {
					done <- n.Run(ctx)
				} else {
					done <- n.Run(t.Context())
				}
			}()
		}
		testcluster.Until(t, "the first to say what it waits for", func() bool {
			return c.Node(1).Logged("to be started with the same --join and --bootstrap-expect")
		})
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		third.Edit(func(cfg *node.Config) { *cfg = good })
		third.Start(t)
		require.NoError(t, <-done)
		require.NoError(t, <-done)
	})
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

// A node whose addresses were taken over by another cluster does not mix with it.
func TestDirectoryOfAnotherCluster(t *testing.T) {
	t.Parallel()
	a := testcluster.Start(t, testcluster.Options{})
	put(t, a.Client(t), "whose", "a")
	a.StopAll()
	// The same addresses, other data: another cluster.
	b := testcluster.New(t, testcluster.Options{})
	for i, n := range b.Nodes() {
		old := a.Nodes()[i].Config()
		n.Edit(func(cfg *node.Config) {
			cfg.PeerAddr, cfg.Join, cfg.Dial = old.PeerAddr, old.Join, old.Dial
		})
	}
	b.StartAll(t)
	put(t, b.Client(t), "whose", "b")
	b.Node(3).Stop()
	requireRefused(t, a.Node(3), "another cluster", a.Node(3).Config().DataDir)
	requireValue(t, b.Client(t, b.Node(1)), "whose", "b")
	b.Node(3).Start(t)
	requireValue(t, b.Client(t, b.Node(3)), "whose", "b")
}
