package node

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/node/heat"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// heatHaste is the pause between attempts until a node has its first column.
	heatHaste = time.Second
	// heatBytes bounds a reply. A node that has just started asks several times for the hour before.
	heatBytes = 1 << 20
	// heatCellBytes is about what a cell takes in a reply, beside its key.
	heatCellBytes = 40
)

// heatRecord keeps the heat of the keyspace over the last hour, for the dashboard. The node that leads the meta group takes
// the columns, from reports that it collects anyway; the others copy them, so that each node can show the hour, also when
// that leader is lost. A column is bounded, whatever the number of shards.
type heatRecord struct {
	node *Node
	mu   struct {
		sync.Mutex
		heat.Record
	}
}

// run records until ctx ends.
func (h *heatRecord) run(ctx context.Context) {
	for {
		more, err := h.turn(ctx)
		if err != nil && ctx.Err() == nil {
			h.node.log.Debug("the heat of the keyspace is not known", "error", err) // a gap tells
		}
		wait := heat.Interval
		switch {
		case more:
			continue
		case h.last().IsZero():
			wait = heatHaste
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// turn takes a column, or copies those that the leader has taken. more says that it has others.
func (h *heatRecord) turn(ctx context.Context) (more bool, err error) {
	if h.node.meta.leads() {
		h.take(ctx)
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*loadPatience)
	defer cancel()
	req := &routerpb.HeatRequest{}
	if last := h.last(); !last.IsZero() {
		// The leader's column of the same time is left out by Add.
		req.YoungerMillis = max(time.Since(last).Milliseconds(), 1)
	}
	reply, err := askMembers(ctx, h.node.meta, func(ctx context.Context, peer routerpb.PeerClient) (*routerpb.HeatReply, error) {
		return peer.Heat(ctx, req)
	})
	if err != nil {
		return false, err
	}
	before := h.last()
	h.copy(reply, time.Now())
	return reply.More && h.last().After(before), nil
}

// take makes a column of the load reports. If none were collected lately, because the balancer is manual, it collects them.
func (h *heatRecord) take(ctx context.Context) {
	m := h.node.table.Map()
	c, fresh := h.node.loads.lately(heat.Interval)
	if !fresh {
		c = h.node.loads.listen(ctx, m)
	}
	now := time.Now()
	column := heat.Take(m, assemble(m, c), now, now.Add(-2*heat.Interval))
	if len(column.Cells) == 0 {
		return // the table is not known yet
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.Add(column)
}

// columns are those of the last hour, with a number that rises with each change.
func (h *heatRecord) columns() ([]heat.Column, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.Columns()
}

func (h *heatRecord) last() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.Last()
}

// copy adds columns of another node. Ages are told instead of times, so that nobody's clock matters.
func (h *heatRecord) copy(reply *routerpb.HeatReply, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range reply.Columns {
		column := heat.Column{At: now.Add(-time.Duration(c.AgeMillis) * time.Millisecond), Cells: make([]heat.Cell, len(c.Cells))}
		for i, one := range c.Cells {
			column.Cells[i] = heat.Cell{
				Start: one.Start, Shard: shard.ID(one.Shard), Leader: shard.NodeID(one.Leader), Shards: int(one.Shards),
				Known: one.Known, Writes: one.Writes, Reads: one.Reads,
			}
		}
		h.mu.Add(column)
	}
}

// Heat implements routerpb.PeerServer.
func (s *peerServer) Heat(_ context.Context, req *routerpb.HeatRequest) (*routerpb.HeatReply, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if !s.node.meta.leads() {
		return nil, status.Error(codes.FailedPrecondition, "this node does not lead the meta group")
	}
	return s.node.heat.reply(req, time.Now()), nil
}

// reply tells of the oldest columns asked for.
func (h *heatRecord) reply(req *routerpb.HeatRequest, now time.Time) *routerpb.HeatReply {
	var since time.Time
	if req.YoungerMillis > 0 {
		since = now.Add(-time.Duration(req.YoungerMillis) * time.Millisecond)
	}
	h.mu.Lock()
	columns := h.mu.Since(since)
	h.mu.Unlock()
	reply, size := &routerpb.HeatReply{}, 0
	for _, c := range columns {
		if size >= heatBytes {
			reply.More = true
			break
		}
		out := &routerpb.HeatColumn{AgeMillis: now.Sub(c.At).Milliseconds()}
		for _, one := range c.Cells {
			size += heatCellBytes + len(one.Start)
			out.Cells = append(out.Cells, &routerpb.HeatCell{
				Start: one.Start, Shard: uint64(one.Shard), Leader: uint64(one.Leader), Shards: uint32(one.Shards),
				Known: one.Known, Writes: one.Writes, Reads: one.Reads,
			})
		}
		reply.Columns = append(reply.Columns, out)
	}
	return reply
}

// nodeName is a node's name for people.
func (n *Node) nodeName(id shard.NodeID) string {
	if known := n.table.Map().Node(id); known != nil {
		return known.Name
	}
	return "node " + id.String()
}
