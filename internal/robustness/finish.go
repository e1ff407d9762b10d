package robustness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// finish makes the requests after load and faults have ended, so that the history shows how everything ended.
type finish struct {
	rec     *history.Recorder
	nodes   connections
	names   []string
	timeout time.Duration
}

// finishTimeout is longer than the workload's timeout, which makes unknown outcomes: on a slow machine nothing might be
// read back in that.
const finishTimeout = 5 * time.Second

// finishClient is the number under which the finish is recorded.
const finishClient = 0

// everything is the span of all keys.
func everything() history.Request { return history.Range("\x00", "\x00", 0) }

// awaitLeases waits until every lease is gone, while nobody renews any. It keeps asking, so that the history shows
// when each ended. Then it waits until no key is attached to a lease any more. It returns what is left when the
// context ends.
func (f *finish) awaitLeases(ctx context.Context) []string {
	if problems := f.awaitEnds(ctx, false); problems != nil {
		return problems
	}
	r := f.reader()
	for {
		resp, err := r.get(ctx, everything())
		attached := make(map[int64][]string)
		for _, kv := range resp.KVs {
			if kv.Lease != 0 {
				attached[kv.Lease] = append(attached[kv.Lease], kv.Key)
			}
		}
		if err == nil && len(attached) == 0 {
			return f.awaitEnds(ctx, true)
		}
		if wait(ctx, leasePoll) != nil {
			return []string{fmt.Sprintf("keys are still attached to leases, long after these were last renewed: %v (error: %v)", attached, err)}
		}
	}
}

// awaitEnds asks for each lease until it is gone. final: its keys must be gone too.
func (f *finish) awaitEnds(ctx context.Context, final bool) []string {
	left := f.granted()
	for node := 0; ; node = (node + 1) % len(f.nodes) {
		c := leaseCaller{client: finishClient, conn: f.nodes[node].ActiveConnection(), rec: f.rec, timeout: f.timeout}
		left = c.askAll(ctx, left, final)
		if len(left) == 0 {
			return nil
		}
		if wait(ctx, leasePoll) != nil {
			return []string{fmt.Sprintf("leases %d are still there, long after they were last renewed", left)}
		}
	}
}

// askAll asks for all leases at once, so that each is asked for often also where answers are slow, and returns those
// that are not certainly gone.
func (c leaseCaller) askAll(ctx context.Context, ids []int64, final bool) (left []int64) {
	gone := make([]bool, len(ids))
	var asking sync.WaitGroup
	for i, id := range ids {
		asking.Go(func() { gone[i] = c.ask(ctx, id, final) })
	}
	asking.Wait()
	for i, id := range ids {
		if !gone[i] {
			left = append(left, id)
		}
	}
	return left
}

// granted returns the leases that may exist.
func (f *finish) granted() []int64 {
	var ids []int64
	for _, op := range f.rec.History().Leases {
		if op.Kind == history.Grant && op.Outcome != history.Refused {
			ids = append(ids, op.Lease)
		}
	}
	return ids
}

func (f *finish) reader() *reader {
	return &reader{session: session{client: finishClient, kv: f.nodes[0], rec: f.rec, timeout: f.timeout}}
}

const (
	leasePoll    = 200 * time.Millisecond
	progressPoll = 100 * time.Millisecond
)

// watchAll watches everything since the first revision through every node, up to what a read of everything shows now.
// This shows what no client was told: what writes of unknown outcome did, and what leases deleted when they ended.
func (f *finish) watchAll(ctx context.Context) []string {
	now, err := f.reader().get(ctx, everything())
	if err != nil {
		return []string{fmt.Sprintf("everything cannot be read after the faults: %v", err)}
	}
	problems := make([]string, len(f.nodes))
	var wg sync.WaitGroup
	for i := range f.nodes {
		wg.Go(func() {
			want := history.Watch{Of: *everything().Read, From: 1, PrevKV: true, Client: finishClient, Node: f.names[i], Final: true}
			if err := f.watchUpTo(ctx, i, want, now.Revision); err != nil {
				problems[i] = fmt.Sprintf("a watch from the first revision through node %d has not come to revision %d: %v", i+1, now.Revision, err)
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(problems, func(p string) bool { return p == "" })
}

func (f *finish) watchUpTo(ctx context.Context, node int, want history.Watch, rev int64) error {
	for {
		s, err := openStream(ctx, f.nodes[node].ActiveConnection(), f.rec, []history.Watch{want}, nil)
		if err == nil {
			err = s.waitUpTo(ctx, rev)
			s.close()
		}
		if err == nil {
			return nil
		}
		if wait(ctx, retryPause) != nil {
			return err
		}
	}
}

// waitUpTo requests progress until everything up to rev was received. The real etcd does not answer while a watch is
// behind, so the request is repeated.
func (s *stream) waitUpTo(ctx context.Context, rev int64) error {
	for !s.reached(rev) {
		s.mu.Lock()
		s.request()
		s.mu.Unlock()
		if !s.linger(ctx, progressPoll) {
			return errors.Join(errors.New("the stream ended"), ctx.Err())
		}
	}
	return nil
}
