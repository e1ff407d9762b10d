package robustness

import (
	"context"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// watcher is a client that watches: one watch after the other, in all the ways in which watches are used.
type watcher struct {
	session
	cli *clientv3.Client
	// nodes has one connection for each node; names are the nodes' names.
	nodes connections
	names []string
	rng   *rand.Rand
	told  *toldRevisions
	keys  Keyspace
}

// run watches until the context ends.
func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		switch w.rng.IntN(4) {
		case 0:
			w.library(ctx)
		case 1:
			w.informer(ctx)
		default:
			w.streams(ctx)
		}
		if wait(ctx, between(w.rng, 0, 50*time.Millisecond)) != nil {
			return
		}
	}
}

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return Between{least, most}.pick(rng)
}

// streams watches on a stream of its own. After a while it closes the stream, mostly to continue on another one, at
// the same node or another one.
func (w *watcher) streams(ctx context.Context) {
	wants := make([]history.Watch, 1+w.rng.IntN(3))
	for i := range wants {
		wants[i] = w.pick()
	}
	for ctx.Err() == nil && len(wants) > 0 {
		node := w.rng.IntN(len(w.nodes))
		s, err := openStream(ctx, w.nodes[node].ActiveConnection(), w.rec, w.at(node, wants), w.stalls(ctx))
		if err != nil {
			return
		}
		end := time.Now().Add(between(w.rng, 200*time.Millisecond, 3*time.Second))
		for time.Now().Before(end) && s.linger(ctx, between(w.rng, 50*time.Millisecond, 500*time.Millisecond)) {
			if w.rng.IntN(3) == 0 {
				w.get(ctx, wants[0].Of)
				s.ask()
			}
		}
		s.close()
		if wants = s.resumed(); w.rng.IntN(3) == 0 {
			return
		}
	}
}

// at sets the watches' node and client.
func (w *watcher) at(node int, wants []history.Watch) []history.Watch {
	for i := range wants {
		wants[i].Client, wants[i].Node = w.client, w.names[node]
	}
	return wants
}

// stalls sometimes returns a function that makes a reader pause, so that events pile up at the server.
func (w *watcher) stalls(ctx context.Context) func() {
	if w.rng.IntN(3) > 0 {
		return nil
	}
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 0))
	return func() {
		if rng.IntN(20) == 0 {
			_ = wait(ctx, between(rng, 100*time.Millisecond, 2*time.Second))
		}
	}
}

// informer lists, watches from there, and lists again: the state that it would hold in memory has to equal the second
// list (H8).
func (w *watcher) informer(ctx context.Context) {
	node := w.rng.IntN(len(w.nodes))
	of := w.span()
	rev, ok := w.get(ctx, of)
	if !ok {
		return
	}
	want := w.at(node, []history.Watch{{Of: of, From: rev + 1, PrevKV: w.rng.IntN(2) == 0}})
	s, err := openStream(ctx, w.nodes[node].ActiveConnection(), w.rec, want, nil)
	if err != nil {
		return
	}
	defer s.close()
	for range 2 + w.rng.IntN(6) {
		if !s.linger(ctx, between(w.rng, 100*time.Millisecond, 600*time.Millisecond)) {
			return
		}
		if _, ok := w.get(ctx, of); !ok {
			return
		}
		s.ask()
	}
	s.linger(ctx, 200*time.Millisecond)
}

// library watches with etcd's own client, which finds another node if one is gone.
func (w *watcher) library(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, between(w.rng, 500*time.Millisecond, 6*time.Second))
	defer cancel()
	want := w.pick()
	want.Client, want.Node = w.client, "any node"
	want.From = max(1, want.From) // without a revision, the library itself continues at the created revision
	rec := w.rec.Watch(want)
	for resp := range w.cli.Watch(ctx, want.Of.Key, watchOptions(want)...) {
		seen := history.WatchResponse{
			Revision: resp.Header.Revision, Created: resp.Created, Canceled: resp.Canceled, Compacted: resp.CompactRevision,
		}
		for _, e := range resp.Events {
			seen.Events = append(seen.Events, seenEvent((*mvccpb.Event)(e)))
		}
		rec.Response(seen)
	}
	rec.End("closed")
}

func watchOptions(want history.Watch) []clientv3.OpOption {
	opts := []clientv3.OpOption{clientv3.WithRev(want.From), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify(), clientv3.WithFragment()}
	if want.Of.End != "" {
		opts = append(opts, clientv3.WithRange(want.Of.End))
	}
	if want.PrevKV {
		opts = append(opts, clientv3.WithPrevKV())
	}
	if want.NoPut {
		opts = append(opts, clientv3.WithFilterPut())
	}
	if want.NoDelete {
		opts = append(opts, clientv3.WithFilterDelete())
	}
	return opts
}

// pick decides what to watch.
func (w *watcher) pick() history.Watch {
	return history.Watch{
		Of: w.span(), From: w.start(), PrevKV: w.rng.IntN(2) == 0,
		NoPut: w.rng.IntN(10) == 0, NoDelete: w.rng.IntN(10) == 0,
	}
}

// span returns a key, a prefix within a shard, or a range over many shards.
func (w *watcher) span() history.Read {
	all := spans()
	switch w.rng.IntN(4) {
	case 0:
		keys := w.keys.All()
		return history.Read{Key: keys[w.rng.IntN(len(keys))]}
	case 1:
		group := w.keys.Groups[w.rng.IntN(len(w.keys.Groups))]
		prefix := group[0][:len(group[0])-1]
		return history.Read{Key: prefix, End: clientv3.GetPrefixRangeEnd(prefix)}
	default:
		s := all[w.rng.IntN(len(all))]
		return history.Read{Key: s[0], End: s[1]}
	}
}

// start returns a revision near those that clients were told, as etcd's own tests do.
func (w *watcher) start() int64 {
	const around = 100
	switch dice := w.rng.IntN(20); {
	case dice == 0:
		return 1
	case dice < 5:
		return 0
	case dice < 8:
		return w.told.pick(w.rng, true) + 1
	case dice < 12:
		return max(1, w.told.pick(w.rng, true)+w.rng.Int64N(2*around+1)-around)
	default:
		return max(1, w.told.pick(w.rng, false)+w.rng.Int64N(2*around+1)-around)
	}
}

// get reads a span and reports the revision.
func (w *watcher) get(ctx context.Context, of history.Read) (int64, bool) {
	resp, err := w.ask(ctx, history.Range(of.Key, of.End, 0))
	return resp.Revision, err == nil
}
