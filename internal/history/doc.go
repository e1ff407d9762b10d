// Package history records what clients asked of a store and what they were told,
// and decides afterwards whether any correct store could have answered so.
//
// It owns the vocabulary of a recorded operation, the recorder and the checks. It
// talks to no store and starts no process. The checks are pure: the same history
// gives the same report.
//
//	clients --Invoke/Return--> Recorder --Ops--> Check --> Report (violations, readable)
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
// A write whose outcome is not known may have been applied once, at any time after
// it began, also after everything else. Its effects become facts as soon as one
// reader saw one of its values; to make that possible every (key, value) pair must
// be written by one operation only, and compares may only expect what was read.
//
// H3 and H5 are also what the real etcd keeps, with one shard; the checks know no
// difference between the two.
package history
