// Package load asks servers of the etcd API to work, and takes the time.
//
//	looped --Client(i)--> Operation, again and again --> recorder --> Result
//	watch  --writers--> put, stamped with its start --> watchers --> recorder --> Result
//
// It knows nothing of which system answers. Most clients are goroutines in a closed
// loop: each sends its next request when the last is answered, so a slow server
// is asked less. That hides queueing from the latencies (see benchmarks/README.md).
// What watchers are sent at a fixed rate is not slowed down by the servers.
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
package load
