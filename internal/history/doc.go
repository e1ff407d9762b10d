// Package history records what clients asked of a store and what they were told,
// and decides afterwards whether any correct store could have answered so.
//
// It owns the vocabulary of a recorded operation, the recorder and the checks. It
// talks to no store and starts no process. The checks are pure: the same history
// gives the same report.
//
//	clients --Invoke/Return--> Recorder --History--> Check --> Report (violations, readable)
//
// What a store is held to, numbered because violations cite it:
//
//	H1  Every group of keys is linearizable. A group is a set of keys that
//	    transactions tie together; the model knows values, create and mod
//	    revisions and versions, but not that revisions are consecutive.
//	H2  No acknowledged write is lost: what was read back at the end shows it.
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
//	H7  The events of a watch come in the order of their revisions, none twice, and all
//	    of one revision in one response (or in its fragments).
//	H8  A watch from revision R is given exactly what happened from R on: between R and
//	    what it was last told nothing is missing that anybody knows of, and nothing comes
//	    from before. So a list and the events since are what a later list shows.
//	H9  After progress R no event <= R follows, and all were given. Where it is promised
//	    (Options.PromptProgress), progress on request reaches every revision anybody had
//	    been told of the span.
//	H10 Events are what was asked for, and true: their values, versions and previous values
//	    are those of reads and of every other watch, and somebody made the change.
//
// Of leases:
//
//	H11 A lease that nobody asked to revoke is there until its time to live has passed since
//	    the last acknowledged renewal was sent, and not much longer (Options.LateBy): after a
//	    fault that stopped a node its time begins anew.
//	H12 When a lease is gone, every key of it is deleted, once, and it is not renewed any
//	    more. No key is attached to it after a revocation was acknowledged, nor in a shard
//	    that has begun to delete its keys.
//
// What happened is known from everybody together: answers, reads, and watches. What
// ends a lease answers nobody; its deletions are known from watches, so a run ends with
// watches of everything since the first revision, through every node.
//
// A write whose outcome is not known may have been applied once, at any time after
// it began, also after everything else. Its effects become facts as soon as one
// reader saw one of its values; to make that possible every (key, value) pair must
// be written by one operation only, and compares may only expect what was read.
//
// H3 and H5 are also what the real etcd keeps, with one shard; the checks know no
// difference between the two.
package history
