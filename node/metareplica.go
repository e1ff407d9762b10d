package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lni/dragonboat/v4/statemachine"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// start starts the replica of the meta group that this node had before, or has as one of the founders. A replica that
// the table gave to the node later, and that never ran, is started by the agent.
func (m *meta) start(self *Membership) error {
	own, members := self.Founding.metaMember(self.NodeID)
	var held []shard.ReplicaID
	for _, h := range m.node.host.Held() {
		if h.Shard == shard.MetaID && h.Replica != own {
			held = append(held, h.Replica)
		}
	}
	for _, id := range held {
		if err := m.join(id); err != nil && !errors.Is(err, replica.ErrRemoved) {
			return err
		}
	}
	if m.runs() || own == 0 {
		return nil
	}
	err := m.node.host.StartOnce(shard.MetaID, own, members, m.startAs(own))
	if errors.Is(err, replica.ErrRemoved) { // the group has moved away since
		return nil
	}
	if err == nil && own == firstMetaMember {
		delete(members, own)
		m.node.elect.hold(replica.Held{Shard: shard.MetaID, Replica: own}, members)
	}
	return err
}

// firstMetaMember is the meta group's first leader.
const firstMetaMember shard.ReplicaID = 1

// join starts a replica of the meta group that the table has given to this node: empty the first time, or again.
func (m *meta) join(own shard.ReplicaID) error {
	return m.node.host.JoinOnce(shard.MetaID, own, m.startAs(own))
}

func (m *meta) startAs(own shard.ReplicaID) func(initial map[uint64]string, join, learner bool) error {
	return func(initial map[uint64]string, join, learner bool) error {
		cfg := m.node.raftConfig().GroupConfig(uint64(shard.MetaID), uint64(own), learner)
		cfg.SnapshotEntries, cfg.CompactionOverhead = 1000, 100
		err := m.node.host.NodeHost().StartConcurrentReplica(initial, join, func(uint64, uint64) statemachine.IConcurrentStateMachine {
			machine := &metaMachine{state: placement.NewState(), publish: m.node.table.publish, applied: &m.applied}
			machine.show()
			return machine
		}, cfg)
		if err != nil {
			return fmt.Errorf("start the meta group: %w", err)
		}
		m.own.Store(uint64(own))
		return nil
	}
}

// resign is called before the node's replica is removed: other nodes are asked from now on.
func (m *meta) resign(own shard.ReplicaID) { m.own.CompareAndSwap(uint64(own), 0) }

// runs reports whether this node runs a replica of the meta group.
func (m *meta) runs() bool { return m.own.Load() != 0 }

// leads reports whether this node leads the meta group, as far as it knows.
func (m *meta) leads() bool { return m.reign() != 0 }

// reign returns the term in which this node leads the meta group, or 0 if it does not lead.
func (m *meta) reign() uint64 {
	leader, term := m.node.host.Leader(shard.MetaID)
	if !m.runs() || uint64(leader) != m.own.Load() {
		return 0
	}
	return term
}

// begin starts the replica that the table has given to this node.
func (m *meta) begin(own shard.ReplicaID) {
	err := m.join(own)
	switch {
	case errors.Is(err, replica.ErrRemoved) || errors.Is(err, shard.ErrUnavailable): // the table is about to take it away
		m.node.log.Debug("not starting a replica of the meta group", "replica", own, "error", err)
	case err != nil:
		m.node.fail(err)
	default:
		m.node.log.Info("this node is of the meta group now", "replica", own)
	}
}

// metaHandOver bounds how long proposals stop for another replica to take over.
const metaHandOver = 200 * time.Millisecond

// handOver makes another replica the leader, and returns when it leads. Requests made meanwhile are retried. As with
// shards, the heir campaigns itself, once the log has nothing more to come. Raft's own transfer is refused while
// there is something that the heir has not applied, and then takes an election timeout.
func (m *meta) handOver(ctx context.Context, to shard.Replica) error {
	next := &heir{Replica: to, node: m.node, shard: shard.MetaID}
	if err := next.CatchUp(ctx); err != nil {
		return err
	}
	m.handing.Lock()
	defer m.handing.Unlock()
	term := m.reign()
	if term == 0 {
		return errDeposed
	}
	last, err := m.node.host.LogEnds(shard.MetaID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, metaHandOver)
	defer cancel()
	return next.Succeed(ctx, replica.Handover{Term: term, Last: last})
}

// yield tries to make another replica the leader.
func (m *meta) yield(ctx context.Context, to shard.Replica) {
	if err := m.handOver(ctx, to); err != nil && ctx.Err() == nil {
		m.node.log.Debug("the lead of the meta group stays for now", "error", err)
	}
}

func (m *meta) members() replica.Members {
	return m.node.host.Members(shard.MetaID, shard.ReplicaID(m.own.Load()))
}

// report returns Report's answer about the node's replica of the meta group.
func (m *meta) report() *routerpb.ReplicaReport {
	leader, term := m.node.host.Leader(shard.MetaID)
	last, _ := m.node.host.LogEnds(shard.MetaID) // 0 if it is about to stop
	return &routerpb.ReplicaReport{
		Shard: uint64(shard.MetaID), Replica: m.own.Load(), Applied: m.applied.Load(), Last: last, Leader: uint64(leader), Term: term,
	}
}

// load returns Load's answer about it: enough to see who leads and who is behind.
func (m *meta) load() *routerpb.ReplicaLoad {
	r := m.report()
	return &routerpb.ReplicaLoad{Shard: r.Shard, Replica: r.Replica, Applied: r.Applied, Leader: r.Leader, Term: r.Term, Measures: m.leads()}
}

// metaCatchUp bounds an order to catch up.
const metaCatchUp = time.Second

// obey carries out an order of the controller.
func (m *meta) obey(ctx context.Context, req *routerpb.DirectRequest) error {
	if o, is := req.Order.(*routerpb.DirectRequest_CatchUp); is {
		if m.own.Load() != o.CatchUp.Replica {
			return status.Errorf(codes.FailedPrecondition, "the meta group runs as replica %d here, not as %d", m.own.Load(), o.CatchUp.Replica)
		}
		// The request goes to the leader through Raft and may be lost. Then the order is given again.
		ctx, cancel := context.WithTimeout(ctx, metaCatchUp)
		defer cancel()
		_, err := m.node.host.NodeHost().SyncRead(ctx, uint64(shard.MetaID), nil)
		return err
	}
	if o, is := req.Order.(*routerpb.DirectRequest_Succeed); is {
		if m.own.Load() != o.Succeed.Replica {
			return status.Errorf(codes.FailedPrecondition, "the meta group runs as replica %d here, not as %d", m.own.Load(), o.Succeed.Replica)
		}
		own := replica.Held{Shard: shard.MetaID, Replica: shard.ReplicaID(o.Succeed.Replica)}
		return m.node.host.Succeed(ctx, own, replica.Handover{Term: o.Succeed.Term, Last: o.Succeed.Last})
	}
	if !m.leads() {
		return fmt.Errorf("change the meta group: %w", errDeposed)
	}
	if o, is := req.Order.(*routerpb.DirectRequest_Transfer); is {
		for _, r := range m.node.table.Map().Shard(shard.MetaID).Replicas {
			if r.ID == shard.ReplicaID(o.Transfer.Replica) {
				return m.handOver(ctx, r)
			}
		}
		return fmt.Errorf("let replica %d of the meta group lead: node %q knows of no such replica", o.Transfer.Replica, m.node.cfg.Name)
	}
	return obeyMembers(ctx, m.members(), req)
}
