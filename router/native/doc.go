// Package native serves Flotilla's own clients on a node's client port.
//
// The protocol is the one between nodes (package peer), so that a native client routes as a node
// does and sends requests directly to the shards' leaders. Unlike a node, a client is not
// trusted: a request is refused unless a user of etcd's API could have made it.
//
//	stream ─> peer.Serve ─> gate ─┬─> the node's replicas (exec.Executor)
//	                              └─> the node's router: writes that attach a lease, and
//	                                  requests for nodes that the client cannot reach
//
// It refuses everything that changes members, placement, spans or lease records: those
// requests are exchanged between nodes only.
//
// Invariants:
//
//	V1  Only puts, deletes, transactions, closes and reads reach a replica, after the checks
//	    of etcd's API. Anything else in a frame is answered with a refusal, and the rest of
//	    the frame is carried out.
//	V2  A client cannot advance time: the highest revision it claims to have seen is accepted,
//	    and a close carried out, only up to what this node could assign itself by now, plus the
//	    clock offset that nodes tolerate.
//	V3  A client's memory on the node is bounded: frames, requests in flight and unread
//	    replies are bounded per stream, and requests in flight also over all clients. Writes
//	    beyond that are refused rather than queued, because lease renewals may follow
//	    on the same stream. Renewals do not count over all clients, but name few leases each; a close
//	    counts as the read that waits for it.
//	V4  The node's router, not the client, takes the steps by which a shard learns of a lease.
//	V5  Of the placement table a client sees where keys and nodes are, and no more.
//	V6  A stream's handler returns after the last call that the node's router makes for it:
//	    the node closes the router once its streams have ended. A write whose outcome arrives
//	    later has left the node by then, whatever the outcome is.
//	V7  A request for another node passes the same checks here, and goes to it as one of this node's: it is
//	    carried out there or refused, and never passed on again. The node's router sends it once (router.T9).
//	V8  A client gets and changes only what its user may, by the rules of etcd's API, and as the table says at that moment
//	    (Config.Auth): each request of a stream is judged, and a feed ends when its user may not read its span any more.
//	    Shards and nodes, revisions and closes are for every user.
package native
