package replica

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/powercut"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// The power cut test plays a node that has the only replica of each of its shards, so that what it has acknowledged is
// nowhere else. Clients write, the log of each shard is cut every few entries, and shards are split and merged;
// meanwhile the power is cut, before any operation that changes the disk, those of a start included. What is left of the
// disk starts the next life, in which each key must have what was acknowledged last, or what was under way then, once.

var (
	seed  = flag.Uint64("seed", 1, "of the power cut test")
	lives = flag.Int("lives", 12, "of the power cut test")
)

const (
	cutKeys     = 24
	cutWriters  = 4
	valueMax    = 16 << 10 // of one in eight
	deleteEvery = 5        // one write of a key in so many deletes it
)

// ledger is what clients know, and which shards there are. It is not on the disk that loses power.
type ledger struct {
	mu   sync.Mutex
	keys [cutKeys]page
	table
}

// page is what is known of a key, whose writes are numbered from 1.
type page struct {
	acked, tried int
	at           shard.Revision // of acked, 0 if that is not known
}

// table is what a cluster's placement table would say.
type table struct {
	shards []*shard.Descriptor // in the order of their keys
	next   shard.ID
	split  *splitting
	merge  *merging
	gone   []Held
}

type splitting struct{ rest, child *shard.Descriptor }

type merging struct {
	merged, right *shard.Descriptor
	operator      uint64
}

// copy is what is known now. mu is held.
func (l *ledger) copy() *ledger {
	c := &ledger{keys: l.keys, table: l.table}
	c.shards = append([]*shard.Descriptor(nil), l.shards...)
	c.gone = append([]Held(nil), l.gone...)
	return c
}

func (l *ledger) change(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
}

// life is from one cut to the next.
type life struct {
	outage
	*ledger
	knewThen *ledger // when the power was cut; set before ctx is done
}

// before is told of each operation of the disk.
func (l *life) before(op errorfs.Op) {
	if !l.due(op) {
		return
	}
	l.mu.Lock() // what is tried or acknowledged from here on is not on the disk that is left
	defer l.mu.Unlock()
	l.knewThen = l.copy()
	l.cutPower(op)
}

func TestPowerCuts(t *testing.T) {
	t.Parallel()
	t.Logf("replay with: go test ./shard/replica -run TestPowerCuts -seed=%d -lives=%d", *seed, *lives)
	t.Run("only what was synced survives", func(t *testing.T) { playPowerCuts(t, powercut.New(false), 0) })
	t.Run("some of the rest survives", func(t *testing.T) { playPowerCuts(t, powercut.New(true), 50) })
}

func playPowerCuts(t *testing.T, disk *powercut.Disk, percent int) {
	rng := rand.New(rand.NewPCG(*seed, uint64(percent)))
	first := &shard.Descriptor{
		ID: testShard, Epoch: 1, Slot: 1, Generation: 1, Replicas: []shard.Replica{{ID: testReplica, Node: testNode}}, NextReplicaID: testReplica + 1,
	}
	known := &ledger{table: table{shards: []*shard.Descriptor{first}, next: testShard + 1}}
	for n := range *lives {
		l := &life{outage: outage{t: t, rng: rng, disk: disk, percent: percent}, ledger: known}
		// Most operations are of the Raft log.
		l.expect([]string{"", "store/", "snapshot-"}, map[string]int64{"": 1500, "store/": 400, "snapshot-": 120})
		l.run(uint64(n) + 1)
		disk, known = l.after, l.knewThen
		t.Logf("life %d ended before %s; %d shards", n, l.cutBefore, len(known.shards))
	}
}

// run lives until the power is cut. What is left of the process goes on a little, on a disk that nobody looks at.
func (l *life) run(incarnation uint64) {
	l.boot(testNode, "n7:1", incarnation, lonely{}, l.before)
	defer l.halt()
	if !l.startAll() || !l.operate() || !l.check() {
		return
	}
	var writers sync.WaitGroup
	for i := range cutWriters {
		rng := rand.New(rand.NewPCG(l.rng.Uint64(), 0))
		writers.Go(func() {
			for l.ctx.Err() == nil && l.write(rng, i+cutWriters*rng.IntN(cutKeys/cutWriters)) {
			}
		})
	}
	for l.ctx.Err() == nil {
		l.begin()
		if !l.operate() {
			break
		}
	}
	<-l.ctx.Done()
	writers.Wait()
}

// start starts the replica of a shard and waits until it leads.
func (l *life) start(d *shard.Descriptor) bool {
	own := Held{d.ID, testReplica}
	founders := map[shard.ReplicaID]string{testReplica: "n7:1"}
	if !l.done(func() error { return l.host.Start(own.Shard, own.Replica, founders) }) {
		return false
	}
	r, ok := l.host.Replica(own.Shard)
	require.True(l.t, ok)
	return l.until("a leader", func() bool {
		l.host.Campaign([]Candidacy{{Held: own}})
		return r.Leads()
	})
}

// until waits for a condition; false when the power was cut before.
func (l *life) until(what string, reached func() bool) bool {
	for deadline := time.Now().Add(patience); !reached(); {
		require.True(l.t, time.Now().Before(deadline), what)
		select {
		case <-l.ctx.Done():
			return false
		case <-time.After(time.Millisecond):
		}
	}
	return true
}

// startAll starts, in any order, what there is. A shard that is being split off comes last, as on a node: when
// its parent has applied its log, and so has come to the split again if there was one.
func (l *life) startAll() bool {
	all := append([]*shard.Descriptor(nil), l.shards...)
	l.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, d := range all {
		if !l.start(d) {
			return false
		}
	}
	if l.split != nil {
		parent := l.replica(l.split.rest.ID)
		applied := func() error { _, err := parent.Barrier(l.ctx); return err }
		if !l.done(applied) || !l.start(l.split.child) {
			return false
		}
	}
	if d := l.shards[0]; d.ID == testShard && d.Epoch == 1 {
		return l.done(func() error { return l.replica(d.ID).Initialise(l.ctx, d) })
	}
	return true
}

func (l *life) replica(id shard.ID) *Replica {
	r, ok := l.host.Replica(id)
	require.True(l.t, ok)
	return r
}

// begin notes what is to be done next.
func (l *life) begin() {
	l.change(func() {
		i := l.rng.IntN(len(l.shards))
		d := l.shards[i]
		switch l.rng.IntN(4) {
		case 0:
			key := keyOf(l.rng.IntN(cutKeys))
			if !d.Span.Contains(key) || string(key) == string(d.Span.Start) || len(l.shards) == 5 {
				return
			}
			rest, child := *d, *d
			rest.Span.End, rest.Epoch, rest.Generation = key, d.Epoch+1, d.Generation+1
			child = shard.Descriptor{
				ID: l.next, Span: shard.Span{Start: key, End: d.Span.End}, Epoch: rest.Epoch, Slot: shard.Slot(l.next), Generation: 1,
				Replicas: d.Replicas, NextReplicaID: testReplica + 1, Parent: d.ID,
			}
			l.next++
			l.split = &splitting{&rest, &child}
		case 1:
			if i+1 == len(l.shards) {
				return
			}
			merged, right := *d, l.shards[i+1]
			merged.Span.End, merged.Epoch, merged.Generation = right.Span.End, max(d.Epoch, right.Epoch)+1, d.Generation+1
			l.merge = &merging{&merged, right, uint64(l.next)}
			l.next++
		}
	})
}

// operate goes on with what is under way; false when the power was cut.
func (l *life) operate() bool {
	switch {
	case l.split != nil:
		return l.divide(l.split)
	case l.merge != nil:
		return l.unite(l.merge)
	}
	for _, h := range l.gone {
		if !l.done(func() error { return l.host.Remove(l.ctx, h.Shard, h.Replica) }) {
			return false
		}
	}
	l.change(func() { l.gone = nil })
	return l.done(l.pause)
}

// pause lets others go on for a little while.
func (l *life) pause() error {
	select {
	case <-time.After(time.Duration(l.rng.IntN(10)) * time.Millisecond):
	case <-l.ctx.Done():
	}
	return nil
}

func (l *life) divide(s *splitting) bool {
	if !l.start(s.child) {
		return false
	}
	parent, child := l.replica(s.rest.ID), l.replica(s.child.ID)
	if !l.done(
		func() error { return parent.Split(l.ctx, s.rest, s.child) },
		func() error { return parent.LeaveSeed(l.ctx, s.child) },
		func() error { return child.Initialise(l.ctx, s.child) },
		l.pause, // the child is written to, and its seed is not durable
		func() error { return parent.SecureSeed(l.ctx, s.child) },
		func() error { return parent.Wean(l.ctx, s.rest.Epoch) },
		func() error { return child.Wean(l.ctx, s.child.Epoch) },
	) {
		return false
	}
	l.change(func() {
		var shards []*shard.Descriptor
		for _, d := range l.shards {
			if d.ID == s.rest.ID {
				shards = append(shards, s.rest, s.child)
			} else {
				shards = append(shards, d)
			}
		}
		l.shards, l.split = shards, nil
	})
	return true
}

func (l *life) unite(m *merging) bool {
	left, right := l.replica(m.merged.ID), l.replica(m.right.ID)
	if !l.done(
		func() error { return right.Freeze(l.ctx, m.merged, m.right, m.operator) },
		func() error { return right.SecureFrozen(l.ctx, m.operator) },
		func() error { return left.Subsume(l.ctx, m.merged, m.right, m.operator) },
		func() error { return left.Wean(l.ctx, m.merged.Epoch) },
	) {
		return false
	}
	l.change(func() {
		var shards []*shard.Descriptor
		for _, d := range l.shards {
			switch d.ID {
			case m.merged.ID:
				shards = append(shards, m.merged)
			case m.right.ID:
			default:
				shards = append(shards, d)
			}
		}
		l.shards, l.merge = shards, nil
		l.gone = append(l.gone, Held{m.right.ID, testReplica})
	})
	return true
}

func keyOf(i int) []byte { return fmt.Appendf(nil, "k%02d", i) }

// owner is the replica that serves a key, nil for none, and in which epoch.
func (l *life) owner(key []byte) (found *Replica, epoch uint64) {
	l.host.Each(func(r *Replica) {
		if d := r.View().Descriptor; d != nil && d.Span.Contains(key) {
			found, epoch = r, d.Epoch
		}
	})
	return found, epoch
}

// write writes a key the next time; false when nobody knows whether it did.
func (l *life) write(rng *rand.Rand, key int) bool {
	r, epoch := l.owner(keyOf(key))
	if r == nil {
		select {
		case <-l.ctx.Done():
		case <-time.After(time.Millisecond):
		}
		return true
	}
	var number int
	l.change(func() {
		p := &l.keys[key]
		p.tried = p.acked + 1
		number = p.tried
	})
	cmd := writeCommand(keyOf(key), number, rng.IntN(valueMax>>(7*min(rng.IntN(8), 1))))
	cmd.Epoch = epoch
	done := make(chan shard.Result, 1)
	r.Propose(cmd, func(res shard.Result) { done <- res })
	res := <-done
	switch {
	case res.Err == nil:
		l.change(func() { l.keys[key] = page{acked: number, tried: number, at: res.Revision} })
		return true
	case l.ctx.Err() != nil || errors.Is(res.Err, shard.ErrUnknownOutcome):
		return false
	}
	l.change(func() { l.keys[key].tried = number - 1 })
	return true
}

func writeCommand(key []byte, number, bytes int) *shardpb.Command {
	kind, msg := shardpb.Kind_PUT, proto.Message(&pb.PutRequest{Key: key, Value: fmt.Appendf(nil, "%d%*s", number, bytes, "")})
	if number%deleteEvery == 0 {
		kind, msg = shardpb.Kind_DELETE_RANGE, &pb.DeleteRangeRequest{Key: key}
	}
	body, err := proto.Marshal(msg)
	if err != nil {
		panic(err)
	}
	return &shardpb.Command{Kind: kind, Body: body}
}

// check requires that each key has what was acknowledged last, or what was under way. That is known from then on.
func (l *life) check() bool {
	for i := range l.keys {
		p := &l.keys[i]
		r, _ := l.owner(keyOf(i))
		require.NotNil(l.t, r, "who has key %d?", i)
		var resp *pb.RangeResponse
		read := func() (err error) {
			if _, err = r.Barrier(l.ctx); err == nil {
				resp, err = r.Range(&pb.RangeRequest{Key: keyOf(i)}, 0)
			}
			return err
		}
		if !l.done(read) {
			return false
		}
		number := p.acked
		if len(resp.Kvs) == 0 {
			if number%deleteEvery != 0 {
				number = p.tried
			}
			require.Zero(l.t, number%deleteEvery, "key %d is missing: write %d was acknowledged, %d tried", i, p.acked, p.tried)
		} else {
			kv := resp.Kvs[0]
			var err error
			number, err = strconv.Atoi(strings.TrimSpace(string(kv.Value)))
			require.NoError(l.t, err)
			require.EqualValues(l.t, number%deleteEvery, kv.Version, "key %d at write %d", i, number)
			if number == p.acked && p.at != 0 {
				require.EqualValues(l.t, p.at, kv.ModRevision, "key %d at write %d", i, number)
			}
		}
		require.GreaterOrEqual(l.t, number, p.acked, "key %d, of which write %d was tried", i, p.tried)
		require.LessOrEqual(l.t, number, p.tried, "key %d, of which write %d was acknowledged", i, p.acked)
		l.change(func() {
			if number != p.acked {
				p.at = 0
			}
			p.acked, p.tried = number, number
		})
	}
	return true
}
