package load

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// list reads all keys under a prefix.
type list struct {
	name         string
	keys, groups int
	clients      int // at most
}

// listClientsMax keeps the answers in flight within a few ten megabytes.
const listClientsMax = 50

func (w list) Name() string         { return w.name }
func (w list) About() string        { return fmt.Sprintf("list the %d keys of a prefix", w.keys) }
func (w list) Clients(want int) int { return min(want, w.clients) }

// space gives each size of list prefixes of its own.
func (w list) space() keyspace { return listGroups + keyspace(w.keys) }

func (w list) Prepare(ctx context.Context, e *Env) error {
	return e.write(ctx, w.groups*w.keys, func(i int) string {
		return fmt.Sprintf("%s/%06d", w.space().prefix(i/w.keys), i%w.keys)
	})
}

func (w list) Client(e *Env, i int) Operation {
	conn, r := e.Conn(i), e.random(i)
	return func(ctx context.Context) error {
		resp, err := conn.Get(ctx, w.space().prefix(r.IntN(w.groups))+"/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		if len(resp.Kvs) != w.keys {
			return fmt.Errorf("list: %d keys where %d were written", len(resp.Kvs), w.keys)
		}
		return nil
	}
}
