package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const dialTimeout = 10 * time.Second

// Connect opens n connections, spread over the endpoints in turn, and waits until
// each has served a read (L1).
func Connect(ctx context.Context, endpoints []string, n int) ([]*clientv3.Client, error) {
	conns := make([]*clientv3.Client, 0, n)
	for i := range n {
		c, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{endpoints[i%len(endpoints)]},
			DialTimeout: dialTimeout,
			// The client would log every retry, a line for each of a thousand clients
			// just when a server is in trouble; what fails for good is counted.
			Logger: zap.NewNop(),
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connection %d: %w", i, err), Disconnect(conns))
		}
		conns = append(conns, c)
		try, cancel := context.WithTimeout(ctx, dialTimeout)
		_, err = c.Get(try, "connected?")
		cancel()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connection %d: first read: %w", i, err), Disconnect(conns))
		}
	}
	return conns, nil
}

// Disconnect closes all connections.
func Disconnect(conns []*clientv3.Client) error {
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
