// Package load puts servers of the etcd API under load and measures their response times.
//
//	looped --Client(i)--> Operation, again and again --> recorder --> Result
//	watch  --writers--> put, stamped with its start --> watchers --> recorder --> Result
//
// It does not know which system answers. Clients are goroutines in a closed loop: each
// sends its next request when the last is answered, so a slow server receives fewer requests, which
// hides queueing from the latencies (see benchmarks/README.md). With a rate they form
// an open loop instead, and no server can slow them down.
//
// A Steady is for scenarios: operations at a fixed rate, each recorded
// with its key, so that pauses can be found afterwards.
//
// Invariants:
//
//	L1  Nothing is measured before every connection has served a request and the
//	    warm-up, where there is one, is over.
//	L2  Every operation started in the window is in the latencies, also one that
//	    ends after it; every one that ended well in the window is in the throughput.
//	L3  An operation that failed is in the errors and nowhere else.
//	L4  Events that a watcher received out of order, or not at all, are in the errors.
//	L5  The requests are determined by the seed, the client's number and its responses.
//	L6  At a rate, the latency of an operation counts from its scheduled start, and no
//	    scheduled start is left out: a server cannot hide a stall (coordinated omission).
package load
