package cmd_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/ports"
	"github.com/flotilla-kv/flotilla/internal/proccluster"
	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// process is a running flotilla.
type process struct {
	*exec.Cmd
	stdout *bufio.Scanner
	stderr bytes.Buffer
}

func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	self, err := proccluster.Self(env...)
	require.NoError(t, err)
	p := &process{Cmd: exec.Command(self.Path, args...)}
	p.Env = append(os.Environ(), self.Env...)
	p.Stderr = &p.stderr
	_, err = p.StdinPipe() // nothing comes
	require.NoError(t, err)
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	p.stdout = bufio.NewScanner(out)
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		_ = p.Process.Kill() // it has ended unless the test failed
		_, _ = io.Copy(io.Discard, out)
		_ = p.Wait()
	})
	return p
}

// waitFor reads what the process prints until a line contains the words.
func (p *process) waitFor(t *testing.T, words string) {
	t.Helper()
	for p.stdout.Scan() {
		if strings.Contains(p.stdout.Text(), words) {
			return
		}
	}
	_ = p.Wait()
	t.Fatalf("it ended without printing %q: %s", words, p.stderr.String())
}

// requireEnd sends the signal and requires that the process ends well, and soon.
func (p *process) requireEnd(t *testing.T, sig syscall.Signal) {
	t.Helper()
	sent := time.Now()
	require.NoError(t, p.Process.Signal(sig))
	for p.stdout.Scan() {
	}
	require.NoError(t, p.Wait(), "exit code 0 after %s; it printed: %s", sig, p.stderr.String())
	require.Less(t, time.Since(sent), 8*time.Second)
}

func lease(t *testing.T) *ports.Port {
	t.Helper()
	p, err := ports.Lease()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Release()) })
	return p
}

func TestSignalsEndANodeInOrder(t *testing.T) {
	args := []string{"start", "--name", "n1", "--data-dir", t.TempDir(), "--client-addr", lease(t).Addr(), "--peer-addr", lease(t).Addr()}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := start(t, nil, args...)
		p.waitFor(t, "is ready to serve client requests on "+args[6])
		p.requireEnd(t, sig)
		for line := range strings.Lines(p.stderr.String()) {
			require.Contains(t, line, "level=", "every line of the log is structured")
		}
	}
}

// A founder that still waits for the others can be stopped like any other node.
func TestSIGTERMWhileStarting(t *testing.T) {
	peer, other := lease(t), lease(t)
	p := start(t, nil, "start", "--name", "n1", "--data-dir", t.TempDir(), "--client-addr", lease(t).Addr(), "--peer-addr", peer.Addr(),
		"--join", peer.Addr()+","+other.Addr(), "--bootstrap-expect", "2")
	requireListening(t, peer.Addr())
	p.requireEnd(t, syscall.SIGTERM)
	require.Contains(t, p.stderr.String(), "founder "+other.Addr()+" to answer")
}

// A command that waits for standard input can be interrupted like any other.
func TestAnInterruptWhileReading(t *testing.T) {
	p := start(t, nil, "txn", "--interactive")
	p.waitFor(t, "compares:")
	require.NoError(t, p.Process.Signal(syscall.SIGINT))
	for p.stdout.Scan() {
	}
	require.Error(t, p.Wait())
	require.Equal(t, 1, p.ProcessState.ExitCode())
	require.Contains(t, p.stderr.String(), "interrupted")
}

// requireListening waits until something accepts connections.
func requireListening(t *testing.T, addr string) {
	t.Helper()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}, 10*time.Second, 10*time.Millisecond, "%s is not listened on", addr)
}

// demoPort is a port for a demo, all of whose ports are free and none is among those
// that the system gives to connections, which come and go at any time.
func demoPort(t *testing.T) int {
	t.Helper()
	for {
		port := 1100 + rand.IntN(1600)
		if !slices.ContainsFunc([]int{0, 1, 20_000, 20_001, 30_000, 30_001}, func(offset int) bool {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+offset))
			return err != nil || l.Close() != nil
		}) {
			return port
		}
	}
}

func TestDemo(t *testing.T) {
	temp, port := t.TempDir(), demoPort(t)
	p := start(t, []string{"TMPDIR=" + temp}, "demo", "--port", fmt.Sprint(port))
	p.waitFor(t, "ready to serve client requests")
	requireProcessMetrics(t, fmt.Sprintf("127.0.0.1:%d", port+20_000))
	p.requireEnd(t, syscall.SIGINT)
	requireCalm(t, p.stderr.String())
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "the data goes with the demo")
}

// requireProcessMetrics requires what etcdctl check datascale reads from the node it is given.
func requireProcessMetrics(t *testing.T, addr string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "\nprocess_resident_memory_bytes ")
}

// requireCalm requires a log that warns of nothing, but for a start that takes long
// because the machine is busy.
func requireCalm(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		require.Contains(t, line, `msg="not serving clients yet"`, "nothing to warn of")
	}
}

func TestDemoOnATakenPort(t *testing.T) {
	port := demoPort(t)
	for _, offset := range []int{0, 1, 20_000, 30_001} {
		addr := fmt.Sprintf("127.0.0.1:%d", port+offset)
		l, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		var stdout, stderr bytes.Buffer
		code := cmd.Run(t.Context(), []string{"demo", "--log-level", "error", "--port", fmt.Sprint(port)}, &stdout, &stderr)
		require.NoError(t, l.Close())
		require.Equal(t, 1, code)
		require.Contains(t, stderr.String(), addr)
		require.Contains(t, stderr.String(), "address already in use")
		require.Contains(t, stderr.String(), "--port")
		require.Equal(t, 1, strings.Count(stderr.String(), "\n"), "one line: %s", stderr.String())
	}
}

func TestDemoPortTooHigh(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, cmd.Run(t.Context(), []string{"demo", "--port", "40000"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "--port 40000")
	require.Contains(t, stderr.String(), "35534")
}

func TestVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Equal(t, 0, cmd.Run(t.Context(), []string{"version"}, &stdout, &stderr), stderr.String())
	require.Contains(t, stdout.String(), "etcd API 3.")
}
