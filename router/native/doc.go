// Package native serves Flotilla's own clients on a node's client port.
//
// Its protocol is that of peers (package peer), so that a native client routes as a node
// does and its requests go straight to the shards' leaders. Unlike a peer, a client is not
// believed: what it sends is refused unless a user of etcd's API could have asked for it.
//
//	stream ─> peer.Serve ─> gate ─┬─> the node's replicas (exec.Executor)
//	                              └─> the node's router: writes that bring a lease to a shard
//
// It refuses whatever changes members, placement, spans or the records of leases: nodes do
// that among themselves.
//
// Invariants:
//
//	V1  Only puts, deletes, transactions, closes, and reads reach a replica, checked as
//	    etcd's API checks them. What else a frame holds is answered with a refusal, and the
//	    rest of the frame is carried out.
//	V2  A client cannot move time: what it has seen of revisions is believed, and a close
//	    carried out, only up to what this node could mint itself by now, give or take the
//	    clock offset that nodes allow each other.
//	V3  A client cannot hold more than a bound of the node's memory: frames, requests under
//	    way and replies that are not taken are bounded for each stream, requests also for all
//	    clients together. Writes beyond that are refused: what keeps leases alive may come
//	    behind them.
//	V4  The steps by which a lease becomes known to a shard are taken by the node's router,
//	    not by the client.
//	V5  What a client follows of the placement table is where keys and nodes are, and no more.
//	V6  A stream's handler returns after the last thing that the node's router does for it:
//	    the node closes the router when its streams have ended. A write whose outcome comes
//	    later has left the node then, whatever the outcome is.
package native
