// Package peer carries routed requests between nodes (and from native clients) over
// one gRPC stream per pair, whatever the number of shards.
//
// Feeds of changes have a stream each, so that the flow control of one that is not read
// holds back no other.
//
// Batching is by back-pressure: what comes while a frame is being sent goes into the
// next one. Nothing lingers, and frames grow with load, up to a bound.
//
// What is sent is encoded when it is made, into the frame that waits, and a frame that came is decoded in place: its
// requests share its bytes.
//
// Invariants:
//
//	N1  A request that was put into a frame handed to gRPC may have been carried out:
//	    if its reply is lost, a write's outcome is unknown (shard.ErrUnknownOutcome). One
//	    that never was is certainly not.
//	N2  Every frame tells the highest revision its sender has seen, so a receiver never
//	    stamps below what caused the request.
//	N3  A node that is down costs the callers of that node only; a slow reader of replies
//	    holds back only its own stream, in bounded memory.
//	N4  A feed of another node keeps revisions whole and in order, and its end keeps its
//	    meaning. How far it has come is told without being asked for.
//	N5  What a request was made of is not looked at when whoever began it goes on, and what a reply
//	    is made of shares nothing with the frame that it came in.
package peer
