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

// All requests to the meta group are made on the node that leads it. There Raft reports requests that it does not
// accept, and this node notices when it stops leading, so that an accepted request may have no effect. A request that
// a follower forwards to the leader is dropped silently while the leader changes, and the follower would wait for its
// whole timeout.

// metaPause is the time between two attempts to reach the leader, and between two checks whether the node that was
// asked still leads.
const metaPause = 20 * time.Millisecond

// errDeposed is the error of a request on a node that does not, or no longer, lead the meta group.
var errDeposed = fmt.Errorf("another node leads the meta group: %w", shard.ErrUnavailable)

// atLeader runs a request on the node that leads the meta group: own if that is this node, peer otherwise. It retries
// until the request succeeds, or until ctx, the proposal timeout or the node ends; so the request may run more than
// once.
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
	// A node that is cut off does not answer, and the next leader is asked only when this attempt has timed out.
	ctx, cancel := context.WithTimeout(ctx, electionTicks*m.node.cfg.TickInterval)
	defer cancel()
	return askMembers(ctx, m, peer)
}

// askMembers asks all other nodes of the meta group at the same time. Only the leader answers.
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

// proposeOwn proposes through the replica on this node, if it leads.
func (m *meta) proposeOwn(ctx context.Context, data []byte) ([]byte, error) {
	if !m.handing.TryRLock() {
		return nil, errDeposed // for a moment, while leadership is handed over
	}
	defer m.handing.RUnlock()
	result, err := m.ask(ctx, func(nh *dragonboat.NodeHost, patience time.Duration) (*dragonboat.RequestState, error) {
		return nh.Propose(nh.GetNoOPSession(uint64(shard.MetaID)), data, patience)
	})
	return result.Data, err
}

// readOwn reads the map through the replica on this node, if it leads.
func (m *meta) readOwn(ctx context.Context) (*placement.Map, error) {
	_, err := m.ask(ctx, func(nh *dragonboat.NodeHost, patience time.Duration) (*dragonboat.RequestState, error) {
		return nh.ReadIndex(uint64(shard.MetaID), patience)
	})
	return m.node.table.Map(), err // it has everything that the replica has applied
}

// ask makes a request to Raft as the leader, and waits as long as this node leads.
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
