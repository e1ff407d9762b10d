package robustness

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// readBack reads the present value of every key through every node, and then the key's whole past, revision by
// revision. That finds lost writes, and it determines the outcome of most writes that were unknown. It returns what
// could not be read before the context ended.
func readBack(ctx context.Context, rec *history.Recorder, conns connections, nodes int, keys []string, timeout time.Duration) []string {
	past := knownRevisions(rec.History().Ops)
	var (
		mu    sync.Mutex
		stuck []string
		wg    sync.WaitGroup
		queue = make(chan int)
	)
	for i, cli := range conns {
		wg.Go(func() {
			r := &reader{client: i, conns: conns, session: session{client: i, kv: cli, rec: rec, timeout: timeout}}
			for k := range queue {
				if err := r.key(ctx, keys[k], nodes, past[keys[k]]); err != nil {
					mu.Lock()
					stuck = append(stuck, fmt.Sprintf("key %q cannot be read after the faults: %v", keys[k], err))
					mu.Unlock()
				}
			}
		})
	}
	for k := range keys {
		queue <- k
	}
	close(queue)
	wg.Wait()
	slices.Sort(stuck)
	return stuck
}

// knownRevisions lists, for each key, the revisions at which an acknowledged request has changed it or a client has
// seen it.
func knownRevisions(ops []history.Op) map[string][]int64 {
	out := make(map[string][]int64)
	for _, op := range ops {
		if op.Outcome != history.OK {
			continue
		}
		for _, kv := range op.Response.KVs {
			out[kv.Key] = append(out[kv.Key], kv.Mod)
		}
		branch := op.Request.Else
		if op.Response.Succeeded {
			branch = op.Request.Then
		}
		for i, a := range branch {
			switch a.Kind {
			case history.ActionGet:
				out[a.Key] = append(out[a.Key], op.Response.Results[i].KV.Mod)
			default:
				out[a.Key] = append(out[a.Key], op.Response.Revision)
			}
		}
	}
	for key, revs := range out {
		slices.Sort(revs)
		out[key] = slices.Compact(revs)
	}
	return out
}

// reader reads for one client.
type reader struct {
	client int
	conns  connections
	session
}

// key reads one key through each node, and then goes back through its past. known are revisions of the key,
// ascending.
func (r *reader) key(ctx context.Context, key string, nodes int, known []int64) error {
	// Connections 0, 2, 4, … each lead to one node.
	for node := range nodes {
		r.kv = r.conns[2*node]
		if _, err := r.get(ctx, history.Get(key, 0)); err != nil {
			return fmt.Errorf("through node %d: %w", node+1, err)
		}
	}
	r.kv = r.conns[r.client]
	for at, known := below(math.MaxInt64, known); at > 0; {
		resp, err := r.get(ctx, history.Get(key, at))
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("at revision %d: %w", at, err)
		}
		at, known = stepBack(at, resp.KVs, known)
	}
	return nil
}

// stepBack decides where to read next, given what was there at revision at. A version above 1 has a predecessor,
// which may be a deletion; otherwise the next known revision follows.
func stepBack(at int64, kvs []history.KV, known []int64) (next int64, rest []int64) {
	if len(kvs) == 0 {
		next, rest = below(at, known)
		if slices.Contains(known, at) {
			return at - 1, rest
		}
		return next, rest
	}
	next, rest = below(kvs[0].Mod, known)
	if kvs[0].Version > 1 {
		return kvs[0].Mod - 1, rest
	}
	return next, rest
}

// below returns the highest known revision below at, or 0, and those up to it.
func below(at int64, known []int64) (int64, []int64) {
	i, _ := slices.BinarySearch(known, at)
	if i == 0 {
		return 0, nil
	}
	return known[i-1], known[:i]
}

// get repeats a read until it is answered or refused, or until the context ends.
func (r *reader) get(ctx context.Context, req history.Request) (history.Response, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, r.timeout)
		inv := r.rec.InvokeFinal(r.client, req)
		resp, err := perform(attempt, r.kv, req)
		cancel()
		end(inv, resp, err)
		if err == nil || certain(err) {
			return resp, err
		}
		if wait(ctx, retryPause) != nil {
			return resp, err
		}
	}
}

// retryPause keeps readers from spinning on a node that refuses connections.
const retryPause = 20 * time.Millisecond
