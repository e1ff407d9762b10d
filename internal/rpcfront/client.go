package rpcfront

import (
	"context"
	"net"

	"google.golang.org/grpc/peer"
)

// clientAddr is a client's address, by which a request's connection is found, whichever of the two servers handles
// the request.
type clientAddr struct {
	net.Addr
	conn *conn
}

// Client returns the connection by which the request of a context came: gone ends with the connection, and hangup ends
// it. They are nil for requests that did not come through this package.
func Client(ctx context.Context) (gone context.Context, hangup func()) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, nil
	}
	a, ok := p.Addr.(clientAddr)
	if !ok {
		return nil, nil
	}
	return a.conn.gone, a.conn.close
}
