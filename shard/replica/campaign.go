package replica

import (
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// doorway is a transport that keeps the way by which what it receives reaches Raft.
type doorway struct {
	config.TransportFactory
	deliver raftio.MessageHandler // set when dragonboat makes the transport
}

// Create implements config.TransportFactory.
func (d *doorway) Create(c config.NodeHostConfig, messages raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	d.deliver = messages
	return d.TransportFactory.Create(c, messages, chunks)
}

// Candidacy is a replica of this node that is to campaign.
type Candidacy struct {
	Held
	// Instead is the replica that leads as far as this node knows, and that the caller knows
	// not to lead any more; 0: none.
	Instead shard.ReplicaID
}

// Campaign makes replicas of this node campaign now, without waiting for an election timeout: those
// whose group has no leader as far as this node knows. The caller has established that no other
// member knows one (P11), and that a majority runs: vote requests that nobody receives are repeated
// only after an election timeout.
func (h *Host) Campaign(candidacies []Candidacy) {
	var able []Held
	for _, c := range candidacies {
		if leader, _ := h.Leader(c.Shard); leader == 0 || leader == c.Instead {
			able = append(able, c.Held)
		}
	}
	h.stand(able)
}

// stand has replicas of this node stand for election now, leader or not.
//
// dragonboat has no call for it. What it has is the message by which a leader that hands
// over has its heir begin an election at once, and that is what is delivered here.
func (h *Host) stand(replicas []Held) {
	if len(replicas) == 0 {
		return
	}
	var told []raftpb.Message
	for _, r := range replicas {
		told = append(told, raftpb.Message{Type: raftpb.TimeoutNow, ShardID: uint64(r.Shard), From: uint64(r.Replica), To: uint64(r.Replica)})
	}
	h.doorway.deliver(h.batchOf(told...))
}

// wind sets the clock by which the requests of a replica time out, which has just started.
// dragonboat's ticks carry how many there were since the process began, and before the first one a
// replica takes it for zero: what was asked for until then would be as old as the process,
// and a write under way at the first tick of unknown outcome. The number may be too large, as some
// ticks are skipped on a busy machine, and the next tick sets it right.
func (h *Host) wind(r Held) {
	ticks := uint64(time.Since(h.opened) / h.cfg.Raft.TickInterval)
	h.doorway.deliver(h.batchOf(raftpb.Message{
		Type: raftpb.LocalTick, ShardID: uint64(r.Shard), From: uint64(r.Replica), To: uint64(r.Replica), Hint: ticks,
	}))
}

// batchOf is what the node's replicas receive together.
func (h *Host) batchOf(messages ...raftpb.Message) raftpb.MessageBatch {
	return raftpb.MessageBatch{DeploymentId: h.cfg.Raft.ClusterID, BinVer: raftio.TransportBinVersion, Requests: messages}
}
