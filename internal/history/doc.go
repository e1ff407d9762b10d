// Package history records what clients asked of a store and what they were told,
// and decides afterwards whether any correct store could have answered so.
//
// It owns the vocabulary of a recorded operation, the recorder and the checks. It
// talks to no store and starts no process. The checks are pure: the same history
// gives the same report.
//
//	clients --Invoke/Return--> Recorder --History--> Check --> Report (violations, readable)
//
// What a store must satisfy, numbered because violations cite it:
//
//	H1  Every group of keys is linearizable. A group is a set of keys that
//	    transactions tie together; the model knows values, create and mod
//	    revisions and versions, but not that revisions are consecutive.
//	H2  No acknowledged write is lost: the final readback contains it.
//	H3  A read at revision R is an exact cut: it shows every write of its span with
//	    a revision <= R and none above R, whenever those writes returned. A read of
//	    "now" has R >= the revision of every write of its span that completed before.
//	H4  A revision belongs to one transaction, a write to one revision, and what one
//	    key held at one revision never changes.
//	H5  Revisions never run backwards: what a request reports is at least what a
//	    request inside its span reported before it began, and a write is above it.
//	H6  A write is applied at most once, and never after it was refused.
//
// Of watches:
//
//	H7  The events of a watch arrive in revision order, none twice, and all
//	    of one revision in one response (or in its fragments).
//	H8  A watch from revision R receives exactly what happened from R on: between R and
//	    its last position no known change is missing, and none comes
//	    from before. So a list plus the events since equals a later list.
//	H9  After progress R no event <= R follows, and all of them were delivered. Where it is promised
//	    (Options.PromptProgress), progress on request reaches every revision of the span that
//	    any client had been told of.
//	H10 Events match the request and are true: their values, versions and previous values
//	    agree with reads and with every other watch, and some client made the change.
//
// Of leases:
//
//	H11 A lease that was not revoked exists until its TTL has passed since
//	    the last acknowledged renewal was sent, and not much longer (Options.LateBy): its TTL
//	    starts again after a fault that stopped a node, and when its shard has lost its leader
//	    otherwise.
//	H12 When a lease is gone, each of its keys has been deleted, once, and the lease is not renewed
//	    any more. No key is attached to it after a revocation was acknowledged, nor in a shard
//	    that has begun to delete its keys.
//
// The facts are collected from all clients together: responses, reads and watches. The expiry
// of a lease is answered to nobody and its deletions are known only from watches, so a run ends with
// watches of everything since the first revision, through every node.
//
// A write with an unknown outcome may have been applied once, at any time after
// it began, even after everything else. Its effects become facts as soon as a
// reader has seen one of its values. For this to work, every (key, value) pair must
// be written by one operation only, and compares may only expect values that were read.
//
// The real etcd, with its single shard, satisfies H3 and H5 too; the checks make no
// difference between the two systems.
package history
