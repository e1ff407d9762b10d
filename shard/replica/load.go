package replica

import (
	"cmp"
	"errors"
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
	// Epoch and Generation are of the descriptor applied; 0 before there is one.
	Epoch, Generation uint64

	// Bytes and Versions are what the replica has on this node's disk, as estimated at
	// Sized; zero when it was not yet. Middle is where the bytes divide.
	Bytes, Versions int64
	Sized           time.Time
	Middle          load.Point

	// Reads per second are those answered here. What follows is measured by the leader
	// alone: of what it proposes, since Since, when it began to lead with the span it has
	// now. Balance is where the writes divide.
	Reads                      float64
	Since                      time.Time
	Writes, WriteBytes         float64
	PeakWrites, PeakWriteBytes float64
	Balance                    load.Point
}

const (
	// sizeEvery is how old an estimate of a replica's size may become, as long as the node
	// has not more replicas than sizesMax allows for.
	sizeEvery = 20 * time.Second
	// sizesMax bounds the estimates of one Measure: each is some lookups in the store.
	sizesMax = 16
	// middleChange is the share by which a shard must have grown or shrunk for its middle
	// to be looked for again.
	middleChange = 0.1
)

// Measure has all replicas take a reading. It is to be called about once a second, by
// one goroutine; peaks are kept for the given time.
func (h *Host) Measure(now time.Time, peaks time.Duration) {
	var due []*Replica
	h.Each(func(r *Replica) {
		r.measure(now, peaks)
		if r.View().Descriptor != nil && now.Sub(r.meter.sized()) >= sizeEvery {
			due = append(due, r)
		}
	})
	slices.SortFunc(due, func(a, b *Replica) int {
		return cmp.Or(a.meter.sized().Compare(b.meter.sized()), cmp.Compare(a.id, b.id))
	})
	for _, r := range due[:min(len(due), sizesMax)] {
		if err := r.size(now); err != nil {
			h.cfg.Logger.Warn("cannot estimate the size of a shard", "shard", r.id, "error", err)
		}
	}
}

// Loads returns what the replicas had measured by the last Measure, ascending by shard.
func (h *Host) Loads() []Load {
	var out []Load
	h.Each(func(r *Replica) { out = append(out, r.load()) })
	slices.SortFunc(out, func(a, b Load) int { return cmp.Compare(a.Shard, b.Shard) })
	return out
}

// meter counts what a replica does. Counting is all that a request waits for.
type meter struct {
	reads atomic.Int64

	mu struct {
		sync.Mutex
		writes, writeBytes int64 // proposed
		sample             load.Sample
		reading
	}
}

// reading is what was made of the counts.
type reading struct {
	reads load.Rate

	// since begins a reign over a span; zero while another leads.
	since                      time.Time
	epoch                      uint64
	writes, writeBytes         load.Rate
	peakWrites, peakWriteBytes load.Peak

	sized           time.Time
	bytes, versions int64
	middle          load.Point
	middleBytes     int64 // what bytes was when middle was found
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

// writtenKey is a key that the command could change, nil when there is none. Of a
// transaction it is the first that is found: its keys are mostly close together.
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

// measure takes a reading. Figures of writes begin anew when the replica comes to lead,
// or the span is another.
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
		q.since, q.epoch = time.Time{}, epoch
		if !leads {
			return
		}
		q.since = now
	}
	q.writes.Observe(m.mu.writes, now)
	q.writeBytes.Observe(m.mu.writeBytes, now)
	m.mu.sample.Pace(q.writes.PerSecond())
	if q.writes.Settled() {
		q.peakWrites.Observe(q.writes.PerSecond(), now, peaks)
		q.peakWriteBytes.Observe(q.writeBytes.PerSecond(), now, peaks)
	}
}

// size estimates what the replica, which has a descriptor, has on disk. The meter is not
// held up by it.
func (r *Replica) size(now time.Time) error {
	d := r.View().Descriptor
	m := &r.meter
	m.mu.Lock()
	middle, middleBytes := m.mu.middle, m.mu.middleBytes
	m.mu.sized = now // also when it fails: the others have their turn
	m.mu.Unlock()
	size, err := r.host.cfg.Engine.SpanSize(d.Span)
	bytes := int64(size)
	versions, errVersions := r.host.cfg.Engine.SpanVersions(d.Span)
	err = errors.Join(err, errVersions)
	change := max(bytes, middleBytes) - min(bytes, middleBytes)
	outside := middle.Key != nil && !d.Span.Contains(middle.Key) // it was split
	if err == nil && (outside || float64(change) > middleChange*float64(middleBytes)) {
		middle.Key, middle.Left, err = r.host.cfg.Engine.SpanMiddle(d.Span)
		middleBytes = bytes
	}
	if err != nil {
		return fmt.Errorf("shard %s: %w", r.id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.bytes, m.mu.versions, m.mu.middle, m.mu.middleBytes = bytes, versions, middle, middleBytes
	return nil
}

func (r *Replica) load() Load {
	view := r.View()
	out := Load{Shard: r.id, Replica: r.replicaID, Applied: view.Applied}
	out.Leader, out.Term = r.host.Leader(r.id)
	if d := view.Descriptor; d != nil {
		out.Epoch, out.Generation = d.Epoch, d.Generation
	}
	m := &r.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	q := &m.mu.reading
	out.Bytes, out.Versions, out.Sized, out.Middle = q.bytes, q.versions, q.sized, q.middle
	out.Reads, out.Since = q.reads.PerSecond(), q.since
	out.Writes, out.WriteBytes = q.writes.PerSecond(), q.writeBytes.PerSecond()
	out.PeakWrites, out.PeakWriteBytes = max(q.peakWrites.Highest(), out.Writes), max(q.peakWriteBytes.Highest(), out.WriteBytes)
	out.Balance = m.mu.sample.Point()
	return out
}
