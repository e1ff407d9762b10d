// Package auth decides which user makes a request and what the user may do.
//
//	placement table ─ Learn, Confirm ─> Guard ── Caller (token or certificate) ──> permitted, or etcd's error
//
// It owns tokens, the permissions that roles give to users, and the rule by which a node stops
// trusting its copy of the placement table. It reads no keys but those that are attached to leases, changes
// nothing in the table and does not know RPCs.
//
// Invariants:
//
//	G1  While authentication is not enabled, and the table is not armed, everything is permitted and
//	    costs one atomic load.
//	G2  Nothing is permitted by a copy of the table that was not confirmed within Trust: not by one
//	    in which authentication is enabled, nor by one that is armed, nor, after a start of a node that
//	    may have missed either, by any copy. A request is judged once, when it is
//	    admitted: one that was permitted before a change was acknowledged may still be carried out after.
//	G3  A token is worth what its user's password is: it is void when the user is deleted or added
//	    again, when the password changes, and when authentication is disabled. A JWT is void after any change of users
//	    and roles, and counts for its user as of that revision, whoever signed it with the nodes' key.
//	G4  Long-lived streams are judged by the present table at each of their requests, and those that only tell
//	    hear of each change of it (Guard.Watch).
//	G5  Passwords and tokens are in no error, log or metric.
//	G6  The Guard never goes back to an older copy than it was told of, whatever the order in which copies arrive.
package auth
