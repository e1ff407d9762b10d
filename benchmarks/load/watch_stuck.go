package load

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// stuckEvents exceed the buffers between a server and a watcher that does not read.
const stuckEvents = 4000

// openStuck opens watches that never read, and writes until they are stuck. clientv3
// always reads, so these speak gRPC themselves, each over a connection of its own.
func (w watch) openStuck(ctx context.Context, e *Env) (closeAll func(), err error) {
	var conns []*grpc.ClientConn
	closeAll = func() {
		for _, c := range conns {
			_ = c.Close() // nothing is under way on it that anybody waits for
		}
	}
	key, opts := w.span()
	span := clientv3.OpGet(key, opts...)
	for i := range w.stuck {
		conn, err := grpc.NewClient(e.Conn(i).Endpoints()[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err == nil {
			conns = append(conns, conn)
			err = watchOnce(ctx, conn, span)
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("open stuck watcher %d: %w", i, err)
		}
	}
	if err := e.write(ctx, stuckEvents, func(i int) string { return w.key(e, e.random(i)) }); err != nil {
		closeAll()
		return nil, err
	}
	return closeAll, nil
}

// watchOnce opens a watch and reads no more than that it was created.
func watchOnce(ctx context.Context, conn *grpc.ClientConn, span clientv3.Op) error {
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return err
	}
	create := &pb.WatchCreateRequest{Key: span.KeyBytes(), RangeEnd: span.RangeBytes()}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return err
	}
	resp, err := stream.Recv()
	if err != nil {
		return err
	}
	if !resp.Created || resp.Canceled {
		return errors.New("the watch was not created: " + resp.CancelReason)
	}
	return nil
}
