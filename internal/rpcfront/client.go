package rpcfront

import (
	"context"
	"crypto/tls"
	"net"

	"google.golang.org/grpc/peer"
)

// clientAddr is a client's address, by which a request's connection is found, whichever of the two servers handles
// the request.
type clientAddr struct {
	net.Addr
	conn *conn
}

// Security returns the TLS state of the connection by which the request of a context came; false if it has none.
func Security(ctx context.Context) (tls.ConnectionState, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return tls.ConnectionState{}, false
	}
	a, ok := p.Addr.(clientAddr)
	if !ok {
		return tls.ConnectionState{}, false
	}
	for nc := a.conn.nc; nc != nil; {
		if secure, ok := nc.(interface{ ConnectionState() tls.ConnectionState }); ok {
			return secure.ConnectionState(), true
		}
		outer, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = outer.NetConn()
	}
	return tls.ConnectionState{}, false
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
