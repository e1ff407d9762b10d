package node

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/hlc"
)

// What a closing connection fails may be sent to another node, by the goroutine for which close waits.
func TestPeersCloseWhileRequestsTurnElsewhere(t *testing.T) {
	dialed := make(chan struct{}, 8)
	p := newPeers(func(ctx context.Context, _ string) (net.Conn, error) {
		dialed <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}, hlc.NewHybrid(clock.System{}), nil)
	ended := make(chan error, 1)
	p.at("a:1").Start(&router.Request{Shard: 2, Op: routerpb.Op_OP_PROBE}, router.EndFunc(func(_ *router.Reply, err error) {
		p.at("b:1")
		ended <- err
	}))
	<-dialed
	p.close()
	require.ErrorIs(t, <-ended, shard.ErrUnavailable)
}
