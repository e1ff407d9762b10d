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

// EventBytes is the size of the events' keys and values.
func EventBytes(events []*mvccpb.Event) int {
	n := 0
	for _, e := range events {
		n += len(e.Kv.Key) + len(e.Kv.Value)
		if e.PrevKv != nil {
			n += len(e.PrevKv.Key) + len(e.PrevKv.Value)
		}
	}
	return n
}
