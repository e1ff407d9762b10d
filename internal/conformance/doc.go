// Package conformance holds the responses of a real etcd 3.7.3 to some 1,500 requests
// about keys, leases, watches, users and roles, and sends the same requests to another server.
//
// The requests are Go (corpus_*.go): scripts of raw etcdserverpb requests, each
// sent to a store that is logically empty when the script starts. The responses are
// text under testdata, one file per script, written only by recording them:
//
//	go test -tags etcd ./internal/conformance -record   # record anew
//	go test -tags etcd ./internal/conformance           # replay against etcd
//	go test ./internal/conformance                      # replay against Flotilla
//
//	corpus --> ask(endpoint) --> render --> compare with testdata/<script>.txt
//	                               |
//	                               +-- revisions become symbols @0 < @1 < ...
//
// Differ needs no recordings: it makes scripts up from a seed and puts them to an etcd and
// to another server at the same time (random.go says what is not drawn because it is known to
// differ).
//
// Invariants:
//
//	C1  Everything in a response counts: every field, code and message. Only the
//	    values of revisions, the IDs in a header, tokens, and what a server says about
//	    itself (askNode) are free.
//	C2  Within a script a symbol stands for one revision, different symbols for
//	    different revisions, and their order is kept. So a store may leave gaps
//	    between revisions; it may not share, repeat or reorder them.
//	C3  A difference is either absent or listed (differences.go) with the exact
//	    answer given instead and its row in docs/ETCD.md. A listed difference that
//	    went away is a failure too.
//
// The scripts share one store and run in corpus order: the first must find a store
// that was never compacted. They delete every key, so they must never be pointed at
// a store that is worth anything.
//
// What may a request say about revisions? Only what holds with gaps: a revision an
// earlier step got, or one above all. "The one before" a write is an earlier write in
// etcd and nobody's elsewhere; a script may ask for what was up to it or is above it,
// never for what is at it or since it (TestCorpusAsksOnlyWhatHoldsWithGaps).
package conformance
