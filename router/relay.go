package router

import (
	"context"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// What follows carries requests that native clients have routed to nodes which they cannot reach. The
// request is sent as it is: its client interprets the answer and decides whether to send it again, as
// if it had sent it to that node itself. The cache learns nothing from it.

// Relay sends a read to a node, and makes room for the answer in req.Room (T10). If there is none, the caller may relay
// the request again in its turn.
func (r *Router) Relay(ctx context.Context, node shard.NodeID, req *Request) (*Reply, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	req.Relay = 0
	reply, err := r.cfg.Sender.Send(ctx, node, req)
	if err != nil {
		return nil, err
	}
	if err := r.arrived(node, req, reply); err != nil {
		return nil, err // not with the answer: whoever waits for room would keep it
	}
	return reply, nil
}

// RelayWrite sends a write to a node once admission allows it (T8), unless ctx has ended by then. end receives
// the outcome once, and must not block.
func (r *Router) RelayWrite(ctx context.Context, node shard.NodeID, req *Request, end Ender) {
	req.Relay = 0
	w := &relayed{router: r, node: node, end: end}
	if req.Command.Kind == shardpb.Kind_CLOSE || r.cfg.Lanes == nil { // a read waits for a close
		r.cfg.Starter.Start(node, req, w)
		return
	}
	deadline, _ := ctx.Deadline()
	r.cfg.Lanes.Begin(req.Shard, deadline, func(turn admission.Turn, err error) {
		w.turn = turn
		if err == nil && ctx.Err() != nil {
			err = shard.ErrStopped // nobody waits for the outcome, and nothing was sent
		}
		if err != nil {
			w.End(nil, err)
			return
		}
		r.cfg.Starter.Start(node, req, w)
	})
}

// relayed is a write that is being relayed.
type relayed struct {
	router *Router
	node   shard.NodeID
	end    Ender
	turn   admission.Turn
}

// End implements Ender.
func (w *relayed) End(reply *Reply, err error) {
	w.turn.Leave(err)
	if err != nil {
		err = w.router.cfg.Starter.Told(w.node, err)
	}
	w.end.End(reply, err)
}

// RelayFeed opens a feed at a node.
func (r *Router) RelayFeed(ctx context.Context, node shard.NodeID, sub Subscription, ready func()) (Feed, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	sub.Relay = 0
	return r.cfg.Subscriber.Subscribe(ctx, node, sub, ready)
}
