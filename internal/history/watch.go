package history

import (
	"fmt"
	"strings"
	"time"
)

// Watch is one watch, from its create request to its end. A client that carries on
// after an end opens another Watch, from where it had come to.
type Watch struct {
	// ID is the position among the history's watches.
	ID     int
	Client int
	// Node is where the client was connected, for whoever reads a violation.
	Node string
	// Of is what is watched; its Revision is not used.
	Of Read
	// From is the start revision that was asked for; 0 means from now on.
	From int64
	// What was asked for besides.
	PrevKV, NoPut, NoDelete bool
	// Opened is before the create request was sent.
	Opened    time.Duration
	Responses []WatchResponse
	// Asked are the times right before progress was requested. A client that wants H9 to
	// be judged asks again only after it was answered.
	Asked []time.Duration
	// End tells how the watch ended; empty while it had not.
	End string
	// Final marks watches opened after all clients had stopped and all faults were healed.
	Final bool
}

// WatchResponse is one message of a watch, as the client received it.
type WatchResponse struct {
	At time.Duration
	// Revision is the response header's.
	Revision int64
	Created  bool
	// Requested marks an answer to a request for progress, which speaks of the stream.
	Requested bool
	// Fragment says that the next message carries on with the same revision.
	Fragment bool
	Canceled bool
	// Compacted is the lowest revision there was left to watch, if that is the reason.
	Compacted int64
	Events    []Event
}

// Event is one change of one key.
type Event struct {
	// Put is false for a deletion; KV then has only Key and Mod.
	Put bool
	KV  KV
	// Prev is what the key was before; Version 0 when the response did not say.
	Prev KV
}

// isProgress reports whether the response says nothing but how far the watch has come.
func (r *WatchResponse) isProgress() bool {
	return len(r.Events) == 0 && !r.Created && !r.Canceled
}

// wants reports whether the event of such a change belongs into the watch.
func (w *Watch) wants(key string, put bool) bool {
	return w.Of.contains(key) && (put && !w.NoPut || !put && !w.NoDelete)
}

func (w Watch) String() string {
	var b strings.Builder
	of := w.Of
	of.Revision = 0
	fmt.Fprintf(&b, "watch #%d client %d at %s [%s] of %s", w.ID, w.Client, w.Node, seconds(w.Opened), &of)
	if w.From > 0 {
		fmt.Fprintf(&b, " from %d", w.From)
	} else {
		b.WriteString(" from now on")
	}
	for _, o := range []struct {
		set  bool
		name string
	}{{w.PrevKV, "prev_kv"}, {w.NoPut, "no puts"}, {w.NoDelete, "no deletes"}} {
		if o.set {
			b.WriteString(", " + o.name)
		}
	}
	if w.End != "" {
		b.WriteString("; ended: " + w.End)
	}
	return b.String()
}

func (r WatchResponse) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s] revision %d", seconds(r.At), r.Revision)
	switch {
	case r.Created:
		b.WriteString(" created")
	case r.Canceled:
		b.WriteString(" canceled")
		if r.Compacted > 0 {
			fmt.Fprintf(&b, ", compacted %d", r.Compacted)
		}
	case r.Requested:
		b.WriteString(" progress, as requested")
	case r.isProgress():
		b.WriteString(" progress")
	default:
		fmt.Fprintf(&b, " {%s}", join(r.Events))
	}
	if r.Fragment {
		b.WriteString(" to be continued")
	}
	return b.String()
}

func (e Event) String() string {
	text := fmt.Sprintf("delete %q mod=%d", e.KV.Key, e.KV.Mod)
	if e.Put {
		text = "put " + e.KV.String()
	}
	if e.Prev.Version > 0 {
		text += " was " + e.Prev.String()
	}
	return text
}
