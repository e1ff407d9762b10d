package proccluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/flotilla-kv/flotilla/internal/proccluster"
)

func TestMain(m *testing.M) { proccluster.Main(m, counter) }

// counter is the node of these tests: it counts its starts in its data directory and
// answers every line on its client address with "<name> <starts> <line>". The line
// "crash" makes it end on its own.
func counter(args []string) int {
	name, dir, addr := args[0], args[1], args[2]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	file := filepath.Join(dir, "starts")
	before, _ := os.ReadFile(file) // the first start finds none
	starts, _ := strconv.Atoi(string(before))
	starts++
	if err := os.WriteFile(file, []byte(strconv.Itoa(starts)), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		fmt.Print("goodbye") // without a newline, on purpose
		os.Exit(0)
	}()
	fmt.Printf("%s is ready to serve client requests, %s\n", name, os.Getenv("COUNTER_GREETING"))
	for {
		conn, err := l.Accept()
		if err != nil {
			return 1
		}
		go func() {
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				if lines.Text() == "crash" {
					os.Exit(3)
				}
				fmt.Fprintf(conn, "%s %d %s\n", name, starts, lines.Text())
			}
		}()
	}
}

func newCluster(t *testing.T, nodes int) *proccluster.Cluster {
	t.Helper()
	self, err := proccluster.Self("COUNTER_GREETING=hello")
	require.NoError(t, err)
	c, err := proccluster.New(t, proccluster.Config{
		Program: self, Nodes: nodes,
		Args: func(n proccluster.Spec, _ []proccluster.Spec) []string {
			return []string{n.Name, n.DataDir, n.ClientAddr}
		},
	})
	require.NoError(t, err)
	return c
}

// ask sends a line and returns the answer, or an error after the timeout.
func ask(addr, line string, timeout time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

const patience = 10 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestNodesServeAfterEveryKindOfEnd(t *testing.T) {
	ctx, c := testContext(t), newCluster(t, 2)
	require.NoError(t, c.Start(ctx))
	require.Len(t, c.Endpoints(), 2)
	n1, n2 := c.Nodes()[0], c.Nodes()[1]

	hears := func(addr, want string) {
		t.Helper()
		got, err := ask(addr, "hi", patience)
		require.NoError(t, err)
		require.Equal(t, want+"\n", got)
	}
	hears(n1.ClientAddr, "n1 1 hi")
	hears(n2.ClientAddr, "n2 1 hi")
	require.Contains(t, strings.Join(n1.Tail(), "\n"), "hello")

	require.NoError(t, n1.Kill())
	require.False(t, n1.Running())
	require.NoError(t, n1.Kill(), "killing twice is harmless")
	_, err := ask(n1.ClientAddr, "hi", patience)
	require.Error(t, err)
	require.NoError(t, n1.Start())
	require.NoError(t, n1.WaitReady(ctx))
	hears(n1.ClientAddr, "n1 2 hi")

	require.NoError(t, n1.Stop(ctx))
	require.Equal(t, "goodbye", n1.Tail()[len(n1.Tail())-1])
	require.NoError(t, n1.Restart())
	require.NoError(t, n1.WaitReady(ctx))
	hears(n1.ClientAddr, "n1 3 hi")
	require.Error(t, n1.Start(), "it is running")
	hears(n2.ClientAddr, "n2 1 hi")
	require.Empty(t, c.Crashes())
}

func TestAPausedNodeAnswersWhenItGoesOn(t *testing.T) {
	ctx, c := testContext(t), newCluster(t, 1)
	require.NoError(t, c.Start(ctx))
	n := c.Nodes()[0]

	require.NoError(t, n.Pause())
	require.Eventually(t, func() bool {
		_, err := ask(n.ClientAddr, "hi", 50*time.Millisecond)
		return errors.Is(err, os.ErrDeadlineExceeded)
	}, patience, time.Millisecond)
	require.True(t, n.Running())
	require.NoError(t, n.Resume())
	got, err := ask(n.ClientAddr, "hi", patience)
	require.NoError(t, err)
	require.Equal(t, "n1 1 hi\n", got)

	require.NoError(t, n.Pause())
	require.NoError(t, n.Stop(ctx), "a paused node can be stopped")
	require.NoError(t, n.Restart())
	require.NoError(t, n.WaitReady(ctx))
	require.NoError(t, n.Pause())
	require.NoError(t, n.Kill(), "and killed")
	require.Empty(t, c.Crashes())
}

func TestANodeThatEndsOnItsOwnIsRemembered(t *testing.T) {
	ctx, c := testContext(t), newCluster(t, 1)
	require.NoError(t, c.Start(ctx))
	n := c.Nodes()[0]
	_, err := ask(n.ClientAddr, "crash", patience)
	require.Error(t, err)
	require.Eventually(t, func() bool { return !n.Running() }, patience, time.Millisecond)
	require.Equal(t, []string{"n1 ended on its own: exit status 3"}, c.Crashes())
	require.NoError(t, n.Stop(ctx), "there is nothing left to stop")
}

func TestANodeThatCannotStartIsNotWaitedFor(t *testing.T) {
	self, err := proccluster.Self()
	require.NoError(t, err)
	c, err := proccluster.New(t, proccluster.Config{
		Program: self, Nodes: 1,
		Args: func(n proccluster.Spec, _ []proccluster.Spec) []string {
			return []string{n.Name, n.DataDir, "256.0.0.1:1"}
		},
	})
	require.NoError(t, err)
	require.ErrorContains(t, c.Start(testContext(t)), "ended before it was ready")
	require.Len(t, c.Crashes(), 1)
}

func TestClustersDoNotSharePorts(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range []*proccluster.Cluster{newCluster(t, 3), newCluster(t, 3)} {
		for _, n := range c.Nodes() {
			require.False(t, seen[n.ClientAddr] || seen[n.PeerAddr])
			seen[n.ClientAddr], seen[n.PeerAddr] = true, true
		}
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("a cluster's life", func(t *testing.T) {
		require.NoError(t, newCluster(t, 1).Start(testContext(t)))
	})
	goleak.VerifyNone(t, before)
}
