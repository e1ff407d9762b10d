package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// watch looks at this node's disk and asks the others, once a second, how they are:
// whether they answer, what their clock says, whether their disk is full.
type watch struct {
	node *Node
	// full is why writes that grow the store are refused, nil when they are not. It is
	// what the last look found, kept so that a put only loads a pointer.
	full atomic.Pointer[string]

	mu struct {
		sync.Mutex
		peers   map[shard.NodeID]peerHealth
		diskLow bool
		disk    vfs.DiskUsage // at the last look
	}
}

// peerHealth is what the last Hello told of a node.
type peerHealth struct {
	name   string
	since  time.Time // answering without a gap since then; zero when it did not answer
	offset time.Duration
	// clock is what the node's clock showed when it answered last; zero if it never did.
	clock   time.Time
	diskLow bool
	unfit   []shard.ID // shards of which the node's replica serves nothing, and must not lead
	// stranger is the cluster of whoever answers at the node's address, when it is not
	// this one. Nothing it says counts.
	stranger uint64
}

const (
	watchInterval = time.Second
	// steadyAfter is how long a node must answer before leadership is given to it.
	steadyAfter = 5 * time.Second
)

func newWatch(n *Node) *watch {
	w := &watch{node: n}
	w.mu.peers = make(map[shard.NodeID]peerHealth)
	return w
}

// run looks until ctx ends.
func (w *watch) run(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look takes one reading of everything.
func (w *watch) look(ctx context.Context) {
	w.lookAtDisk()
	targets := make(map[shard.NodeID]string)
	names := make(map[shard.NodeID]string)
	for _, p := range w.node.knownPeers() {
		targets[p.NodeID], names[p.NodeID] = p.PeerAddr, p.Name
	}
	delete(targets, w.node.self.NodeID)
	w.forget(targets)

	ctx, cancel := context.WithTimeout(ctx, watchInterval)
	defer cancel()
	var wg sync.WaitGroup
	for id, addr := range targets {
		wg.Go(func() {
			sent := w.node.cfg.Clock.Now()
			reply, err := routerpb.NewPeerClient(w.node.peers.at(addr).Conn()).Hello(ctx, w.node.helloRequest())
			received := w.node.cfg.Clock.Now()
			w.record(id, names[id], sent, received, reply, err)
		})
	}
	wg.Wait()
	w.judgeClock()
	w.judgeSpace()
}

// forget drops nodes that are gone from the table: what they last said of their disk
// and clock must not count for ever.
func (w *watch) forget(targets map[shard.NodeID]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.mu.peers, func(id shard.NodeID, _ peerHealth) bool {
		_, known := targets[id]
		return !known
	})
}

func (w *watch) record(id shard.NodeID, name string, sent, received time.Time, reply *routerpb.HelloReply, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.mu.peers[id]
	h.name = name
	if err == nil {
		h.stranger = w.strange(reply)
	}
	if err != nil || h.stranger != 0 {
		h.since = time.Time{}
	} else {
		if h.since.IsZero() {
			h.since = time.Now() // an interval: no business of the clock that may be wrong
		}
		h.clock = time.UnixMicro(reply.ClockUnixMicros)
		h.offset = clockOffset(sent, received, h.clock)
		h.diskLow, h.unfit = reply.DiskLow, nil
		for _, id := range reply.UnfitShards {
			h.unfit = append(h.unfit, shard.ID(id))
		}
		w.node.hlc.Observe(shard.Revision(reply.HighestRevision))
	}
	w.mu.peers[id] = h
}

// strange is the ID of the cluster that the reply speaks of, 0 for this node's own.
func (w *watch) strange(reply *routerpb.HelloReply) uint64 {
	if len(reply.Identity) == 0 { // not a member of any yet
		return 0
	}
	var founding Founding
	if err := json.Unmarshal(reply.Identity, &founding); err != nil || founding.ClusterID == w.node.self.Founding.ClusterID {
		return 0
	}
	return founding.ClusterID
}

// amongStrangers says that this node is at the wrong place: only nodes of another
// cluster answer at the addresses of its peers.
func (w *watch) amongStrangers() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var strangers []string
	var cluster uint64
	for _, h := range w.mu.peers {
		switch {
		case !h.since.IsZero():
			return nil
		case h.stranger != 0:
			strangers, cluster = append(strangers, h.name), h.stranger
		}
	}
	if len(strangers) == 0 {
		return nil
	}
	slices.Sort(strangers)
	return fmt.Errorf("data directory %s belongs to cluster %x, but at the addresses of its nodes %s another cluster (%x) answers; give the --data-dir of that cluster's node, or stop that cluster",
		w.node.cfg.DataDir, w.node.self.Founding.ClusterID, strings.Join(strangers, ", "), cluster)
}

// clockOffset is how far the peer's clock is ahead, 0 if the exchange took long enough
// to explain the difference.
func clockOffset(sent, received, peer time.Time) time.Duration {
	switch {
	case peer.Before(sent):
		return peer.Sub(sent)
	case peer.After(received):
		return peer.Sub(received)
	}
	return 0
}

// judgeClock stops this node from proposing while its clock is further from most of
// the clocks that answered, its own included, than the bound.
func (w *watch) judgeClock() {
	w.mu.Lock()
	defer w.mu.Unlock()
	readings, far := 1, 0
	var worst peerHealth
	for _, h := range w.mu.peers {
		if h.since.IsZero() {
			continue
		}
		readings++
		if h.offset.Abs() > w.node.cfg.MaxClockOffset {
			far++
			if h.offset.Abs() > worst.offset.Abs() {
				worst = h
			}
		}
	}
	if 2*far <= readings {
		if w.node.hlc.Distrusted() != "" {
			w.node.log.Info("clock is in bounds again; proposing")
		}
		w.node.hlc.Trust()
		return
	}
	direction := "behind"
	if worst.offset < 0 {
		direction = "ahead of"
	}
	why := fmt.Sprintf("this node's clock is %s %s node %s's and more than --max-clock-offset %s from %d of the %d others; mend it (chrony, ntpd), the node goes on by itself",
		worst.offset.Abs().Round(time.Millisecond), direction, worst.name, w.node.cfg.MaxClockOffset, far, readings-1)
	if w.node.hlc.Distrusted() == "" {
		w.node.log.Error("not proposing: " + why)
	}
	w.node.hlc.Distrust(why)
}

// agreedTime is a time that the clocks of a majority of the nodes have passed, this one's
// counted as one of them. There is none until a majority has answered once; what a node
// showed before it went silent is past for it too.
func (w *watch) agreedTime() (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clocks := []time.Time{w.node.cfg.Clock.Now()}
	for _, h := range w.mu.peers {
		clocks = append(clocks, h.clock)
	}
	slices.SortFunc(clocks, func(a, b time.Time) int { return b.Compare(a) })
	agreed := clocks[len(clocks)/2]
	return agreed, !agreed.IsZero()
}

// lookAtDisk compares the free space with the limit. Space must come back with some
// margin before puts are allowed again, so that the alarm does not flicker.
func (w *watch) lookAtDisk() {
	usage, err := w.node.cfg.FS.GetDiskUsage(w.node.cfg.DataDir)
	if err != nil {
		w.node.log.Warn("cannot tell how full the disk is", "dir", w.node.cfg.DataDir, "error", err)
		return
	}
	free := int64(usage.AvailBytes)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.disk = usage
	switch limit := w.node.cfg.MinFreeDisk; {
	case free < limit && !w.mu.diskLow:
		w.mu.diskLow = true
		w.node.log.Error("disk is nearly full; puts are refused until there is room", "free_bytes", free, "limit_bytes", limit)
	case free > limit+limit/4 && w.mu.diskLow:
		w.mu.diskLow = false
		w.node.log.Info("disk has room again", "free_bytes", free)
	}
}

// ownDisk is the size of this node's disk and what is free of it; 0 when that could not
// be told yet.
func (w *watch) ownDisk() (total, free int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(w.mu.disk.TotalBytes), int64(w.mu.disk.AvailBytes)
}

// ownDiskLow reports whether this node's disk is nearly full.
func (w *watch) ownDiskLow() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.diskLow
}

// lowDisks returns the nodes that have no room, this one included.
func (w *watch) lowDisks() []shard.NodeID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var low []shard.NodeID
	defer func() { slices.Sort(low) }()
	if w.mu.diskLow {
		low = append(low, w.node.self.NodeID)
	}
	for id, h := range w.mu.peers {
		if h.diskLow && !h.since.IsZero() {
			low = append(low, id)
		}
	}
	return low
}

// judgeSpace refuses writes that grow the store while any node is out of room: every
// replica has to take every write.
func (w *watch) judgeSpace() {
	low := w.lowDisks()
	if len(low) == 0 {
		w.full.Store(nil)
		return
	}
	why := fmt.Sprintf("disk of node %s is nearly full", low[0])
	w.full.Store(&why)
}

// space is nil, or says why the store must not grow.
func (w *watch) space() error {
	if why := w.full.Load(); why != nil {
		return fmt.Errorf("%s: %w", *why, shard.ErrNoSpace)
	}
	return nil
}

// answers reports whether the node answered the last time it was asked.
func (w *watch) answers(id shard.NodeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.mu.peers[id].since.IsZero()
}

// unfit reports whether the node said that its replica of the shard serves nothing.
func (w *watch) unfit(id shard.NodeID, of shard.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.mu.peers[id].unfit, of)
}

// silent are the names of the nodes that do not answer.
func (w *watch) silent() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, h := range w.mu.peers {
		if h.since.IsZero() {
			names = append(names, h.name)
		}
	}
	slices.Sort(names)
	return names
}

// steady reports whether the node has been answering for a while and may propose, as
// far as its clock can be judged from here.
func (w *watch) steady(id shard.NodeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.mu.peers[id]
	return !h.since.IsZero() && time.Since(h.since) >= steadyAfter && h.offset.Abs() <= w.node.cfg.MaxClockOffset
}
