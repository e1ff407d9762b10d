// Package etcd lets programs that were written for etcd's client use Flotilla's. Their
// key operations go directly to the shards' leaders, batched; watches, leases and everything else
// use etcd's own client, which talks to the nodes' etcd API. So packages such as concurrency,
// namespace and mirror work unchanged.
//
// It differs from etcd's client only where Flotilla differs from etcd; see docs/ETCD.md.
package etcd

import (
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/flotilla-kv/flotilla/client"
)

// loginWait is how long New waits for a node to log in at.
const loginWait = 5 * time.Second

// New returns an etcd client whose KV is a native client's. Close closes both. With a Username it logs in, as clientv3.New does, and waits for a node. A program that needs more
// of clientv3.Config makes both clients, and gives the one the other's KV.
func New(cfg client.Config) (*clientv3.Client, error) {
	native, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	etcd, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Logger: zap.NewNop(), DialOptions: dialing(cfg),
		Username: cfg.Username, Password: cfg.Password, DialTimeout: loginWait,
	})
	if err != nil {
		native.Close()
		return nil, fmt.Errorf("make etcd's client: %w", err)
	}
	etcd.KV = KV(native)
	etcd.Lease = lease{etcd.Lease, native}
	return etcd, nil
}

// KV is a clientv3.KV over a native client, which it does not close.
func KV(c *client.Client) clientv3.KV { return clientv3.NewKVFromKVClient(c.KVClient(), nil) }

// dialing makes etcd's client find nodes that return as soon as the native one does: by default
// gRPC waits for up to two minutes.
func dialing(cfg client.Config) []grpc.DialOption {
	pause := backoff.DefaultConfig
	pause.BaseDelay, pause.MaxDelay = 50*time.Millisecond, time.Second
	options := []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause})}
	if cfg.Dial != nil {
		options = append(options, grpc.WithContextDialer(cfg.Dial))
	}
	return options
}

// lease closes the native client with etcd's: a clientv3.Client closes its Lease.
type lease struct {
	clientv3.Lease
	native *client.Client
}

// Close implements clientv3.Lease.
func (l lease) Close() error {
	l.native.Close()
	return l.Lease.Close()
}
