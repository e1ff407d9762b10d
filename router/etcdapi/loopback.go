package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// loopbackBufferBytes is how much may be in flight in each direction of a connection.
const loopbackBufferBytes = 256 * 1024

// Loopback is a gRPC server that only this process reaches, in memory. The gateway uses one, so
// that it works whatever addresses and certificates the node listens with.
type Loopback struct {
	server *grpc.Server
	conn   *grpc.ClientConn
	served chan error
}

// StartLoopback starts a gRPC server with the options and the services that register adds.
func StartLoopback(opts []grpc.ServerOption, register func(grpc.ServiceRegistrar)) (*Loopback, error) {
	listener := bufconn.Listen(loopbackBufferBytes)
	conn, err := grpc.NewClient("passthrough:///loopback",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return listener.DialContext(ctx)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The client must accept whatever the server may send.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the node's own API: %w", err)
	}
	l := &Loopback{server: grpc.NewServer(opts...), conn: conn, served: make(chan error, 1)}
	register(l.server)
	go func() { l.served <- l.server.Serve(listener) }()
	return l, nil
}

// Conn is the connection to the server.
func (l *Loopback) Conn() grpc.ClientConnInterface { return l.conn }

// Close aborts the requests in flight and waits for the server to end.
func (l *Loopback) Close() error {
	err := l.conn.Close()
	l.server.Stop()
	served := <-l.served
	if errors.Is(served, grpc.ErrServerStopped) {
		served = nil // stopped before it began to serve
	}
	if err = errors.Join(err, served); err != nil {
		return fmt.Errorf("close the loopback API: %w", err)
	}
	return nil
}
