package replica

import (
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// doorway is a transport that remembers how to deliver messages to this node's Raft.
type doorway struct {
	config.TransportFactory
	entries func()                // is called when entries of other nodes' groups arrive; must not block
	deliver raftio.MessageHandler // set when dragonboat creates the transport
}

// Create implements config.TransportFactory.
func (d *doorway) Create(c config.NodeHostConfig, messages raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	d.deliver = messages
	arrived := func(batch raftpb.MessageBatch) {
		if bringEntries(batch.Requests) {
			d.entries()
		}
		messages(batch)
	}
	return d.TransportFactory.Create(c, arrived, chunks)
}

func bringEntries(messages []raftpb.Message) bool {
	for i := range messages {
		if m := &messages[i]; m.Type == raftpb.Replicate && len(m.Entries) > 0 {
			return true
		}
	}
	return false
}

// Candidacy names a replica of this node that should campaign.
type Candidacy struct {
	Held
	// Instead is a replica that this node still takes for the leader, although the caller knows that it leads no
	// longer; 0 if there is none.
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

// stand makes replicas of this node campaign now, whether or not there is a leader.
//
// dragonboat has no call for this. But it has the message by which a leader that hands over makes its successor start
// an election at once, so that message is delivered here.
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

// wind sets the clock by which the requests of a replica that has just started time out. dragonboat's ticks carry the
// number of ticks since the process began, but until the first one arrives a replica assumes zero. Requests made
// before then would look as old as the process, and a write in flight at the first tick would get an unknown outcome.
// The number set here may be too large, because a busy machine skips some ticks; the next tick corrects it.
func (h *Host) wind(r Held) {
	ticks := uint64(time.Since(h.opened) / h.cfg.Raft.TickInterval)
	h.doorway.deliver(h.batchOf(raftpb.Message{
		Type: raftpb.LocalTick, ShardID: uint64(r.Shard), From: uint64(r.Replica), To: uint64(r.Replica), Hint: ticks,
	}))
}

// batchOf returns messages as one batch for the node's replicas.
func (h *Host) batchOf(messages ...raftpb.Message) raftpb.MessageBatch {
	return raftpb.MessageBatch{DeploymentId: h.cfg.Raft.ClusterID, BinVer: raftio.TransportBinVersion, Requests: messages}
}
