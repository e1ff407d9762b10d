package node_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node/raftnet"
)

// Connections that speak nonsense, or stop in the middle of a word, end; the traffic of
// others goes on meanwhile.
func TestGarbageOnBothPorts(t *testing.T) {
	t.Parallel()
	const seed = 1
	random := rand.NewChaCha8([32]byte{seed})
	noise := func(n int) []byte {
		b := make([]byte, n)
		random.Read(b)
		return b
	}
	const http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	garbage := [][]byte{
		nil, // half open
		noise(1), noise(10_000),
		[]byte(http2[:10]), []byte(http2), append([]byte(http2), noise(10_000)...),
		[]byte("GET / HTTP/1.1\r\nHo"), []byte("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"),
		append([]byte("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n"), noise(4096)...),
		[]byte(raftnet.Preface), append([]byte(raftnet.Preface), noise(10_000)...),
		// A frame that claims to be enormous, and one with a wrong checksum.
		append([]byte(raftnet.Preface), 0x0f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1),
		append([]byte(raftnet.Preface), 0, 0, 0, 2, 1, 2, 3, 4, 1, 'h', 'i'),
	}
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick, Splits: "uniform:4"})
	w := startPatientWriters(t, 3, c.Client(t, c.Node(1)), c.Client(t, c.Node(2)), c.Client(t, c.Node(3)))
	var conns []net.Conn
	for range 3 {
		for _, n := range c.Nodes() {
			for _, addr := range []string{n.ClientAddr(), n.PeerAddr()} {
				for i, bytes := range garbage {
					conn, err := net.Dial("tcp", addr)
					require.NoError(t, err)
					t.Cleanup(func() { conn.Close() })
					_, _ = conn.Write(bytes) // the node may have hung up already
					if i%2 == 0 {
						conns = append(conns, conn) // left half open
						continue
					}
					_ = conn.(*net.TCPConn).CloseWrite() // or it has by now
					require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
					_, err = io.Copy(io.Discard, conn)
					require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "%s keeps a connection that ended after %.40q", addr, bytes)
				}
			}
		}
		before := w.count()
		testcluster.Until(t, "writes to go on", func() bool { return w.count() > before+50 })
	}
	w.requireKept(t, c.Client(t))
	require.Empty(t, w.mu.failed, "seed %d", seed)
	started := time.Now()
	c.StopAll() // half-open connections do not hold it up
	require.Less(t, time.Since(started), 8*time.Second, fmt.Sprint(len(conns), " connections were open"))
}
