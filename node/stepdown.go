package node

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

const (
	// stepDownPatience bounds how long a node that is about to stop looks for new leaders.
	stepDownPatience = 5 * time.Second
	// stepDownNotice is how long it takes until the others know not to return leadership.
	stepDownNotice = healthInterval + 100*time.Millisecond
	// stepDownPause is the time between attempts: the other replica may be behind, or its node may be stopping too.
	stepDownPause = 100 * time.Millisecond
	// sendAwayPatience bounds how long a node that is about to stop waits for answers to clients.
	sendAwayPatience = 2 * time.Second
	// stepDownMax bounds the handovers in progress.
	stepDownMax = 16
)

// StepDown transfers this node's leaderships to other nodes, before Close: clients of its shards
// then wait for a handover, which takes milliseconds, instead of an election, and leases keep their
// remaining time. The node continues to serve meanwhile, but tells peers that it is not to lead.
// StepDown returns when it leads nothing that another node could lead, when ctx ends, or after five
// seconds; new leaders of the remaining shards are elected.
func (n *Node) StepDown(ctx context.Context) {
	if len(n.legacies()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stepDownPatience)
	defer cancel()
	n.leaving.Store(true)
	for wait := stepDownNotice; ; wait = stepDownPause {
		if pause(ctx, wait) != nil {
			return
		}
		left := n.legacies()
		if len(left) == 0 {
			return
		}
		n.bequeath(ctx, left)
	}
}

// SendAway has clients make further calls to other nodes, and waits until those that were made here are answered,
// two seconds at most. Otherwise Close would cut them off, and their clients could not know whether their writes were
// applied. Call it between StepDown and Close. Watches and other streams continue until Close; clients reopen them. Over
// HTTP nobody can tell a watch from a slow request, so that it takes the two seconds then.
func (n *Node) SendAway(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sendAwayPatience)
	defer cancel()
	n.sendAway(ctx)
}

// legacy is the leadership of a group that another node could lead.
type legacy struct {
	shard shard.ID
	give  func(ctx context.Context) error
}

// legacies returns those of this node.
func (n *Node) legacies() []legacy {
	var all []legacy
	n.host.Each(func(r *replica.Replica) {
		d := r.View().Descriptor
		if d == nil || !r.Leads() {
			return
		}
		if heir, ok := n.heir(d); ok {
			all = append(all, legacy{d.ID, func(ctx context.Context) error { return n.handOver(ctx, r, heir) }})
		}
	})
	if meta := n.table.Map().Shard(shard.MetaID); meta != nil && n.meta.leads() {
		if heir, ok := n.heir(meta); ok {
			all = append(all, legacy{shard.MetaID, func(ctx context.Context) error { return n.meta.handOver(ctx, heir) }})
		}
	}
	return all
}

// bequeath tries to hand all of them over, and waits for the outcomes.
func (n *Node) bequeath(ctx context.Context, all []legacy) {
	var work sync.WaitGroup
	slots := make(chan struct{}, stepDownMax)
	for _, l := range all {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			if err := l.give(ctx); err != nil {
				n.log.Debug("leadership is not handed over yet", "shard", l.shard, "error", err)
			}
		})
	}
	work.Wait()
}
