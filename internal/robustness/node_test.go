package robustness_test

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// nodeEntry returns what a node of the cluster runs: the body of "flotilla <args>",
// with the named bugs planted.
func nodeEntry(knobs []string) func(args []string) int {
	return func(args []string) int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return cmd.RunAdjusted(ctx, args, os.Stdout, os.Stderr, func(c *node.Config) {
			c.Clock = skewed(c.Name)
			c.WatchProgressInterval = 300 * time.Millisecond // the default is longer than any run
			for _, knob := range knobs {
				plant(c, knob)
			}
		})
	}
}

const (
	// shortLogs is no bug: whoever was away for a moment has to be sent a snapshot.
	shortLogs = "short-logs"
	// staleRoutes is none either: requests go where shards were until they are refused there.
	staleRoutes = "stale-routes"
)

// plant puts one of plantedBugs into a node.
func plant(c *node.Config, knob string) {
	switch knob {
	case shortLogs:
		c.RaftLogEntries = 50
	case staleRoutes:
		c.Knobs.StaleRoutes = true
	case "ack-before-commit":
		c.Knobs.Replica.AckBeforeCommit = true
	case "read-without-readindex":
		c.Knobs.Replica.SkipReadBarrier = true
	case "stale-epoch-accepted":
		c.Knobs.Apply.AnyEpoch = true
	case "child-begins-without-seed":
		c.Knobs.Apply.NoSeed = true
	case "init-skipped":
		c.Knobs.Operator = func(_ context.Context, _, step string) error {
			if step == "the child begins" {
				return errors.New("skipped")
			}
			return nil
		}
	case "tombstones-not-moved":
		c.Knobs.Apply.LoseTombstones = true
	case "neighbour-serves-on":
		c.Knobs.Apply.NoFreeze = true
		c.Knobs.StaleRoutes = true // or there is hardly anybody who still asks it
	case "neighbour-forgotten":
		c.Knobs.Apply.LoseNeighbour = true
	case "feed-kept-at-a-split":
		c.Knobs.Apply.KeepFeeds = true
	case "slots-shared":
		c.Knobs.Apply.OneSlot = true
	case "close-skipped":
		c.Knobs.Router.SkipClose = true
	case "double-apply-after-restart":
		c.Knobs.Apply.ForgetApplied = 20
		c.RaftLogEntries = 50 // logs are cut, and for that stores are flushed: what only logs have is applied again anyway
	case "revision-from-clock":
		now := c.Clock
		c.Knobs.Apply.Now = func() shard.Tick { return shard.TickAt(now.Now()) }
	case "lost-batch-tail":
		c.Knobs.Replica.DropBatchTail = true
	case "unknown-reported-as-failed-then-retried":
		c.Knobs.Router.RetryUnknown = true
		c.TickInterval = 80 * time.Millisecond // a new leader while the client still waits
	case "snapshot-forgets-span-tail":
		c.Knobs.Replica.ForgetSpanTail = true
		c.RaftLogEntries = 50
	case "sync-lies":
		c.Knobs.Replica.SyncWithoutFsync = true
		c.RaftLogEntries = 50
	case "new-leader-expires-leases":
		c.Knobs.Replica.ForgetTTLs = true
	case "wills-forgotten":
		c.Knobs.Replica.ForgetWills = true
	case "unregistered-lease-accepted":
		c.Knobs.Apply.AnyLease = true
	case "fence-ignored":
		c.Knobs.Apply.AnyFence = true
		c.Knobs.Router.SlowRegister = true
	case "detach-skipped":
		c.Knobs.Router.SkipDetach = true
	case "event-lost-when-reopened":
		c.Knobs.Watch.Reopen = shard.Tick(300 * time.Millisecond / shard.TickUnit).Revision()
	case "event-again-when-reopened":
		c.Knobs.Watch.Reopen = -1
	case "progress-of-the-fastest":
		c.Knobs.Watch.FastestThrough = true
	case "events-released-at-once":
		c.Knobs.Watch.Unmerged = true
	case "promises-with-batches-under-way":
		c.Knobs.Replica.HastyPromises = true
	case "promises-heeded-early":
		c.Knobs.Apply.HeedEarly = true
	default:
		panic("no bug of the name " + knob)
	}
}

// skewed is a clock that differs from node to node, by less than the bound: what must
// hold may not depend on clocks being right.
func skewed(name string) skewedClock {
	switch {
	case strings.HasSuffix(name, "1"):
		return skewedClock(150 * time.Millisecond)
	case strings.HasSuffix(name, "2"):
		return skewedClock(-150 * time.Millisecond)
	}
	return 0
}

type skewedClock time.Duration

// Now implements clock.Clock.
func (c skewedClock) Now() time.Time { return time.Now().Add(time.Duration(c)) }
