// Package lease keeps what one shard knows about leases, and measures how long those
// whose home it is still live.
//
// Table is the replicated part: the records of leases at home here, which leases keys of
// the shard may be attached to, the fences, the last reign and what that has left to the
// next. Package apply changes it by an Update per batch of the log; others read it at any
// time. Lessor is the part that only a leader has: deadlines, in memory. It is given the
// time and starts nothing. Neither knows keys, versions or Raft.
//
//	log ─> apply ─> Update ──Commit──> Table <── put may attach? · lists
//	                            │
//	                            └─changed records─> Lessor <── Renew · Due (leader only)
//
// Invariants, with L1 to L4 and L9 of docs/decisions/0007-leases.md:
//
//	L5  Others see the changes of an Update together and after Commit, or never.
//	L6  A fence never falls, and each detaching raises it: REGISTER with an older
//	    fence is refused, whatever happened between.
//	L7  A lease that Due has named is not renewed any more in this reign: what was
//	    found expired and will be revoked is never acknowledged as alive.
//	L8  The deadline of a lease never moves to an earlier time, but for revocation.
//	L10  A will is made by the only Lessor of its reign, which renews nothing afterwards. It
//	    counts in the reign that begins next, for the leases that its own reign knew, and
//	    only shortens what those get there. So L9, and never against L3.
package lease
