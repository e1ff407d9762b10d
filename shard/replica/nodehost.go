package replica

import (
	"fmt"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
)

// RaftConfig configures the node's Raft machinery, shared by all its groups.
type RaftConfig struct {
	// Dir holds the Raft logs and received snapshots.
	Dir string
	// Address is where peers reach this node; it is recorded in every group's
	// membership and cannot change.
	Address string
	// ClusterID keeps nodes of different clusters from talking to each other.
	ClusterID uint64
	// TickInterval is the unit of heartbeats and elections. Every tick visits every replica of the
	// node.
	TickInterval time.Duration
	// ElectionTicks is the election timeout in ticks, more than twice heartbeatTicks.
	ElectionTicks uint64
	// LogEntries is how many applied entries of a group's log are kept before the log is truncated. A tenth of them or two
	// stay. A larger value means longer replay after a crash, but a replica that was away for a while
	// catches up from the log instead of a whole snapshot.
	LogEntries uint64
	// LogBytes is how many bytes of a group's entries are kept before the log is truncated, if that comes
	// earlier. 0 is no bound.
	LogBytes int64
	// QueueBytes bounds Raft's memory: per group, the entries that are not applied, beyond which
	// its leader accepts no more writes; per peer, the send queue, and per replica, the receive
	// queue, beyond which messages are lost, as on a network. 0 is no bound.
	QueueBytes uint64
	// Transport carries Raft messages.
	Transport config.TransportFactory
	// Log opens the log of all groups.
	Log LogFactory
	// FS holds the rest of Dir; nil is the operating system's.
	FS config.IFS
}

// LogFactory opens a log in which a group's initial members need not be durable before Sync has
// returned, and which knows how many bytes a replica's entries before an index take. raftlog.Factory is one.
type LogFactory interface {
	config.LogDBFactory
	Sync() error
	Bytes(shardID, replicaID, before uint64) int64
}

const (
	// One worker steps all groups, so that their appends share one write of the log and
	// one fsync, which is what bounds writes on small machines.
	execWorkers = 1
	// heartbeatTicks is the number of ticks between a leader's heartbeats. An idle group costs a look at each replica
	// per tick, and a message to and from each follower per heartbeat. Both are fewest when they coincide.
	heartbeatTicks = 1
	// ticksSlack is how many ticks dragonboat gets beyond a request's timeout. dragonboat counts the current tick as
	// a whole one, so a request of one tick could end a microsecond later. The caller measures the time itself.
	ticksSlack = 2
)

// openNodeHost starts the node's Raft machinery. The listener is called with every leader change and must not block
// (P4).
func openNodeHost(c RaftConfig, leaders raftio.IRaftEventListener, w *wakeups) (*dragonboat.NodeHost, error) {
	unused := config.GetTinyMemLogDBConfig() // it configures dragonboat's own log store, which is not used but is checked all the same
	unused.Shards = execWorkers
	nhc := config.NodeHostConfig{
		DeploymentID:        c.ClusterID,
		NodeHostDir:         c.Dir,
		WALDir:              c.Dir,
		RTTMillisecond:      uint64(c.TickInterval.Milliseconds()),
		RaftAddress:         c.Address,
		RaftEventListener:   leaders,
		MaxSendQueueSize:    c.QueueBytes,
		MaxReceiveQueueSize: c.QueueBytes,
		Expert: config.ExpertConfig{
			TransportFactory: c.Transport,
			LogDBFactory:     &steppedLogs{c.Log, w},
			LogDB:            unused,
			FS:               c.FS,
			Engine: config.EngineConfig{
				ExecShards: execWorkers, CommitShards: 4, ApplyShards: 4, SnapshotShards: 4, CloseShards: 4,
			},
		},
	}
	nh, err := dragonboat.NewNodeHost(nhc)
	if err != nil {
		return nil, fmt.Errorf("open the Raft log in %s: %w", c.Dir, err)
	}
	if err := w.find(nh); err != nil {
		nh.Close()
		return nil, err
	}
	return nh, nil
}

// GroupConfig returns the Raft configuration of one group's replica. learner stays true for a replica that joined as
// a learner, even after it got a vote, because its log has to replay from the time when it had none. All members have
// the same election timeout: a leader also checks for its majority at that interval, and with a shorter one it would
// step down whenever the machine is busy for that long.
func (c RaftConfig) GroupConfig(shardID, replicaID uint64, learner bool) config.Config {
	return config.Config{
		ReplicaID:           replicaID,
		ShardID:             shardID,
		CheckQuorum:         true,
		PreVote:             true,
		ElectionRTT:         c.ElectionTicks,
		IsNonVoting:         learner,
		HeartbeatRTT:        heartbeatTicks,
		OrderedConfigChange: true,
		MaxInMemLogSize:     c.QueueBytes,
		WaitReady:           true,
	}
}

// entrance is how requests of goroutines that may outlive the host get into dragonboat. dragonboat looks only once, when
// a request begins, whether it has been closed; closing takes away what the rest of the request uses, which ends the
// process. So Close shuts the entrance first, and that waits for the requests inside. Each is over in microseconds: none
// waits for its result here.
type entrance struct {
	nh interface {
		Propose(*client.Session, []byte, time.Duration) (*dragonboat.RequestState, error)
		ReadIndex(shardID uint64, timeout time.Duration) (*dragonboat.RequestState, error)
		RequestSnapshot(shardID uint64, o dragonboat.SnapshotOption, timeout time.Duration) (*dragonboat.RequestState, error)
	}
	mu   sync.RWMutex
	shut bool
}

// propose is NodeHost.Propose, and fails with dragonboat.ErrClosed once the entrance is shut.
func (e *entrance) propose(s *client.Session, data []byte, timeout time.Duration) (*dragonboat.RequestState, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.shut {
		return nil, dragonboat.ErrClosed
	}
	return e.nh.Propose(s, data, timeout)
}

// readIndex is NodeHost.ReadIndex, and fails with dragonboat.ErrClosed once the entrance is shut.
func (e *entrance) readIndex(shardID uint64, timeout time.Duration) (*dragonboat.RequestState, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.shut {
		return nil, dragonboat.ErrClosed
	}
	return e.nh.ReadIndex(shardID, timeout)
}

// close returns when no request is inside, and none enters any more.
func (e *entrance) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.shut = true
}
