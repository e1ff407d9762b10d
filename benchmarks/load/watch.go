package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watch delivers every put to many watchers. One operation is one event delivered; its
// latency is from the start of the put to the arrival of the event.
type watch struct {
	name     string
	watchers int
	// stuck is how many more watchers there are that never read.
	stuck int
	// everything watches the whole keyspace, hence every shard, instead of one prefix.
	everything bool
	// flatOut puts as fast as the servers take it, instead of at a fixed rate: what they
	// can deliver. The latency is then that of a queue.
	flatOut bool
}

const (
	// deliveriesMax a second are few enough that latencies are not those of a queue.
	deliveriesMax = 20_000
	// watchWriters is more than the puts at a fixed rate that are under way at a time.
	watchWriters = 64
	// watchedKeys is how many keys are written under the prefix.
	watchedKeys = 1000
	// drainMax is how long events may take after the last put before they count as lost.
	drainMax = 10 * time.Second
)

func (w watch) Name() string { return w.name }

func (w watch) About() string {
	text := fmt.Sprintf("%d watchers of a prefix", w.watchers)
	if w.everything {
		text = fmt.Sprintf("%d watchers of the whole keyspace", w.watchers)
	}
	if w.stuck > 0 {
		text += fmt.Sprintf(", beside %d that never read", w.stuck)
	}
	if w.flatOut {
		return text + ": events a second at saturation"
	}
	return text + ", puts at a fixed rate: latency"
}

func (w watch) Clients(int) int { return w.watchers }

// key is one of those that are watched.
func (w watch) key(e *Env, r *rand.Rand) string {
	if w.everything {
		return sharedKeys.key(r.IntN(e.Keys))
	}
	return watchKeys.under(r.IntN(watchedKeys))
}

// span is what is watched.
func (w watch) span() (string, []clientv3.OpOption) {
	if w.everything {
		return "\x00", []clientv3.OpOption{clientv3.WithFromKey()}
	}
	return watchKeys.prefix(0) + "/", []clientv3.OpOption{clientv3.WithPrefix()}
}

// Measure implements Workload.
func (w watch) Measure(ctx context.Context, e *Env, p Plan) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.stuck > 0 {
		closeStuck, err := w.openStuck(ctx, e)
		if err != nil {
			return Result{}, err
		}
		defer closeStuck()
	}
	key, opts := w.span()
	// From a revision on: "from now" means less at a node that is behind.
	now, err := e.Conn(0).Get(ctx, key, append(opts, clientv3.WithCountOnly())...)
	if err != nil {
		return Result{}, fmt.Errorf("find the current revision: %w", err)
	}
	watches, err := e.openWatches(ctx, w.watchers, key, append(opts, clientv3.WithRev(now.Header.Revision+1)), func(int, time.Time) {})
	if err != nil {
		return Result{}, err
	}
	d := &delivery{began: time.Now(), win: p.window(), rec: newRecorder(), received: make([]atomic.Int64, w.watchers)}
	var watching, writing sync.WaitGroup
	for i, ch := range watches {
		watching.Go(func() { d.receive(i, ch) })
	}
	for i := range watchWriters {
		writing.Go(func() { w.write(ctx, e, d, i) })
	}
	err = p.mark(ctx, d.win)
	if err != nil {
		cancel()
	}
	writing.Wait()
	if err == nil && !w.flatOut {
		d.drain(ctx)
	}
	cancel()
	watching.Wait()
	if err != nil {
		return Result{}, err
	}
	return d.rec.result(d.win), nil
}

// openWatches opens n watches, spread over all connections, and tells of each when it
// was begun; it has been opened when opened is called.
func (e *Env) openWatches(ctx context.Context, n int, key string, opts []clientv3.OpOption, opened func(i int, began time.Time)) ([]clientv3.WatchChan, error) {
	out, failures := make([]clientv3.WatchChan, n), make([]error, len(e.Conns))
	opts = append([]clientv3.OpOption{clientv3.WithCreatedNotify()}, opts...)
	var wg sync.WaitGroup
	for c, conn := range e.Conns {
		wg.Go(func() {
			for i := c; i < n && failures[c] == nil; i += len(e.Conns) {
				began := time.Now()
				out[i] = conn.Watch(ctx, key, opts...)
				if first := <-out[i]; !first.Created {
					failures[c] = fmt.Errorf("open watch %d of %d: %w", i, n, errors.Join(first.Err(), ctx.Err()))
					continue
				}
				opened(i, began)
			}
		})
	}
	wg.Wait()
	return out, errors.Join(failures...)
}

// delivery is what writers and watchers of one run share.
type delivery struct {
	began time.Time // stamps count from here
	win   window
	rec   *recorder

	tick     atomic.Int64 // puts begun
	written  atomic.Int64 // puts acknowledged
	failed   atomic.Int64 // puts that may have been made or not
	received []atomic.Int64
}

// write puts stamped values until the window ends. At a fixed rate the writers share
// one schedule: when all of them are late, the time that a put was late is part of the
// latency, so a slow server cannot hide it.
func (w watch) write(ctx context.Context, e *Env, d *delivery, i int) {
	conn, r := e.Conn(i), e.random(i)
	rate := max(1, min(e.WatchRate, deliveriesMax/w.watchers))
	for ctx.Err() == nil {
		start := time.Now()
		if tick := d.tick.Add(1) - 1; !w.flatOut {
			due := d.began.Add(time.Duration(tick) * time.Second / time.Duration(rate))
			if !due.Before(d.win.end) {
				return
			}
			if wait := time.Until(due); wait > 0 {
				pause(ctx, wait)
				start = time.Now()
			} else {
				start = due
			}
		}
		if !start.Before(d.win.end) {
			return
		}
		one, cancel := context.WithTimeout(ctx, operationTimeout)
		_, err := conn.Put(one, w.key(e, r), d.stamp(start, e.value(r)))
		cancel()
		if err != nil {
			d.failed.Add(1)
			d.rec.add(i, d.win, start, time.Now(), err)
			pause(ctx, failurePause)
			continue
		}
		d.written.Add(1)
	}
}

// stampBytes is the time of a put, at the beginning of its value.
const stampBytes = 8

func (d *delivery) stamp(start time.Time, value string) string {
	b := make([]byte, max(stampBytes, len(value)))
	copy(b, value)
	binary.BigEndian.PutUint64(b, uint64(start.Sub(d.began)))
	return string(b)
}

func (d *delivery) started(value []byte) time.Time {
	return d.began.Add(time.Duration(binary.BigEndian.Uint64(value)))
}

var errDisorder = errors.New("watch: an event out of order")

// receive takes the events of one watcher until its watch ends.
func (d *delivery) receive(watcher int, events clientv3.WatchChan) {
	var last int64
	for resp := range events {
		arrived := time.Now()
		for _, ev := range resp.Events {
			var err error
			if ev.Kv.ModRevision <= last { // every put has a revision of its own
				err = errDisorder
			}
			last = ev.Kv.ModRevision
			d.rec.add(watcher, d.win, d.started(ev.Kv.Value), arrived, err)
			d.received[watcher].Add(1)
		}
	}
}

var errLost = errors.New("watch: events lost, or later than 10s")

// drain waits until every watcher has what was written. What is missing is an error, one
// for each watcher. When the outcome of a put is unknown, so is what they should have.
func (d *delivery) drain(ctx context.Context) {
	if d.failed.Load() > 0 {
		return
	}
	missing := func(i int) bool { return d.received[i].Load() != d.written.Load() }
	late := time.Now().Add(drainMax)
	for i := range d.received {
		for missing(i) && time.Now().Before(late) && ctx.Err() == nil {
			pause(ctx, failurePause)
		}
		if missing(i) {
			d.rec.add(i, d.win, d.win.start, d.win.start, errLost)
		}
	}
}
