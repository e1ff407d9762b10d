// Package peer carries routed requests between nodes, and from native clients, over
// one gRPC stream per pair, whatever the number of shards.
//
// Watch feeds have a stream each, so that flow control of a slow reader does not hold back
// other feeds.
//
// Batching follows from back-pressure: requests that arrive while a frame is being sent go into the
// next one. Nothing is delayed on purpose, and frames grow with load up to a bound.
//
// A request is encoded directly into the waiting frame when it is sent, and a received frame is decoded
// in place: its requests share its bytes.
//
// Invariants:
//
//	N1  A request in a frame that was handed to gRPC may have been carried out: if its reply
//	    is lost, the outcome of a write is unknown (shard.ErrUnknownOutcome). A request that
//	    never entered such a frame was certainly not carried out.
//	N2  Every frame carries the highest revision its sender has seen, so a receiver never
//	    stamps below the revisions that preceded the request.
//	N3  A node that is down affects only requests to that node. A slow reader of replies
//	    holds back only its own stream, in bounded memory.
//	N4  A feed from another node keeps revisions whole and in order, and preserves the reason
//	    for its end. Its progress is reported without being requested.
//	N5  Once a request has been handed over, the memory it was built from is not read again;
//	    a reply shares no memory with the frame in which it arrived.
//	N6  A node that owes answers and has given none for some seconds, not even to a ping, is
//	    silent. What changes nothing, may be repeated or was not sent does not wait for it: it
//	    ends, and may be sent to another node. Other writes wait.
//	N7  A node that is about to stop says so on the streams of native clients, and answers what came by them. The client
//	    makes no further requests there, and ends each stream once it has all answers.
package peer
