// Package scenario takes a cluster of Flotilla's processes through something that happens to
// it, while clients ask at a fixed rate, and tells what they noticed.
//
//	peer.Cluster <--Admin service, signals-- scenario --load.Begin--> Trace --> Outcome
//
// It sees the cluster as its users do: through etcd's client, the Admin service, /metrics
// and the operating system. What it asks for is what the command line asks for.
//
// Invariants:
//
//	C1  A request has failed if the client library gave it up; what is late is late by the
//	    time at which it should have been sent. Nothing is left out.
//	C2  Nothing happens before every shard has all its replicas and a leader, and the load
//	    has run for a while: that is what the rest is compared with.
//	C3  What misses a must is told as a figure that misses it; an error means that there is
//	    no figure.
package scenario
