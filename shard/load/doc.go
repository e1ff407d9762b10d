// Package load turns counts into the figures that placement goes by: rates, their
// peaks, where a load divides, and how long slow things take.
//
// It keeps figures and nothing else. It knows no shard and no disk, reads no clock and
// takes no lock: whoever counts says when it is, and keeps others out meanwhile.
//
// Invariants:
//
//	G1  A rate is an average over about rateTime, and needs no time to become one: from
//	    the second reading on it is the average since the first.
//	G2  A peak is never below a rate that was seen within its window, and falls at most
//	    one part in fifteen of the window after that.
//	G3  All writes of about the last rateTime are equally likely to be in a sample.
package load
