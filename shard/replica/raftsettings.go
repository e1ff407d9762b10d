package replica

import (
	"fmt"
	"sync"
	"time"
	_ "unsafe" // for go:linkname
)

// dragonboat takes these sizes from a file in the current directory when the program
// starts. A server must not depend on where it is started, so they are set here instead.
// Their defaults are for a few groups of many proposals each; a replica kept more than a
// MiB by them, and every replica was looked at five times a second for nothing.
var (
	// Messages that a replica may have waiting. What comes then is lost, as on a network.
	//go:linkname receiveQueueLen github.com/lni/dragonboat/v4.receiveQueueLen
	receiveQueueLen uint64
	// Proposals that may wait for the step worker. A proposer has one in flight.
	//go:linkname incomingProposalsMaxLen github.com/lni/dragonboat/v4.incomingProposalsMaxLen
	incomingProposalsMaxLen uint64
	// ReadIndex requests that may wait for it. A barrier has one in flight.
	//go:linkname incomingReadIndexMaxLen github.com/lni/dragonboat/v4.incomingReadIndexMaxLen
	incomingReadIndexMaxLen uint64
	// Parts of the table of proposals in flight, each with a random source of 5 KiB.
	//go:linkname pendingProposalShards github.com/lni/dragonboat/v4.pendingProposalShards
	pendingProposalShards uint64
	// How often workers look at all replicas, whether or not there is something to do.
	//go:linkname nodeReloadInterval github.com/lni/dragonboat/v4.nodeReloadInterval
	nodeReloadInterval time.Duration
)

// settle sets them. It fails when dragonboat has others by now: the linker does not tell.
var settle = sync.OnceValue(func() error {
	if receiveQueueLen == 0 || incomingProposalsMaxLen == 0 || incomingReadIndexMaxLen == 0 || pendingProposalShards == 0 || nodeReloadInterval == 0 {
		return fmt.Errorf("dragonboat's settings are not where they were: queues of %d, %d and %d, %d parts, every %s",
			receiveQueueLen, incomingProposalsMaxLen, incomingReadIndexMaxLen, pendingProposalShards, nodeReloadInterval)
	}
	receiveQueueLen, incomingProposalsMaxLen, incomingReadIndexMaxLen = 256, 128, 128
	pendingProposalShards = 1
	nodeReloadInterval = 2 * time.Second
	return nil
})
