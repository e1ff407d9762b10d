package load

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// txn is the optimistic update that Kubernetes writes with. Every client has a key
// of its own, so that conflicts do not decide the result; the first operation, and
// one after an unknown outcome, may find another revision and learns it.
type txn struct{}

func (txn) Name() string                        { return "txn" }
func (txn) About() string                       { return "if mod_revision is unchanged then put, else get" }
func (txn) Clients(want int) int                { return want }
func (txn) Prepare(context.Context, *Env) error { return nil }

func (txn) Client(e *Env, i int) Operation {
	r := e.random(i)
	return CompareAndPut(e.Conn(i), txnKeys.key(i), func() string { return e.value(r) })
}

// CompareAndPut is a client that puts its key if it is as it was left, and otherwise, as after an unknown outcome, learns what it is.
// No other client may write the key, or conflicts decide the result.
func CompareAndPut(conn *clientv3.Client, key string, value func() string) Operation {
	var known int64
	return func(ctx context.Context) error {
		resp, err := conn.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", known)).
			Then(clientv3.OpPut(key, value())).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return err
		}
		known = resp.Header.Revision
		if !resp.Succeeded {
			known = 0
			if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
				known = kvs[0].ModRevision
			}
		}
		return nil
	}
}
