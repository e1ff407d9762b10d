package replica

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
	_ "unsafe" // for go:linkname
)

// dragonboat reads these sizes from a file in the current directory when the program starts. A server must not depend
// on where it is started, so they are set here instead. dragonboat's defaults are for a few groups with many
// proposals each. With them a replica used more than 1 MiB, and every replica was visited five times a second for
// nothing.
var (
	// Messages that may wait at a replica. Further ones are lost, as on a network.
	//go:linkname receiveQueueLen github.com/lni/dragonboat/v4.receiveQueueLen
	receiveQueueLen uint64
	// Proposals that may wait for the step worker. A proposer has one in flight.
	//go:linkname incomingProposalsMaxLen github.com/lni/dragonboat/v4.incomingProposalsMaxLen
	incomingProposalsMaxLen uint64
	// ReadIndex requests that may wait for the step worker. A barrier has one in flight.
	//go:linkname incomingReadIndexMaxLen github.com/lni/dragonboat/v4.incomingReadIndexMaxLen
	incomingReadIndexMaxLen uint64
	// Entries for which memory is allocated at a time, and how few may be left before more is allocated.
	//go:linkname entrySliceSize github.com/lni/dragonboat/v4/internal/raft.entrySliceSize
	entrySliceSize uint64
	//go:linkname minEntrySliceSize github.com/lni/dragonboat/v4/internal/raft.minEntrySliceSize
	minEntrySliceSize uint64
	// Parts of the table of proposals in flight, each with a random source of 5 KiB.
	//go:linkname pendingProposalShards github.com/lni/dragonboat/v4.pendingProposalShards
	pendingProposalShards uint64
	// Connections to each peer, each with a goroutine at both ends. Messages to a peer that are
	// sent at the same moment share a write only when they share the connection.
	//go:linkname streamConnections github.com/lni/dragonboat/v4.streamConnections
	streamConnections uint64
	// Messages that may wait for such a connection; more are lost.
	//go:linkname sendQueueLen github.com/lni/dragonboat/v4/internal/transport.sendQueueLen
	sendQueueLen uint64
	// How often workers look at all replicas, whether or not there is something to do. They are notified of all work,
	// and the step worker looks at each replica with every tick anyway.
	//go:linkname nodeReloadInterval github.com/lni/dragonboat/v4.nodeReloadInterval
	nodeReloadInterval time.Duration
	// Milliseconds between periodic syncs of a state machine, which Flotilla does not need. During a sync the shard
	// stands still, and if it fails the process ends. The time of the first one is random, but it happens at once if
	// that time, counted modulo 2^64, lies in the past. Only the largest interval prevents it.
	//go:linkname syncTaskInterval github.com/lni/dragonboat/v4.syncTaskInterval
	syncTaskInterval uint64
	// The error of a state machine that cannot be synced. After an error that is not dragonboat's own, the process
	// ends. After the errors that are meant for state machines, dragonboat removes a directory that does not exist
	// yet, and ends because of that.
	//go:linkname errSnapshotOutOfDate github.com/lni/dragonboat/v4/internal/raft.ErrSnapshotOutOfDate
	errSnapshotOutOfDate error
)

// settle sets them. It fails if one of these variables is no longer dragonboat's setting, which the linker does not
// notice.
var settle = sync.OnceValue(func() error {
	for _, setting := range []struct {
		name string
		at   *uint64
		to   uint64
	}{
		{"receive queue", &receiveQueueLen, 64}, {"proposal queue", &incomingProposalsMaxLen, 64}, {"ReadIndex queue", &incomingReadIndexMaxLen, 64},
		{"pending proposals", &pendingProposalShards, 1}, {"entries", &entrySliceSize, 8}, {"entries left", &minEntrySliceSize, 2},
		{"connections to a peer", &streamConnections, 1}, {"send queue", &sendQueueLen, 8 << 10}, {"interval of syncs", &syncTaskInterval, math.MaxUint64},
	} {
		if *setting.at == 0 {
			return fmt.Errorf("dragonboat's setting of its %s is not where it was", setting.name)
		}
		*setting.at = setting.to
	}
	if nodeReloadInterval == 0 {
		return errors.New("dragonboat's setting of how often it looks at replicas is not where it was")
	}
	nodeReloadInterval = 10 * time.Second
	if errSnapshotOutOfDate == nil {
		return errors.New("dragonboat's error of a snapshot that is not needed is not where it was")
	}
	return nil
})
