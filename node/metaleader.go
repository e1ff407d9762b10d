package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Whatever is asked of the meta group is asked on the node that leads it. There Raft says
// what it does not take, and it shows when what it took may come to nothing, because another
// leads. What a follower passes on to the leader Raft drops without a word while the lead
// changes, and the follower would wait until its patience ends.

// metaPause is between two attempts to reach the leader, and between two looks whether the
// one that was asked still leads.
const metaPause = 20 * time.Millisecond

// errDeposed is what comes of a request on a node that does not lead the meta group, or does
// not any more.
var errDeposed = fmt.Errorf("another node leads the meta group: %w", shard.ErrUnavailable)

// atLeader has the node that leads the meta group do something: this one by way of own,
// another one by way of peer. It tries again until it is done, or ctx, the time for a proposal
// or the node ends; so it may be done more than once.
func atLeader[T any](ctx context.Context, m *meta, own func(context.Context) (T, error), peer func(context.Context, routerpb.PeerClient) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, m.node.cfg.ProposalTimeout)
	defer cancel()
	defer context.AfterFunc(m.node.ctx, cancel)()
	for {
		done, err := tryLeader(ctx, m, own, peer)
		if err == nil || pause(ctx, metaPause) != nil {
			return done, err
		}
	}
}

// tryLeader is one attempt.
func tryLeader[T any](ctx context.Context, m *meta, own func(context.Context) (T, error), peer func(context.Context, routerpb.PeerClient) (T, error)) (T, error) {
	if m.leads() {
		return own(ctx)
	}
	// One that was cut off says nothing, and the next leader is not asked before its time is over.
	ctx, cancel := context.WithTimeout(ctx, electionTicks*m.node.cfg.TickInterval)
	defer cancel()
	return askMembers(ctx, m, peer)
}

// askMembers asks all other nodes of the meta group at the same time, of which the one
// answers that leads it.
func askMembers[T any](ctx context.Context, m *meta, ask func(context.Context, routerpb.PeerClient) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		said T
		err  error
	}
	addrs, _ := m.others()
	answers := make(chan answer, len(addrs))
	for _, addr := range addrs {
		go func() {
			said, err := ask(ctx, routerpb.NewPeerClient(m.node.peers.at(addr).Conn()))
			answers <- answer{said, err}
		}()
	}
	errs := []error{errDeposed}
	for range addrs {
		a := <-answers
		if a.err == nil {
			return a.said, nil
		}
		errs = append(errs, a.err)
	}
	var none T
	return none, errors.Join(errs...)
}

// proposeOwn proposes by way of the replica that runs here, if it leads.
func (m *meta) proposeOwn(ctx context.Context, data []byte) ([]byte, error) {
	if !m.handing.TryRLock() {
		return nil, errDeposed // in a moment
	}
	defer m.handing.RUnlock()
	result, err := m.ask(ctx, func(nh *dragonboat.NodeHost, patience time.Duration) (*dragonboat.RequestState, error) {
		return nh.Propose(nh.GetNoOPSession(uint64(shard.MetaID)), data, patience)
	})
	return result.Data, err
}

// readOwn reads the map by way of the replica that runs here, if it leads.
func (m *meta) readOwn(ctx context.Context) (*placement.Map, error) {
	_, err := m.ask(ctx, func(nh *dragonboat.NodeHost, patience time.Duration) (*dragonboat.RequestState, error) {
		return nh.ReadIndex(uint64(shard.MetaID), patience)
	})
	return m.node.table.Map(), err // it has what the replica has applied
}

// ask asks Raft as the leader, and waits as long as this node is the one.
func (m *meta) ask(ctx context.Context, begin func(nh *dragonboat.NodeHost, patience time.Duration) (*dragonboat.RequestState, error)) (statemachine.Result, error) {
	reign := m.reign()
	if reign == 0 {
		return statemachine.Result{}, errDeposed
	}
	state, err := begin(m.node.host.NodeHost(), m.node.cfg.ProposalTimeout)
	if err != nil {
		return statemachine.Result{}, fmt.Errorf("ask the meta group: %w", err)
	}
	look := time.NewTicker(metaPause)
	defer look.Stop()
	for {
		select {
		case result := <-state.ResultC():
			defer state.Release()
			if !result.Completed() {
				return statemachine.Result{}, fmt.Errorf("ask the meta group: it takes nothing now, its leader may be handing over: %w", shard.ErrUnavailable)
			}
			return result.GetResult(), nil
		case <-look.C:
			if m.reign() != reign {
				return statemachine.Result{}, errDeposed
			}
		case <-ctx.Done():
			return statemachine.Result{}, context.Cause(ctx)
		}
	}
}
