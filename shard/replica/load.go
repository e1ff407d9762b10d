package replica

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/load"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Load is what a replica has measured.
type Load struct {
	Shard   shard.ID
	Replica shard.ReplicaID
	// Leader is the group's, as far as this replica knows; 0 for none.
	Leader  shard.ReplicaID
	Term    uint64
	Applied uint64
	// Unfit is Replica.Unfit.
	Unfit string
	// Epoch and Generation are those of the applied descriptor; 0 before there is one.
	Epoch, Generation uint64

	// Bytes and Versions are the size of the replica on this node's disk, as estimated at Sized;
	// zero before that. Middle is the key that divides the bytes. Versions and Middle are
	// recomputed only when Bytes has changed by a tenth.
	Bytes, Versions int64
	Sized           time.Time
	Middle          load.Point

	// Reads per second are those answered here. The following figures are measured by the leader
	// alone: of what it proposes, since Since, when it began to lead with its present span. Balance
	// is the key that divides the writes.
	Reads                      float64
	Since                      time.Time
	Writes, WriteBytes         float64
	PeakWrites, PeakWriteBytes float64
	Balance                    load.Point
	// Commit is how long half of the log entries took lately from being proposed until they were applied, CommitSlow
	// 99 of 100; 0 if there were none.
	Commit, CommitSlow time.Duration
}

const (
	// sizeEvery is how old an estimate of a replica's size may become, unless the node has more replicas than
	// sizesMax and looksMax allow for.
	sizeEvery = 20 * time.Second
	// sizesMax bounds the number of estimates in one Measure. Each takes some lookups in the store.
	sizesMax = 16
	// looksMax bounds for how many of them the contents are looked at, which takes ten times as long. Where many small
	// shards are written to, each of them has changed by a tenth when it gets its turn.
	looksMax = 4
	// contentChange is the share by which a shard must have grown or shrunk before its versions are counted and its
	// middle is searched again. That takes a millisecond or two for a large shard, unlike the size alone.
	contentChange = 0.1
)

// Measure makes all replicas take a reading. Call it about once a second, from one goroutine; peaks
// are kept for the given time.
func (h *Host) Measure(now time.Time, peaks time.Duration) {
	var due []*Replica
	unfit := 0
	h.Each(func(r *Replica) {
		if r.Unfit() != "" {
			unfit++
		}
		r.measure(now, peaks)
		if r.View().Descriptor != nil && now.Sub(r.meter.sized()) >= sizeEvery {
			due = append(due, r)
		}
	})
	h.cfg.Metrics.unfit.Set(float64(unfit))
	slices.SortFunc(due, func(a, b *Replica) int {
		return cmp.Or(a.meter.sized().Compare(b.meter.sized()), cmp.Compare(a.id, b.id))
	})
	looks := 0
	for _, r := range due[:min(len(due), sizesMax)] {
		looked, err := r.size(now)
		if err != nil {
			h.cfg.Logger.Warn("cannot estimate the size of a shard", "shard", r.id, "error", err)
		}
		if looked {
			if looks++; looks == looksMax {
				break
			}
		}
	}
}

// Loads returns the measurements of the last Measure, ascending by shard.
func (h *Host) Loads() []Load {
	var out []Load
	h.Each(func(r *Replica) { out = append(out, r.load()) })
	slices.SortFunc(out, func(a, b Load) int { return cmp.Compare(a.Shard, b.Shard) })
	return out
}

// meter counts what a replica does. A request waits only for the counting.
type meter struct {
	reads atomic.Int64

	mu struct {
		sync.Mutex
		writes, writeBytes int64 // proposed
		sample             load.Sample
		reading
	}
}

// reading is what was computed from the counts.
type reading struct {
	reads load.Rate

	// since is when this replica began to lead with its present span; zero while another leads.
	since                      time.Time
	epoch                      uint64
	writes, writeBytes         load.Rate
	peakWrites, peakWriteBytes load.Peak
	commits                    *load.Latency // nil without an entry: a node has many replicas, and most are followers

	sized   time.Time
	bytes   int64
	content content
}

// content is what the last close look at a replica found.
type content struct {
	bytes, versions int64
	middle          load.Point
}

// fits reports whether the findings are still about right.
func (c content) fits(d *shard.Descriptor, bytes int64) bool {
	inside := c.middle.Key == nil || d.Span.Contains(c.middle.Key) // otherwise it was split
	change := max(bytes, c.bytes) - min(bytes, c.bytes)
	return inside && float64(change) <= contentChange*float64(c.bytes)
}

// wrote counts the writes among commands that are being proposed.
func (m *meter) wrote(batch []pending) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range batch {
		cmd := batch[i].cmd
		switch cmd.Kind {
		case shardpb.Kind_PUT, shardpb.Kind_DELETE_RANGE, shardpb.Kind_TXN:
		default:
			continue
		}
		m.mu.writes++
		m.mu.writeBytes += int64(len(cmd.Body))
		if m.mu.sample.Wants() {
			if key := writtenKey(cmd); key != nil {
				m.mu.sample.Add(key)
			}
		}
	}
}

// committed counts a log entry.
func (m *meter) committed(took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.commits == nil {
		m.mu.commits = &load.Latency{}
	}
	m.mu.commits.Observe(took)
}

// writtenKey returns a key that the command could change, or nil. For a transaction it is the first one found,
// because a transaction's keys are mostly close together.
func writtenKey(cmd *shardpb.Command) []byte {
	switch cmd.Kind {
	case shardpb.Kind_PUT:
		var req pb.PutRequest
		if proto.Unmarshal(cmd.Body, &req) == nil {
			return req.Key
		}
	case shardpb.Kind_DELETE_RANGE:
		var req pb.DeleteRangeRequest
		if proto.Unmarshal(cmd.Body, &req) == nil {
			return req.Key
		}
	case shardpb.Kind_TXN:
		var req pb.TxnRequest
		if proto.Unmarshal(cmd.Body, &req) == nil {
			return txnKey(&req)
		}
	}
	return nil
}

func txnKey(req *pb.TxnRequest) []byte {
	for _, op := range slices.Concat(req.Success, req.Failure) {
		switch {
		case op.GetRequestPut() != nil:
			return op.GetRequestPut().Key
		case op.GetRequestDeleteRange() != nil:
			return op.GetRequestDeleteRange().Key
		case op.GetRequestTxn() != nil:
			if key := txnKey(op.GetRequestTxn()); key != nil {
				return key
			}
		}
	}
	return nil
}

func (m *meter) sized() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.sized
}

// measure takes a reading. The write figures start afresh when the replica begins to lead or its span changes.
func (r *Replica) measure(now time.Time, peaks time.Duration) {
	epoch := uint64(0)
	if d := r.View().Descriptor; d != nil {
		epoch = d.Epoch
	}
	leads := r.Leads()
	m := &r.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	q := &m.mu.reading
	q.reads.Observe(m.reads.Load(), now)
	if !leads || epoch != q.epoch || q.since.IsZero() {
		q.writes, q.writeBytes, q.peakWrites, q.peakWriteBytes = load.Rate{}, load.Rate{}, load.Peak{}, load.Peak{}
		m.mu.sample = load.Sample{}
		q.since, q.epoch, q.commits = time.Time{}, epoch, nil
		if !leads {
			return
		}
		q.since = now
	}
	q.writes.Observe(m.mu.writes, now)
	q.writeBytes.Observe(m.mu.writeBytes, now)
	m.mu.sample.Pace(q.writes.PerSecond())
	if q.commits != nil {
		q.commits.Turn(now)
	}
	if q.writes.Settled() {
		q.peakWrites.Observe(q.writes.PerSecond(), now, peaks)
		q.peakWriteBytes.Observe(q.writeBytes.PerSecond(), now, peaks)
	}
}

// size estimates what the replica has on disk, and reports whether that took a look at its contents. It does not hold
// up the meter.
func (r *Replica) size(now time.Time) (looked bool, err error) {
	d := r.View().Descriptor
	if d == nil { // it was frozen just now
		return false, nil
	}
	m := &r.meter
	m.mu.Lock()
	found := m.mu.content
	m.mu.sized = now // also if it fails, so that the others get their turn
	m.mu.Unlock()
	size, err := r.host.cfg.Engine.SpanSize(d.Span)
	bytes := int64(size)
	if looked = err == nil && !found.fits(d, bytes); looked {
		found, err = r.lookInside(d.Span, bytes)
	}
	if err != nil {
		return looked, fmt.Errorf("shard %s: %w", r.id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.bytes, m.mu.content = bytes, found
	return looked, nil
}

func (r *Replica) lookInside(span shard.Span, bytes int64) (found content, err error) {
	found.bytes = bytes
	if found.versions, err = r.host.cfg.Engine.SpanVersions(span); err != nil {
		return found, err
	}
	found.middle.Key, found.middle.Left, err = r.host.cfg.Engine.SpanMiddle(span)
	return found, err
}

func (r *Replica) load() Load {
	view := r.View()
	out := Load{Shard: r.id, Replica: r.replicaID, Applied: view.Applied, Unfit: r.Unfit()}
	out.Leader, out.Term = r.host.Leader(r.id)
	if d := view.Descriptor; d != nil {
		out.Epoch, out.Generation = d.Epoch, d.Generation
	}
	m := &r.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	q := &m.mu.reading
	out.Bytes, out.Versions, out.Sized, out.Middle = q.bytes, q.content.versions, q.sized, q.content.middle
	out.Reads, out.Since = q.reads.PerSecond(), q.since
	out.Writes, out.WriteBytes = q.writes.PerSecond(), q.writeBytes.PerSecond()
	out.PeakWrites, out.PeakWriteBytes = max(q.peakWrites.Highest(), out.Writes), max(q.peakWriteBytes.Highest(), out.WriteBytes)
	out.Balance = m.mu.sample.Point()
	if q.commits != nil {
		out.Commit, out.CommitSlow = q.commits.Half(), q.commits.Slow()
	}
	return out
}
