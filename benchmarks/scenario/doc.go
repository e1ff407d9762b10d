// Package scenario subjects a cluster of Flotilla processes to an event (a split, a lost node,
// overload, ...) under clients with a fixed request rate, and reports the effect on them.
//
//	peer.Cluster <--Admin service, signals-- scenario --load.Begin--> Trace --> Outcome
//
// It sees the cluster as its users do: through etcd's client, the Admin service, /metrics
// and the operating system. It makes the same requests as the command line.
//
// Invariants:
//
//	C1  A request has failed if the client library gave it up; lateness is measured from the
//	    time at which a request should have been sent. Nothing is left out.
//	C2  The event happens only after every shard has all its replicas and a leader, and the load
//	    has run for a while; that period is the baseline.
//	C3  A missed requirement is reported as the figure that misses it; an error means that there is
//	    no figure.
package scenario
