package testcluster

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pair is a connection of n1 to a listener of n2.
func pair(t *testing.T) (network *Network, n1, n2 net.Conn) {
	t.Helper()
	network = newNetwork()
	t.Cleanup(network.close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	network.know("n2", l.Addr().String())
	n1, err = network.dial(t.Context(), "n1", l.Addr().String())
	require.NoError(t, err)
	n2, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { n1.Close(); n2.Close() })
	return network, n1, n2
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := c.Write([]byte(text))
	require.NoError(t, err)
}

func receive(t *testing.T, c net.Conn, text string) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, len(text))
	_, err := io.ReadFull(c, buf)
	require.NoError(t, err)
	require.Equal(t, text, string(buf))
}

// nothing reads until a short deadline: that nothing comes cannot be waited for.
func nothing(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout(), "%v", err)
}

func TestOneWayCut(t *testing.T) {
	network, n1, n2 := pair(t)
	network.Cut("n1", "n2")
	send(t, n1, "held")
	nothing(t, n2)
	send(t, n2, "passes")
	receive(t, n1, "passes")
	network.Heal()
	receive(t, n2, "held")
}

// Not even the end of a connection passes a cut link (T3).
func TestTheEndOfAConnectionIsHeldToo(t *testing.T) {
	network, n1, n2 := pair(t)
	network.Isolate("n1", "n2")
	send(t, n1, "last words")
	require.NoError(t, n1.Close())
	nothing(t, n2)
	network.Heal()
	receive(t, n2, "last words")
	require.NoError(t, n2.SetReadDeadline(time.Now().Add(patience)))
	_, err := n2.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestDialThroughACutLinkWaits(t *testing.T) {
	network, _, n2 := pair(t)
	network.Cut("n2", "n1") // the answer of the handshake is what is lost
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := network.dial(ctx, "n1", n2.LocalAddr().String())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	network.Heal()
	c, err := network.dial(t.Context(), "n1", n2.LocalAddr().String())
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestDelayIsOneWayAndKeepsOrder(t *testing.T) {
	const delay = 100 * time.Millisecond
	network, n1, n2 := pair(t)
	network.Delay("n1", "n2", delay)
	start := time.Now()
	send(t, n1, "a")
	send(t, n1, "b")
	receive(t, n2, "ab")
	require.GreaterOrEqual(t, time.Since(start), delay)
	require.Less(t, time.Since(start), 2*delay+2*time.Second, "delays must not add up")
}
