package load

import (
	"context"
	"errors"
	"math/rand/v2"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ycsbMix is one of YCSB's core workloads: what share of operations is what, in percent.
type ycsbMix struct {
	letter, about string
	latest        bool // reads favour what was inserted last, instead of some keys for good

	read, update, insert, scan, modify int
}

func ycsbMixes() []ycsbMix {
	return []ycsbMix{
		{letter: "a", about: "50 % read, 50 % update", read: 50, update: 50},
		{letter: "b", about: "95 % read, 5 % update", read: 95, update: 5},
		{letter: "c", about: "read only", read: 100},
		{letter: "d", about: "95 % read of the latest, 5 % insert", latest: true, read: 95, insert: 5},
		{letter: "e", about: "95 % scan of up to 100 keys, 5 % insert", scan: 95, insert: 5},
		{letter: "f", about: "50 % read, 50 % read and then update if unchanged", read: 50, modify: 50},
	}
}

// ycsb is a core workload over the shared keyspace, some of whose keys are much more
// popular than others. What it inserts, each client on its own, are keys apart.
type ycsb struct{ ycsbMix }

// scanMax is the longest scan.
const scanMax = 100

func (w ycsb) Name() string                            { return "ycsb-" + w.letter }
func (w ycsb) About() string                           { return "YCSB " + w.letter + ": " + w.about }
func (ycsb) Clients(want int) int                      { return want }
func (ycsb) Prepare(ctx context.Context, e *Env) error { return e.fill(ctx) }

// Client implements looped.
func (w ycsb) Client(e *Env, i int) Operation {
	c := &ycsbClient{ycsb: w, e: e, conn: e.Conn(i), number: i, r: e.random(i), zipf: e.zipf}
	return func(ctx context.Context) error {
		share := c.r.IntN(100)
		for _, kind := range []struct {
			percent int
			do      func(context.Context) error
		}{{w.read, c.read}, {w.update, c.update}, {w.insert, c.insert}, {w.scan, c.scan}} {
			if share -= kind.percent; share < 0 {
				return kind.do(ctx)
			}
		}
		return c.modify(ctx)
	}
}

type ycsbClient struct {
	ycsb
	e        *Env
	conn     *clientv3.Client
	number   int
	r        *rand.Rand
	zipf     *zipf
	inserted int
}

// key is one that exists. The most popular ones lie anywhere, because keys are hashes.
func (c *ycsbClient) key() string {
	rank := c.zipf.rank(c.r)
	if !c.latest {
		return Key(rank)
	}
	if rank < c.inserted {
		return c.own(c.inserted - 1 - rank)
	}
	return Key(c.e.Keys - 1 - (rank-c.inserted)%c.e.Keys)
}

// own is the n-th key that this client inserts in this workload.
func (c *ycsbClient) own(n int) string {
	const clientsMax, insertsMax = 1 << 20, 1 << 28
	return ycsbInserts.key((int(c.letter[0])*clientsMax+c.number)*insertsMax + n)
}

var errKeyMissing = errors.New("ycsb: a key that was written is not there")

func (c *ycsbClient) read(ctx context.Context) error {
	resp, err := c.conn.Get(ctx, c.key())
	if err == nil && len(resp.Kvs) == 0 {
		return errKeyMissing
	}
	return err
}

func (c *ycsbClient) update(ctx context.Context) error {
	_, err := c.conn.Put(ctx, c.key(), c.e.value(c.r))
	return err
}

func (c *ycsbClient) insert(ctx context.Context) error {
	if _, err := c.conn.Put(ctx, c.own(c.inserted), c.e.value(c.r)); err != nil {
		return err
	}
	c.inserted++
	return nil
}

func (c *ycsbClient) scan(ctx context.Context) error {
	resp, err := c.conn.Get(ctx, c.key(), clientv3.WithFromKey(), clientv3.WithLimit(1+c.r.Int64N(scanMax)))
	if err == nil && len(resp.Kvs) == 0 {
		return errKeyMissing
	}
	return err
}

// modify is one operation, also where somebody else was faster.
func (c *ycsbClient) modify(ctx context.Context) error {
	key := c.key()
	resp, err := c.conn.Get(ctx, key)
	if err != nil {
		return err
	}
	if len(resp.Kvs) == 0 {
		return errKeyMissing
	}
	_, err = c.conn.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", resp.Kvs[0].ModRevision)).
		Then(clientv3.OpPut(key, c.e.value(c.r))).
		Commit()
	return err
}
