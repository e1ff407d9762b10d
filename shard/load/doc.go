// Package load turns counters into the figures that placement uses: rates, their
// peaks, the key that divides a load, and the latency of slow operations.
//
// It does arithmetic only. It knows neither shards nor disks, reads no clock and takes
// no lock: the caller passes the time and serialises access.
//
// Invariants:
//
//	G1  A rate is an average over about rateTime and needs no warm-up: from the
//	    second reading on it is the average since the first.
//	G2  A peak is never below a rate that was seen within its window, and forgets that rate
//	    at most one fifteenth of the window after it has left the window.
//	G3  All writes of about the last rateTime are equally likely to be in a sample.
package load
