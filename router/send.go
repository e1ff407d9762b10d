package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// RequestTimeout bounds a request that has no nearer deadline, as etcd's does.
const RequestTimeout = 7 * time.Second

// ErrRequestTimeout distinguishes the end of RequestTimeout from the caller's own deadline. By
// itself it says nothing of the outcome; what ends a request because of it also wraps an error of
// package shard (timedOut).
var ErrRequestTimeout = errors.New("request timed out")

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, RequestTimeout, ErrRequestTimeout)
}

// retrying runs attempt until it succeeds or fails for good. attempt gets its number and looks
// everything up again.
func (r *Router) retrying(ctx context.Context, attempt func(n int) error) error {
	var b backoff
	for n := 0; ; n++ {
		err := attempt(n)
		if err == nil {
			return nil
		}
		if admission.NoRoom(err) {
			return err // before anything is tried again, what was read must be dropped (T10)
		}
		retry := certain(err) || (r.cfg.Knobs.RetryUnknown && errors.Is(err, shard.ErrUnknownOutcome))
		if !retry {
			return r.final(ctx, err)
		}
		if !b.wait(ctx, err) {
			return r.final(ctx, err)
		}
	}
}

// final turns the error that ended a request into the caller's: the caller's own deadline or
// cancellation takes precedence, combined with the fact that a write may have been applied.
func (r *Router) final(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return err
	case errors.Is(cause, ErrRequestTimeout):
		return timedOut(err)
	case errors.Is(err, cause) && errors.Is(err, shard.ErrUnknownOutcome):
		return err
	case !errors.Is(err, shard.ErrUnknownOutcome):
		return fmt.Errorf("%w: %v", cause, err)
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// timedOut is the error of a request that RequestTimeout has ended. Writes that may have been
// applied have been marked before (settle), so nothing else was applied. Callers know the errors of
// package shard, and would not know a bare ErrRequestTimeout.
func timedOut(err error) error {
	switch late := errors.Is(err, ErrRequestTimeout); {
	case errors.Is(err, shard.ErrUnknownOutcome):
		return err
	case late && !certain(err):
		return fmt.Errorf("%w: %w", shard.ErrUnavailable, err)
	case !late && certain(err): // there was no time for another attempt
		return fmt.Errorf("%w: %w", err, ErrRequestTimeout)
	}
	return err
}

// send sends the request to the node, updates the cache by the answer, and returns it.
func (r *Router) send(ctx context.Context, p Place, node shard.NodeID, req *Request) (*Reply, error) {
	if node == 0 {
		return nil, fmt.Errorf("shard %d has no replicas: %w", p.ID, shard.ErrUnavailable)
	}
	req.Shard, req.Epoch = p.ID, p.Epoch
	reply, err := r.cfg.Sender.Send(ctx, node, req)
	if reply, err = r.settle(p, node, req, reply, err); err != nil {
		return nil, err
	}
	if err := r.arrived(node, req, reply); err != nil {
		return nil, err // not with the answer: whoever waits for room would keep it
	}
	return reply, nil
}

// settle classifies a node's answer and updates the cache by it.
func (r *Router) settle(p Place, node shard.NodeID, req *Request, reply *Reply, err error) (*Reply, error) {
	if err == nil {
		if req.forLeader() && p.Leader != node {
			r.cfg.Cache.SetLeader(p.ID, node)
		}
		return reply, nil
	}
	r.learn(p, node, err)
	if req.Op == routerpb.Op_OP_WRITE && !errors.Is(err, shard.ErrUnknownOutcome) && ambiguous(err) {
		err = fmt.Errorf("write to shard %d: %w: %w", p.ID, shard.ErrUnknownOutcome, err)
	}
	return nil, err
}

// learn corrects the cache according to an error.
func (r *Router) learn(p Place, node shard.NodeID, err error) {
	var wrongShard *shard.WrongShardError
	var notLeader *shard.NotLeaderError
	var noReplica *shard.NoReplicaError
	switch {
	case errors.As(err, &wrongShard):
		newer := false
		for _, d := range wrongShard.Descriptors {
			newer = newer || d.ID != p.ID || d.Generation > p.Generation
			r.cfg.Cache.Learn(d)
		}
		if !newer {
			r.cfg.Cache.Forget(p.ID)
		}
	case errors.As(err, &notLeader):
		r.cfg.Cache.SetLeader(p.ID, notLeader.Leader)
	case errors.As(err, &noReplica):
		r.cfg.Cache.Forget(p.ID)
	case errors.Is(err, shard.ErrUnavailable), errors.Is(err, shard.ErrStopped), errors.Is(err, shard.ErrUnknownOutcome), errors.Is(err, shard.ErrClockUntrusted):
		if p.Leader == node {
			r.cfg.Cache.SetLeader(p.ID, 0)
		}
	}
}

// writer chooses the node for the n-th attempt of a write: the known leader, else
// any replica, which will name the leader. If that leader is silent, another replica is asked
// once whether it still leads.
func (r *Router) writer(p Place, n int) shard.NodeID {
	switch preferred, ok := p.ReplicaOn(p.PreferredNode); {
	case p.Leader != 0 && (n > 0 || !r.silent(p.Leader)):
		return p.Leader
	case r.cfg.Self == 0 && n == 0 && ok && !preferred.Learner && !r.silent(p.PreferredNode):
		return p.PreferredNode // the likely leader
	}
	return r.rotate(p, n)
}

// reader chooses the node for the n-th attempt of a read. Any replica can serve one. The local one saves a hop;
// without a local one, the leader is asked.
func (r *Router) reader(p Place, n int) shard.NodeID {
	if r.cfg.Self == 0 && n%2 == 0 {
		return r.writer(p, n)
	}
	if n > 0 && p.Leader != 0 && n%2 == 1 {
		return p.Leader
	}
	return r.rotate(p, n)
}

// rotate starts with this node's replica and then takes the others in turn. Learners may lag far behind and are left
// out.
func (r *Router) rotate(p Place, n int) shard.NodeID {
	own, here := r.ownReplica(p)
	if here && n == 0 && !own.Learner {
		return r.cfg.Self
	}
	var voters []shard.NodeID
	start := 0
	for _, replica := range p.Replicas {
		if replica.Learner || replica.Node == r.cfg.Self && !here {
			continue
		}
		if replica.Node == r.cfg.Self {
			start = len(voters)
		}
		voters = append(voters, replica.Node)
	}
	if len(voters) == 0 {
		return 0
	}
	for i := range voters {
		if node := voters[(start+n+i)%len(voters)]; !r.silent(node) {
			return node
		}
	}
	return voters[(start+n)%len(voters)]
}

func (r *Router) silent(node shard.NodeID) bool { return r.cfg.Silent != nil && r.cfg.Silent(node) }

// ownReplica is the shard's replica on this node, unless that is unfit.
func (r *Router) ownReplica(p Place) (shard.Replica, bool) {
	own, ok := p.ReplicaOn(r.cfg.Self)
	if !ok || r.cfg.Unfit != nil && r.cfg.Unfit(p.ID) {
		return shard.Replica{}, false
	}
	return own, true
}
