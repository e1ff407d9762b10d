// Package lease keeps what one shard knows about leases, and measures the remaining time
// of those whose home the shard is.
//
// Table is the replicated part: the records of leases whose home is here, the leases to which
// keys of the shard may be attached, the fences, the last reign (a leader's period in office) and
// the will that it left to the next. Package apply changes it with one Update per batch of the log;
// others read it at any time. Lessor is the part that only a leader has: deadlines, in memory. It is
// passed the time and starts nothing. Neither knows keys, versions or Raft.
//
//	log ─> apply ─> Update ──Commit──> Table <── put may attach? · lists
//	                            │
//	                            └─changed records─> Lessor <── Renew · Due (leader only)
//
// Invariants, with L1 to L4 and L9 of docs/decisions/0007-leases.md:
//
//	L5  Readers see the changes of an Update together and after Commit, or never.
//	L6  A fence never decreases, and each detaching raises it: REGISTER with an older
//	    fence is refused, whatever happened in between.
//	L7  A lease that Due has returned is not renewed any more in this reign: what was
//	    found expired and will be revoked is never acknowledged as alive.
//	L8  A lease's deadline never moves to an earlier time, except by revocation.
//	L10  A will is made by the only Lessor of its reign, which renews nothing afterwards. It
//	    counts in the reign that begins next, for the leases that its own reign knew, and
//	    can only shorten the time they get there. This yields L9 and cannot violate L3.
package lease
