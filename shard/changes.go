package shard

import "go.etcd.io/etcd/api/v3/mvccpb"

// Changes is a piece of one shard's history, as a watch gets it.
type Changes struct {
	// Events are whole revisions in ascending order, and within a revision in the order of the
	// changes. All watchers share them and the slice: nobody modifies either.
	Events []*mvccpb.Event
	// Through is how far the piece reaches: every change of the watched span at or below it is in
	// this piece or an earlier one, and none will follow (R4).
	Through Revision
}
