package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// checker compares the replicas of a shard: of each shard in turn, of shards whose replicas or keys have just
// changed, on request, and of shards of which this node could not read its replica. The first two happen while this node
// leads the meta group. It keeps no state that matters: a new checker starts at another shard and checks as often.
//
// Invariants:
//
//	C1  Replicas are compared as of one entry of the group's log. As of that entry their data is
//	    equal, or one of them is wrong, no matter how far each has applied or collected.
//	C2  No replica is judged by a single look: only what two looks in a row find is acted on.
//	C3  A replica is quarantined only if a majority of the group agrees without it. If there is no
//	    majority, no replica is quarantined, and the shard refuses writes.
//	C4  A finding becomes an alarm before anything is done about it.
type checker struct {
	node *Node
	// every is how often each shard is checked; 0 is only on request, and when a read fails.
	every time.Duration
	// one is held during a check: this node makes only one at a time. Another node's may overtake it.
	one    chan struct{}
	checks *prometheus.CounterVec
	// look is compare; tests replace it.
	look func(context.Context, shard.ID) (*adminapi.Checked, error)

	mu struct {
		sync.Mutex
		due   []shard.ID
		again []shard.ID // to be checked again later
		// suspects are shards of which this node's replica is damaged, as far as a read could tell.
		suspects []shard.ID
	}
	wake  bell
	doubt bell
}

const (
	// checkPatience is how long a check waits for the other replicas once the first has its checksum, in addition to
	// checkFactor times as long as that took.
	checkPatience = 5 * time.Second
	checkFactor   = 4
	// checkMax bounds a check in which no replica has a checksum.
	checkMax = time.Hour
	// checkPollMin and checkPollMax bound the pauses between two polls.
	checkPollMin, checkPollMax = 5 * time.Millisecond, time.Second
	// checkAgain is how soon a shard is checked again if its check failed or could not be acted on.
	checkAgain = time.Minute
	// suspectPause is the least pause between two checks because of reads that failed.
	suspectPause = time.Second
	// suspectRetry is how soon a suspect is checked again if there was no verdict. Each check reads all of the shard on all nodes.
	suspectRetry = 10 * time.Second
)

func newChecker(n *Node) *checker {
	c := &checker{node: n, every: n.cfg.CorruptCheckTime, one: make(chan struct{}, 1), wake: newBell(), doubt: newBell()}
	c.look = c.compare
	c.checks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "flotilla_check_shards_total",
		Help: "Comparisons of a shard's replicas that this node has led, by verdict. Any damaged or disputed: see flotilla shard check and the CORRUPT alarm. Mostly incomplete: a node is away, or too slow to sum up its replicas.",
	}, []string{"verdict"})
	n.cfg.Registerer.MustRegister(c.checks)
	for _, v := range []adminapi.Verdict{adminapi.Agree, adminapi.Incomplete, adminapi.Damaged, adminapi.Disputed} {
		c.checks.WithLabelValues(string(v))
	}
	return c
}

// run works until ctx ends.
func (c *checker) run(ctx context.Context) {
	again := time.NewTicker(checkAgain)
	defer again.Stop()
	last, at := time.Now(), shard.ID(0)
	for {
		m, changed := c.node.table.next()
		var round <-chan time.Time
		if n := len(m.Shards()); n > 0 {
			round = time.After(time.Until(last.Add(c.every / time.Duration(n))))
		}
		select {
		case <-changed: // the number of shards may have changed
			continue
		case <-round:
			last, at = time.Now(), after(m, at)
			c.soon(at)
		case <-again.C:
			c.soon(append(m.Disputed(), c.later()...)...)
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		for _, id := range c.take() {
			c.visit(ctx, id)
		}
	}
}

// after returns the shard with the next higher ID; after the last one it returns the first.
func after(m *placement.Map, id shard.ID) shard.ID {
	var first, next shard.ID
	for _, d := range m.Shards() {
		if first == 0 || d.ID < first {
			first = d.ID
		}
		if d.ID > id && (next == 0 || d.ID < next) {
			next = d.ID
		}
	}
	if next == 0 {
		return first
	}
	return next
}

// soon schedules checks of shards, if any are checked without request. The meta group has no keys to
// compare, but is moved like shards that have. It never blocks.
func (c *checker) soon(ids ...shard.ID) {
	if c.every == 0 {
		return
	}
	c.mu.Lock()
	for _, id := range ids {
		if id != shard.MetaID && !slices.Contains(c.mu.due, id) {
			c.mu.due = append(c.mu.due, id)
		}
	}
	c.mu.Unlock()
	c.wake.ring()
}

// suspect schedules a check of a shard, because a read has found this node's replica damaged. One replica cannot tell
// whether the others are better: only the comparison decides (C3). It never blocks.
func (c *checker) suspect(id shard.ID) {
	c.mu.Lock()
	if !slices.Contains(c.mu.suspects, id) {
		c.mu.suspects = append(c.mu.suspects, id)
	}
	c.mu.Unlock()
	c.doubt.ring()
}

// investigate checks suspects until ctx ends, whoever leads the meta group. Readers keep naming a replica that stays
// damaged, so a check that fails is repeated, and one that cannot change anything is not repeated at once.
func (c *checker) investigate(ctx context.Context) {
	settled := make(map[shard.ID]time.Time) // until when a shard that was checked is not checked again
	for {
		select {
		case <-c.doubt:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		suspects := c.mu.suspects
		c.mu.suspects = nil
		c.mu.Unlock()
		for _, id := range suspects {
			if time.Now().Before(settled[id]) {
				continue
			}
			c.node.log.Error("a read has found this node's replica of a shard damaged; comparing it with the others", "shard", id)
			checked, err := c.check(ctx, id)
			if ctx.Err() != nil {
				return
			}
			again := checkAgain
			switch {
			case err != nil:
				c.node.log.Warn("cannot compare the replicas of a damaged shard; trying again when it is read again", "shard", id, "error", err)
				again = suspectRetry
			case checked.Verdict == adminapi.Incomplete:
				again = suspectRetry
			case checked.Verdict == adminapi.Agree:
				c.node.log.Error("the replicas of a shard hold the same, but a read has found damage in this node's: move its replica to another node", "shard", id)
			}
			settled[id] = time.Now().Add(again)
		}
		if pause(ctx, suspectPause) != nil {
			return
		}
	}
}

func (c *checker) take() []shard.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := c.mu.due
	c.mu.due = nil
	return due
}

// later returns the shards to be checked again.
func (c *checker) later() []shard.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	again := c.mu.again
	c.mu.again = nil
	return again
}

// visit checks a shard that is due. A shard that an operator holds is checked when the operator has ended.
func (c *checker) visit(ctx context.Context, id shard.ID) {
	m := c.node.table.Map()
	if m.Shard(id) == nil || m.Operator(id) != nil || !c.node.meta.leads() || ctx.Err() != nil {
		return
	}
	checked, err := c.check(ctx, id)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		c.node.log.Info("cannot compare the replicas of a shard; trying again later", "shard", id, "error", err)
	}
	if err != nil || len(bad(checked)) > 0 {
		c.mu.Lock()
		c.mu.again = append(c.mu.again, id)
		c.mu.Unlock()
	}
}

// check compares the replicas of a shard and acts on the result.
func (c *checker) check(ctx context.Context, id shard.ID) (*adminapi.Checked, error) {
	select {
	case c.one <- struct{}{}:
		defer func() { <-c.one }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	checked, err := c.look(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(bad(checked)) > 0 { // C2
		first := checked
		if checked, err = c.look(ctx, id); err != nil {
			return nil, err
		}
		c.node.log.Warn("replicas of a shard do not hold the same", "shard", id, "first", describe(first), "then", describe(checked))
		if now := bad(checked); len(now) > 0 && !slices.Equal(now, bad(first)) {
			return nil, fmt.Errorf("replicas %v were not as the others at first, then replicas %v", bad(first), now)
		}
	}
	c.checks.WithLabelValues(string(checked.Verdict)).Inc()
	return checked, c.act(ctx, id, checked)
}

// bad returns the replicas with wrong data, in the table's order.
func bad(checked *adminapi.Checked) (ids []shard.ReplicaID) {
	for _, r := range checked.Replicas {
		if r.Bad() {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// compare has the replicas compute their checksums, and judges when all have one or those without
// had enough time.
func (c *checker) compare(ctx context.Context, id shard.ID) (*adminapi.Checked, error) {
	ctx, cancel := context.WithTimeout(ctx, checkMax)
	defer cancel()
	m := c.node.table.Map()
	d := m.Shard(id)
	if d == nil {
		return nil, errors.New("there is no such shard any more")
	}
	leader, err := leaderOf(c.node.control.reports(ctx, m, d))
	if err != nil {
		return nil, err
	}
	began := time.Now()
	reply, err := c.node.control.direct(ctx, m, leader.Node, &routerpb.DirectRequest{
		Shard: uint64(id), Order: &routerpb.DirectRequest_Check{Check: &routerpb.Check{}},
	})
	if err != nil {
		return nil, err
	}
	var until time.Time
	for {
		reports := c.node.control.reports(ctx, m, d)
		if overtaken(reply.Index, reports) {
			return nil, errors.New("another comparison of the shard has begun")
		}
		checked, took := judge(d, reply.Index, reports), time.Since(began)
		known := func(r adminapi.CheckedReplica) bool { return r.Result != adminapi.Unknown }
		if until.IsZero() && slices.ContainsFunc(checked.Replicas, known) {
			until = time.Now().Add(checkPatience + checkFactor*took)
		}
		all := !slices.ContainsFunc(checked.Replicas, func(r adminapi.CheckedReplica) bool { return !known(r) })
		if all || !until.IsZero() && time.Now().After(until) {
			return checked, nil
		}
		if err := pause(ctx, min(max(took/checkFactor, checkPollMin), checkPollMax)); err != nil {
			return nil, err
		}
	}
}

// overtaken reports whether a replica has been asked for its checksum as of a later entry. Then none will have one as of this entry.
func overtaken(index uint64, reports []report) bool {
	return slices.ContainsFunc(reports, func(r report) bool { return r.Checksum.GetIndex() > index })
}

// act raises alarms, quarantines replicas that differ from the majority, and makes a shard without
// a majority refuse writes (C3, C4).
func (c *checker) act(ctx context.Context, id shard.ID, checked *adminapi.Checked) error {
	m := c.node.table.Map()
	why := func(what string) string {
		return fmt.Sprintf("%s at %s: shard %s after log entry %d: %s", what, time.Now().UTC().Format(time.RFC3339), id, checked.Index, describe(checked))
	}
	disputed := slices.Contains(m.Disputed(), id)
	switch checked.Verdict {
	case adminapi.Disputed:
		if disputed {
			return nil
		}
		text := why("no majority of the replicas holds the same")
		c.node.log.Error("a shard takes no writes any more", "shard", id, "why", text)
		return c.set(ctx, placement.DisputedSetting(id), text)
	case adminapi.Damaged:
		for _, r := range checked.Replicas {
			if !r.Bad() {
				continue
			}
			if err := c.quarantine(ctx, m, id, r.Replica, why(fmt.Sprintf("quarantined: replica %d holds other data than the others, found", r.ID))); err != nil {
				return err
			}
		}
	}
	if disputed && checked.Verdict != adminapi.Incomplete {
		c.node.log.Info("a majority of a disputed shard's replicas holds the same; it takes writes again", "shard", id)
		return c.set(ctx, placement.DisputedSetting(id), "")
	}
	return nil
}

func (c *checker) quarantine(ctx context.Context, m *placement.Map, id shard.ID, r shard.Replica, why string) error {
	if err := c.set(ctx, placement.DamagedSetting(r.Node), why); err != nil {
		return err
	}
	return c.node.control.order(ctx, m, r.Node, &routerpb.DirectRequest{
		Shard: uint64(id), Order: &routerpb.DirectRequest_Quarantine{Quarantine: &routerpb.Quarantine{Replica: uint64(r.ID), Why: why}},
	})
}

func (c *checker) set(ctx context.Context, name, value string) error {
	_, err := c.node.meta.propose(ctx, placement.Set(name, value))
	return err
}

// describe returns the result as text for people.
func describe(checked *adminapi.Checked) string {
	var parts []string
	for _, r := range checked.Replicas {
		part := fmt.Sprintf("replica %d on node %s %s", r.ID, r.Node, r.Result)
		switch r.Result {
		case adminapi.Agrees, adminapi.Differs:
			part += fmt.Sprintf(" (%016x, %d versions)", r.Sum, r.Versions)
		default:
			part += fmt.Sprintf(" (%.200q)", r.Text)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// CheckShard implements adminapi.Changes.
func (n *Node) CheckShard(ctx context.Context, id shard.ID) (*adminapi.Checked, error) {
	return n.check.check(ctx, id)
}
