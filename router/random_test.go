package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/txn"
)

// TestRandom lets clients on several routers write and read while shards split,
// merge and change leaders, messages get lost and placement tables are late. What
// each request was told is held against what the model knows in the end.
func TestRandom(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Logf("again: go test ./router -run TestRandom -seed=%d -steps=%d", seed, *stepsFlag)
			synctest.Test(t, func(t *testing.T) {
				for _, v := range runRandom(t, seed, *stepsFlag, Knobs{}) {
					t.Error(v)
				}
			})
		})
	}
}

// TestRandomFindsPlantedBugs makes sure that the test above can fail.
func TestRandomFindsPlantedBugs(t *testing.T) {
	for name, plant := range map[string]struct {
		knobs Knobs
		want  string
	}{
		"cuts are not closed":           {Knobs{SkipClose: true}, "T3"},
		"unknown outcomes are repeated": {Knobs{RetryUnknown: true}, "T1"},
	} {
		t.Run(name, func(t *testing.T) {
			var found []string
			for seed := uint64(1); len(found) == 0 && seed < 10; seed++ {
				synctest.Test(t, func(t *testing.T) {
					for _, v := range runRandom(t, seed, *stepsFlag, plant.knobs) {
						if strings.HasPrefix(v, plant.want) {
							found = append(found, v)
						}
					}
				})
			}
			require.NotEmpty(t, found)
		})
	}
}

// runRandom returns the violations it saw.
func runRandom(t *testing.T, seed uint64, steps int, knobs Knobs) []string {
	w := newWorld(t, seed, "d", "m", "t")
	w.delayed, w.faults = true, 40
	w.skew[2], w.skew[3] = 4000, -900 // 100 ms ahead, 22 ms behind
	trial := &trial{w: w, knobs: knobs}
	stop := make(chan struct{})
	var chaos, clients sync.WaitGroup
	chaos.Go(func() { w.disturb(stop) })
	for i := range 6 {
		clients.Go(func() { trial.client(i, steps) })
	}
	clients.Wait()
	close(stop)
	chaos.Wait()
	// What was sent by callers who left, and closes under way, comes to its end.
	bubble.Pass(2 * RequestTimeout)
	synctest.Wait()

	w.locked(func() {
		trial.checkAll()
		t.Logf("%d requests to shards, %d shards ever, %d cuts, %d errors by kind %v", len(w.sent), len(w.shards), trial.cuts, trial.errors, trial.kinds)
		require.Positive(t, trial.cuts, "a test in which no read succeeds shows nothing")
	})
	return w.broken
}

// disturb changes the world from time to time.
func (w *world) disturb(stop chan struct{}) {
	rng := rand.New(rand.NewPCG(w.seed, 99))
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.IntN(15_000_000))):
		}
		w.mu.Lock()
		key := string(rune('a'+rng.IntN(26))) + string(rune('a'+rng.IntN(26)))
		switch rng.IntN(6) {
		case 0, 1:
			if w.lastID < 200 {
				w.split(key)
			}
		case 2:
			w.merge(key)
		case 3, 4:
			w.owner(key).leader = w.nodes[rng.IntN(len(w.nodes))]
		case 5:
			w.owner(key).leader = 0 // until the next election
		}
		for _, s := range w.shards {
			if s.leader == 0 && rng.IntN(2) == 0 {
				s.leader = w.nodes[rng.IntN(len(w.nodes))]
			}
		}
		w.mu.Unlock()
	}
}

// trial is what clients did and what they were told.
type trial struct {
	w     *world
	knobs Knobs

	mu     sync.Mutex
	cuts   int
	errors int
	kinds  map[string]int
	checks []func() // for the end, under w.mu
	acks   []acknowledged
}

// acknowledged is a write of one key that its client knows of since end.
type acknowledged struct {
	key []byte
	rev shard.Revision
	end int
}

// acknowledge remembers that a write of the keys has ended well.
func (tr *trial) acknowledge(h *pb.ResponseHeader, keys ...[]byte) {
	end := 0
	tr.w.locked(func() { tr.w.clock++; end = tr.w.clock })
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, key := range keys {
		tr.acks = append(tr.acks, acknowledged{key, shard.Revision(h.Revision), end})
	}
}

func (tr *trial) checkAll() {
	for _, check := range tr.checks {
		check()
	}
}

func (tr *trial) later(check func()) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.checks = append(tr.checks, check)
}

func (tr *trial) client(n, steps int) {
	w := tr.w
	rng := rand.New(rand.NewPCG(w.seed, 1000+uint64(n)))
	router, seen := w.newRouter(shard.NodeID(n%4), tr.knobs) // 0 is a client
	key := func() []byte { return fmt.Appendf(nil, "%c%c", 'a'+rng.IntN(26), 'a'+rng.IntN(3)*11) }
	pair := func() ([]byte, []byte) {
		a, b := key(), key()
		if bytes.Compare(a, b) > 0 {
			a, b = b, a
		}
		if rng.IntN(8) == 0 {
			b = []byte{0}
		}
		return a, b
	}
	for i := range steps {
		op := &operation{id: n*10_000 + i + 1}
		ctx := context.WithValue(context.Background(), operationKey{}, op)
		cancel := func() {}
		if rng.IntN(5) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(1+rng.IntN(20_000_000)))
		}
		w.locked(func() { w.clock++; op.begin = w.clock })
		value := fmt.Sprint("value ", op.id)
		var err error
		switch rng.IntN(10) {
		case 0, 1, 2:
			err = tr.put(ctx, router, op, key(), value)
		case 3:
			from, to := pair()
			err = tr.deleteRange(ctx, router, op, from, to, rng)
		case 4:
			err = tr.transaction(ctx, router, op, key(), key(), value)
		case 5:
			from, to := pair()
			err = tr.stream(ctx, router, op, &pb.RangeRequest{Key: from, RangeEnd: to, Limit: int64(rng.IntN(2) * rng.IntN(30))})
		case 6:
			if rng.IntN(4) == 0 {
				err = tr.compact(ctx, router, op, seen)
			}
		default:
			from, to := pair()
			req := &pb.RangeRequest{Key: from, RangeEnd: to}
			if rng.IntN(3) == 0 {
				req.Limit = int64(rng.IntN(12))
			}
			if rng.IntN(3) == 0 {
				req.SortOrder = pb.RangeRequest_SortOrder(rng.IntN(3))
				req.SortTarget = pb.RangeRequest_SortTarget(rng.IntN(5))
			}
			req.CountOnly, req.KeysOnly = rng.IntN(8) == 0, rng.IntN(6) == 0
			if rng.IntN(4) == 0 {
				req.Revision = max(0, int64(seen.Seen())-int64(rng.IntN(400_000)))
			}
			if rng.IntN(4) == 0 {
				req = &pb.RangeRequest{Key: from}
			}
			err = tr.read(ctx, router, op, req)
		}
		tr.ended(ctx, op, err)
		cancel()
	}
}

// ended checks what holds for every request.
func (tr *trial) ended(ctx context.Context, op *operation, err error) {
	w := tr.w
	w.locked(func() { w.clock++; op.end = w.clock })
	if err == nil {
		return
	}
	tr.mu.Lock()
	tr.errors++
	if tr.kinds == nil {
		tr.kinds = make(map[string]int)
	}
	tr.kinds[kindOf(err)]++
	tr.mu.Unlock()
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		w.locked(func() { w.violation("operation %d ended with %v and not with its caller's %v", op.id, err, cause) })
	}
	tr.later(func() {
		changed := slices.ContainsFunc(op.writes, func(d written) bool { return d.deleted != 0 })
		if !changed || errors.Is(err, shard.ErrUnknownOutcome) || errors.Is(err, context.DeadlineExceeded) {
			return
		}
		w.violation("T1: operation %d changed something (%+v) and says %v", op.id, op.writes, err)
	})
}

func kindOf(err error) string {
	var cross *txn.CrossShardError
	for _, known := range []error{context.DeadlineExceeded, shard.ErrUnknownOutcome, shard.ErrCompacted, shard.ErrFutureRevision, shard.ErrUnavailable} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if errors.As(err, &cross) {
		return "cross-shard"
	}
	return err.Error()
}

func (tr *trial) put(ctx context.Context, r *Router, op *operation, key []byte, value string) error {
	resp, err := r.Put(ctx, &pb.PutRequest{Key: key, Value: []byte(value)})
	tr.later(func() { tr.once(op, err, key, value) })
	if err == nil {
		tr.acknowledge(resp.Header, key)
		tr.later(func() { tr.header(op, resp.Header) })
	}
	return err
}

// once checks that a value was written at most once, and once if it was acknowledged.
func (tr *trial) once(op *operation, err error, key []byte, value string) {
	times := 0
	for _, v := range tr.w.versions[string(key)] {
		if v.value == value {
			times++
		}
	}
	if times > 1 || err == nil && times != 1 {
		tr.w.violation("T1: operation %d (%v) was applied %d times", op.id, err, times)
	}
}

// header checks that an acknowledged write names its revision.
func (tr *trial) header(op *operation, h *pb.ResponseHeader) {
	highest := shard.Revision(0)
	for _, done := range op.writes {
		if done.deleted != 0 {
			highest = max(highest, done.rev)
		}
	}
	if highest != 0 && h.Revision < int64(highest) {
		tr.w.violation("operation %d wrote at %d and answers %d", op.id, highest, h.Revision)
	}
}

func (tr *trial) deleteRange(ctx context.Context, r *Router, op *operation, from, to []byte, rng *rand.Rand) error {
	req := &pb.DeleteRangeRequest{Key: from, RangeEnd: to, PrevKv: rng.IntN(2) == 0}
	resp, err := r.DeleteRange(ctx, req)
	if err == nil {
		tr.later(func() {
			deleted := 0
			for _, done := range op.writes {
				deleted += done.deleted
			}
			if int64(deleted) != resp.Deleted || req.PrevKv && len(resp.PrevKvs) != deleted {
				tr.w.violation("operation %d deleted %d and answers %d with %d previous ones", op.id, deleted, resp.Deleted, len(resp.PrevKvs))
			}
			tr.header(op, resp.Header)
		})
	}
	return err
}

func (tr *trial) transaction(ctx context.Context, r *Router, op *operation, a, b []byte, value string) error {
	if bytes.Equal(a, b) {
		b = append(bytes.Clone(b), 'x')
	}
	req := &pb.TxnRequest{}
	for _, key := range [][]byte{a, b} {
		req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: []byte(value)}}})
	}
	resp, err := r.Txn(ctx, req)
	if err == nil {
		tr.acknowledge(resp.Header, a, b)
	}
	tr.later(func() {
		tr.once(op, err, a, value)
		tr.once(op, err, b, value)
		var cross *txn.CrossShardError
		switch {
		case err == nil:
			tr.header(op, resp.Header)
		case errors.As(err, &cross) && !tr.apart(op, a, b):
			tr.w.violation("T2: operation %d was refused as cross-shard, but %q and %q were in one shard all the time", op.id, a, b)
		}
	})
	return err
}

// apart reports whether two keys were ever in different shards during an operation.
func (tr *trial) apart(op *operation, a, b []byte) bool {
	for i, m := range tr.w.maps {
		if m.from > op.end || i+1 < len(tr.w.maps) && tr.w.maps[i+1].from < op.begin {
			continue
		}
		for _, d := range m.descriptors {
			if d.Span.Contains(a) != d.Span.Contains(b) {
				return true
			}
		}
	}
	return false
}

func (tr *trial) compact(ctx context.Context, r *Router, op *operation, seen *seenRevisions) error {
	rev := seen.Seen() - 200_000
	if rev <= 0 {
		return nil
	}
	_, err := r.Compact(ctx, &pb.CompactionRequest{Revision: int64(rev)})
	if err == nil {
		tr.w.locked(func() {
			for id, s := range tr.w.shards {
				if v := s.now(); !s.gone && v.Compacted < rev {
					tr.w.violation("operation %d compacted at %d, but shard %d %v is at %d", op.id, rev, id, v.Descriptor.Span, v.Compacted)
				}
			}
		})
	}
	return err
}

func (tr *trial) read(ctx context.Context, r *Router, op *operation, req *pb.RangeRequest) error {
	resp, err := rangeOrGet(ctx, r, req)
	if err == nil {
		tr.exact(op, req, resp)
	}
	tr.refusedRead(op, req, err)
	return err
}

// rangeOrGet is Range as a node's API does it: without waiting if that is possible.
func rangeOrGet(ctx context.Context, r *Router, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	got := make(chan *pb.RangeResponse, 1)
	if proto.Equal(req, &pb.RangeRequest{Key: req.Key}) && r.StartGet(req.Key, func(resp *pb.RangeResponse, _ bool) { got <- resp }) {
		if resp := <-got; resp != nil {
			return resp, nil
		}
	}
	return r.Range(ctx, req)
}

// refusedRead checks that a read at a revision was not refused without reason.
func (tr *trial) refusedRead(op *operation, req *pb.RangeRequest, err error) {
	switch {
	case errors.Is(err, shard.ErrUnknownOutcome):
		tr.w.locked(func() { tr.w.violation("operation %d is a read and says %v", op.id, err) })
	case errors.Is(err, shard.ErrCompacted):
		tr.w.locked(func() {
			if shard.Revision(req.Revision) >= tr.w.compacted || req.Revision == 0 {
				tr.w.violation("operation %d reads at %d, compacted is %d, and says %v", op.id, req.Revision, tr.w.compacted, err)
			}
		})
	case errors.Is(err, shard.ErrFutureRevision):
		tr.w.locked(func() { tr.w.violation("operation %d read at %d: %v", op.id, req.Revision, err) })
	}
}

// exact checks, when all is over, that the answer is the cut at its revision and that
// nothing which was acknowledged before it began is missing.
func (tr *trial) exact(op *operation, req *pb.RangeRequest, resp *pb.RangeResponse) {
	w := tr.w
	at := shard.Revision(req.Revision)
	if at == 0 {
		at = shard.Revision(resp.Header.Revision)
	}
	tr.later(func() {
		tr.cuts++
		if !w.minted[at] && at != shard.FirstRevision && req.Revision == 0 && at > w.compacted {
			w.violation("T4: operation %d answers revision %d, which nobody minted", op.id, at)
		}
		span := shard.RequestSpan(req.Key, req.RangeEnd)
		for _, ack := range tr.acks {
			if req.Revision == 0 && ack.end < op.begin && ack.rev > at && span.Contains(ack.key) {
				w.violation("T3: operation %d reads %v at %d and misses the write of %q at %d that had ended before", op.id, span, at, ack.key, ack.rev)
			}
		}
		want := w.expected(req, at)
		got := proto.CloneOf(resp)
		got.Header = nil
		if !proto.Equal(want, got) {
			w.violation("T3: operation %d reads %v at %d and got\n%v, want\n%v", op.id, req, at, got, want)
		}
	})
}

func (tr *trial) stream(ctx context.Context, r *Router, op *operation, req *pb.RangeRequest) error {
	whole := &pb.RangeResponse{}
	err := r.RangeStream(ctx, req, func(part *pb.RangeResponse) error {
		if whole.Header != nil || part.Header == nil && (part.Count != 0 || part.More) {
			tr.w.locked(func() { tr.w.violation("operation %d: part %v after %v", op.id, part, whole.Header) })
		}
		whole.Kvs = append(whole.Kvs, part.Kvs...)
		whole.Header, whole.More, whole.Count = part.Header, part.More, part.Count
		return nil
	})
	if err == nil {
		tr.exact(op, req, whole)
	} else if !errors.Is(err, shard.ErrCompacted) { // it takes its time; a compaction may overtake it
		tr.refusedRead(op, req, err)
	}
	return err
}
