package peer

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain has this test binary be the processes that tests start: one that holds back another's fsyncs, and that other.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) > 2 && os.Args[1] == "hold":
		err = Hold(os.Args[2:])
	case len(os.Args) > 2 && os.Args[1] == "sync":
		err = syncTwice(os.Args[2])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func syncTwice(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(f.Sync(), f.Sync())
}

func TestParseStat(t *testing.T) {
	// The command may hold spaces and brackets.
	const tail = " S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 8 0 99 123456 3 rest"
	for _, command := range []string{"(etcd)", "(a b)", "(a) (b)"} {
		u, err := parseStat("42 " + command + tail)
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, u.CPU, command)
		require.Positive(t, u.RSSBytes)
	}
	_, err := parseStat("42 (etcd) S 1 2")
	require.ErrorContains(t, err, "not a stat line")
}

func TestUsageOfThisProcess(t *testing.T) {
	u, err := usageOf(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, u.RSSBytes)
}

func TestParseMachineTime(t *testing.T) {
	got, err := parseMachineTime("cpu  100 0 50 800 40 1 2 7 0 0")
	require.NoError(t, err)
	require.Equal(t, MachineTime{Busy: 1600 * time.Millisecond, All: 10 * time.Second}, got)
	_, err = parseMachineTime("intr 1 2 3")
	require.ErrorContains(t, err, "not a cpu line")
}

func TestSumMetric(t *testing.T) {
	const text = "# HELP m help\nm_other 5\nm{shard=\"a\"} 2\nm{shard=\"b c\"} 3e1\nm_count 9\n"
	sum, err := sumMetric(strings.NewReader(text), "m")
	require.NoError(t, err)
	require.InDelta(t, 32, sum, 0)
	_, err = sumMetric(strings.NewReader(text), "n")
	require.ErrorContains(t, err, "no metric n")
}

func TestCommandsStayOnLoopback(t *testing.T) {
	p := plan{
		Options: Options{Nodes: 3, Shards: 8},
		client:  []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"},
		peer:    []string{"127.0.0.1:4", "127.0.0.1:5", "127.0.0.1:6"},
		dirs:    []string{"/d/n1", "/d/n2", "/d/n3"},
	}
	require.Equal(t, []string{
		"start", "--name", "n2", "--data-dir", "/d/n2", "--client-addr", "127.0.0.1:2", "--peer-addr", "127.0.0.1:5",
		"--join", "127.0.0.1:4,127.0.0.1:5,127.0.0.1:6", "--bootstrap-expect", "3", "--initial-splits", "uniform:8",
	}, Flotilla{}.command(p, 1))
	require.Contains(t, Etcd{}.command(p, 0), "n1=http://127.0.0.1:4,n2=http://127.0.0.1:5,n3=http://127.0.0.1:6")
	p.Shards = 0
	require.NotContains(t, Flotilla{}.command(p, 0), "--initial-splits")
}

func TestFreeAddressesDiffer(t *testing.T) {
	addresses, err := freeAddresses(6)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, a := range addresses {
		require.True(t, strings.HasPrefix(a, "127.0.0.1:"), a)
		require.False(t, seen[a], a)
		seen[a] = true
	}
}

// A server that ends instead of serving is reported with what it said, and nothing
// is left running.
func TestStartTellsWhyItFailed(t *testing.T) {
	_, err := Start(t.Context(), Etcd{Path: "/bin/false"}, Options{Nodes: 2, Dir: t.TempDir()})
	require.ErrorContains(t, err, "etcd node n1: it ended instead of serving")
	_, err = Start(t.Context(), Flotilla{Path: "/bin/nothing"}, Options{Nodes: 1, Dir: t.TempDir()})
	require.ErrorContains(t, err, "find the server")
	_, err = For("cassandra", "")
	require.ErrorContains(t, err, "know etcd and flotilla")
}
