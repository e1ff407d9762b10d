package shard

import "go.etcd.io/etcd/api/v3/mvccpb"

// Changes is a piece of one shard's history, as a watch gets it.
type Changes struct {
	// Events are whole revisions, ascending, and inside one in the order the changes
	// were made. All who watch share them, and the slice: nobody changes either.
	Events []*mvccpb.Event
	// Through is how far the piece reaches: every change of the watched span at or below
	// it has been in this piece or an earlier one, and none will come later (R4).
	Through Revision
}
