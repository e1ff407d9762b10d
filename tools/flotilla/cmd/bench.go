package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// benchValueMax fits into a request of etcd's default size.
const benchValueMax = 1 << 20

func newBench(client *clientFlags) *cobra.Command {
	c := &cobra.Command{Use: "bench", Short: "Measure how fast your cluster is"}
	for _, work := range []struct {
		name, short string
		op          func(*bench, int) load.Operation
	}{
		{"put", "Put random ones of some keys", (*bench).put},
		{"get", "Put some keys, and get random ones of them", (*bench).get},
		{"txn", "Put where nobody has put since, by a transaction: the update that Kubernetes makes", (*bench).txn},
	} {
		c.AddCommand(newBenchOf(client, work.name, work.short, work.op))
	}
	return c
}

func newBenchOf(client *clientFlags, name, short string, op func(*bench, int) load.Operation) *cobra.Command {
	b := &bench{name: name}
	c := &cobra.Command{
		Use:   name,
		Short: short,
		Example: fmt.Sprintf(`  flotilla bench %[1]s --clients 100 --duration 30s
  # 500 a second, and keys in several shards
  flotilla bench %[1]s --rate 500 --prefix bench/a/,bench/z/`, name),
		Long: short + `.

Each client begins a request when its last is answered, so that it sends less
where the answers take longer. With --rate requests begin at fixed times instead, and
latency counts from when they were due. The keys are deleted at the end, unless --keep
is given. Keys of one prefix are next to each other, most likely in one shard: give
--prefix several to see what several shards can do. etcdctl check perf works too.

Exit codes: 0 measured, and every request went well, 1 some did not, 2 no node answered.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := b.check(); err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error {
				b.session = s
				return b.run(client, op)
			})
		},
	}
	f := c.Flags()
	f.IntVar(&b.clients, "clients", 50, "how many clients there are")
	f.IntVar(&b.conns, "conns", 5, "how many connections they share, over --endpoints in turn")
	f.DurationVar(&b.duration, "duration", 10*time.Second, "how long to measure")
	f.IntVar(&b.value, "value", 256, "bytes of each value")
	f.IntVar(&b.keys, "keys", 10_000, "how many keys there are")
	f.IntVar(&b.rate, "rate", 0, "requests to begin a second, all clients together (0: as many as they can)")
	f.StringSliceVar(&b.prefixes, "prefix", []string{"flotilla-bench/"}, "what the keys begin with, evenly; nothing may begin so before")
	f.BoolVar(&b.keep, "keep", false, "leave the keys there")
	return c
}

// bench is one measurement.
type bench struct {
	*session
	name                              string
	clients, conns, value, keys, rate int
	duration                          time.Duration
	prefixes                          []string
	keep                              bool

	open  []*clientv3.Client
	noise []byte // that values are cut from: it does not compress
}

func (b *bench) check() error {
	switch {
	case b.clients < 1 || b.conns < 1 || b.keys < 1:
		return misused("--clients, --conns and --keys: want 1 or more")
	case b.duration < time.Second:
		return misused("--duration %s: want 1s or more", b.duration)
	case b.value < 1 || b.value > benchValueMax:
		return misused("--value %d: want 1 to %d bytes", b.value, benchValueMax)
	case b.rate < 0:
		return misused("--rate %d: want requests a second, or 0 for as many as the clients can", b.rate)
	case len(b.prefixes) == 0 || slices.Contains(b.prefixes, ""):
		return misused("--prefix is empty: want what all keys begin with, they are deleted afterwards")
	}
	return nil
}

func (b *bench) run(client *clientFlags, op func(*bench, int) load.Operation) (err error) {
	if err := b.refuseOthers(); err != nil {
		return err
	}
	if err := b.connect(client); err != nil {
		return err
	}
	defer func() {
		for _, c := range b.open {
			err = errors.Join(err, ignoreCanceled(c.Close()))
		}
	}()
	if !b.keep {
		defer func() { err = errors.Join(err, b.clean()) }()
	}
	b.noise = make([]byte, 2*benchValueMax)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range b.noise {
		b.noise[i] = byte(random.Uint32())
	}
	if b.name == "get" {
		if err := b.fill(); err != nil {
			return err
		}
	}
	fmt.Fprintf(b.err, "%s: %s over %s for %s, %s of %d bytes%s\n", b.name, counted(b.clients, "client"), counted(len(b.open), "connection"), b.duration,
		counted(b.keys, "key"), b.value, b.where())
	watched, stop := context.WithCancel(b.ctx)
	var t ticker
	ended := t.show(watched, b.err)
	got, err := load.Loop(b.ctx, load.Plan{Clients: b.clients, Duration: b.duration, Rate: b.rate}, b.timeout, func(i int) load.Operation {
		return t.counting(op(b, i))
	})
	stop()
	<-ended
	if err != nil {
		if b.ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		return err
	}
	return errors.Join(b.print(answer{message: got, simple: func() { b.tell(got) }}), failedRequests(got))
}

// refuseOthers protects keys that were there before from being overwritten and deleted.
func (b *bench) refuseOthers() error {
	for _, prefix := range b.prefixes {
		resp, err := read(b.session, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return b.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		})
		if err != nil {
			return err
		}
		if resp.Count > 0 {
			return fmt.Errorf("%s with %q already: want another --prefix, or flotilla del --prefix %s if it is from an earlier bench", begins(int(resp.Count)), prefix, prefix)
		}
	}
	return nil
}

func begins(n int) string {
	if n == 1 {
		return "1 key begins"
	}
	return fmt.Sprintf("%d keys begin", n)
}

func (b *bench) connect(client *clientFlags) error {
	for i := range min(b.conns, b.clients) {
		one := *client
		one.endpoints = client.endpoints[i%len(client.endpoints):][:1]
		c, err := one.dial(b.ctx)
		if err != nil {
			return err
		}
		b.open = append(b.open, c)
	}
	return nil
}

// where tells how many shards the keys are in; nothing where there are no shards.
func (b *bench) where() string {
	all, err := b.shards(&adminpb.ShardsRequest{})
	if err != nil {
		return ""
	}
	of := make(map[uint64]bool)
	for _, prefix := range b.prefixes {
		reply, err := b.shards(&adminpb.ShardsRequest{Span: &adminpb.Span{Start: []byte(prefix), End: []byte(clientv3.GetPrefixRangeEnd(prefix))}})
		if err != nil {
			return ""
		}
		for _, d := range reply.Shards {
			of[d.Id] = true
		}
	}
	return fmt.Sprintf(", in %d of %s", len(of), counted(len(all.Shards), "shard"))
}

func (b *bench) key(i int) string { return fmt.Sprintf("%s%08d", b.prefixes[i%len(b.prefixes)], i) }

func (b *bench) randomValue(r *rand.Rand) string {
	at := r.IntN(len(b.noise) - b.value)
	return string(b.noise[at : at+b.value])
}

// client is what client i works with.
func (b *bench) client(i int) (*clientv3.Client, *rand.Rand) {
	return b.open[i%len(b.open)], rand.New(rand.NewPCG(3, uint64(i)))
}

func (b *bench) put(i int) load.Operation {
	conn, r := b.client(i)
	return func(ctx context.Context) error {
		_, err := conn.Put(ctx, b.key(r.IntN(b.keys)), b.randomValue(r))
		return err
	}
}

func (b *bench) get(i int) load.Operation {
	conn, r := b.client(i)
	return func(ctx context.Context) error {
		_, err := conn.Get(ctx, b.key(r.IntN(b.keys)))
		return err
	}
}

// txn has a key for each client.
func (b *bench) txn(i int) load.Operation {
	conn, r := b.client(i)
	return load.CompareAndPut(conn, b.key(i), func() string { return b.randomValue(r) })
}

// fill puts all keys.
func (b *bench) fill() error {
	ctx, cancel := context.WithCancelCause(b.ctx)
	defer cancel(nil)
	var next atomic.Int64
	var filling sync.WaitGroup
	for i := range b.clients {
		conn, r := b.client(i)
		filling.Go(func() {
			for k := int(next.Add(1) - 1); k < b.keys && ctx.Err() == nil; k = int(next.Add(1) - 1) {
				one, done := context.WithTimeout(ctx, b.timeout)
				_, err := conn.Put(one, b.key(k), b.randomValue(r))
				if done(); err != nil {
					cancel(fmt.Errorf("put the keys: %w", explain(err, b.timeout, true)))
				}
			}
		})
	}
	filling.Wait()
	return context.Cause(ctx)
}

// cleanPatience is how long the deletion of many keys may take.
const cleanPatience = time.Minute

// clean deletes the keys, also after an interruption.
func (b *bench) clean() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), cleanPatience)
	defer cancel()
	for _, prefix := range b.prefixes {
		if _, err := b.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
			return fmt.Errorf("delete the keys again: %w; flotilla del --prefix %s does it", explain(err, cleanPatience, true), prefix)
		}
	}
	return nil
}

// tell prints the result.
func (b *bench) tell(got load.Result) {
	b.linef("%s, %s/s", counted(int(got.Operations), "request"), rateText(got.PerSecond))
	l := got.Latency
	b.linef("latency: p50 %s, p90 %s, p99 %s, p99.9 %s, max %s", microsText(l.P50), microsText(l.P90), microsText(l.P99), microsText(l.P999), microsText(l.Max))
	b.linef("worst second: %s, p99 %s", counted(int(got.Worst.Operations), "request"), microsText(got.Worst.P99))
	for _, kind := range slices.Sorted(maps.Keys(got.Errors)) {
		b.linef("failed: %d, %s", got.Errors[kind], kind)
	}
}

func failedRequests(got load.Result) error {
	if n := got.ErrorCount(); n > 0 {
		return fmt.Errorf("%s failed: %s", counted(int(n), "request"), strings.Join(slices.Sorted(maps.Keys(got.Errors)), ", "))
	}
	return nil
}

// ticker counts what has been done, for people who wait.
type ticker struct{ done, failed, longest atomic.Int64 }

func (t *ticker) counting(op load.Operation) load.Operation {
	return func(ctx context.Context) error {
		began := time.Now()
		err := op(ctx)
		took := int64(time.Since(began))
		for most := t.longest.Load(); took > most && !t.longest.CompareAndSwap(most, took); most = t.longest.Load() {
		}
		if err != nil {
			t.failed.Add(1)
		} else {
			t.done.Add(1)
		}
		return err
	}
}

// show prints a line a second until ctx ends.
func (t *ticker) show(ctx context.Context, w io.Writer) (ended <-chan struct{}) {
	end := make(chan struct{})
	go func() {
		defer close(end)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for second := 1; ; second++ {
			select {
			case <-tick.C:
				fmt.Fprintf(w, "%4ds  %d/s, longest %s, failed %d\n", second, t.done.Swap(0), microsText(t.longest.Swap(0)/1000), t.failed.Swap(0))
			case <-ctx.Done():
				return
			}
		}
	}()
	return end
}
