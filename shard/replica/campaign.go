package replica

import (
	"slices"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
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

// Campaign has replicas of this node stand for election now, without waiting for an election
// timeout: those whose group has no leader as far as this node knows. Who calls it has found
// out that no other member knows one (P11), and that a majority runs: votes that nobody
// receives are asked for again only after an election timeout.
func (h *Host) Campaign(replicas []Held) {
	h.stand(slices.DeleteFunc(slices.Clone(replicas), func(r Held) bool {
		leader, _ := h.Leader(r.Shard)
		return leader != 0
	}))
}

// stand has replicas of this node stand for election now, leader or not.
//
// dragonboat has no call for it. What it has is the message by which a leader that hands
// over has its heir begin an election at once, and that is what is delivered here.
func (h *Host) stand(replicas []Held) {
	if len(replicas) == 0 {
		return
	}
	batch := raftpb.MessageBatch{DeploymentId: h.cfg.Raft.ClusterID, BinVer: raftio.TransportBinVersion}
	for _, r := range replicas {
		batch.Requests = append(batch.Requests, raftpb.Message{
			Type: raftpb.TimeoutNow, ShardID: uint64(r.Shard), From: uint64(r.Replica), To: uint64(r.Replica),
		})
	}
	h.doorway.deliver(batch)
}
