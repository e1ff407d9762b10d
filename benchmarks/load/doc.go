// Package load asks servers of the etcd API to work, and takes the time.
//
//	looped --Client(i)--> Operation, again and again --> recorder --> Result
//	watch  --writers--> put, stamped with its start --> watchers --> recorder --> Result
//
// It knows nothing of which system answers. Clients are goroutines in a closed loop: each
// sends its next request when the last is answered, so a slow server is asked less, which
// hides queueing from the latencies (see benchmarks/README.md). With a rate they take
// turns instead, and no server can slow them down.
//
// A Steady is for what happens to a cluster: operations at a fixed rate, each of which
// is kept with its key, so that a pause can be found afterwards.
//
// Invariants:
//
//	L1  Nothing is measured before every connection has served a request and the
//	    warm-up, where there is one, is over.
//	L2  Every operation started in the window is in the latencies, also one that
//	    ends after it; every one that ended well in the window is in the throughput.
//	L3  An operation that failed is in the errors and nowhere else.
//	L4  What a watcher was sent out of order, or not at all, is in the errors.
//	L5  The requests follow from the seed, the client's number and its answers.
//	L6  At a rate, the latency of an operation counts from the time at which the rate had
//	    it begin, and no such time is left out: a server that stalls cannot hide it.
package load
