package history

import (
	"strings"
	"time"
)

// Options say what is known about the store besides its answers.
type Options struct {
	// Seed is what made the history; every violation repeats it.
	Seed int64
	// ShardOf names the shard of a key, when the layout did not change. It makes H5
	// sharper. Without it only keys of one transaction are known to be together.
	ShardOf func(key string) string
	// PromptProgress says that an answer to a request for progress reaches every revision
	// that anybody had been told of the span before (H9). The real etcd tells how far the
	// node has come.
	PromptProgress bool
	// Asked is since when leases are asked for all the time, so that it is known when they
	// end. Healed is when the last fault that had stopped a node had ended and all served
	// again; 0: there was none. LateBy is how long after its time a lease may still be there
	// (H11). Without it that is measured, not judged.
	Asked, Healed, LateBy time.Duration
	// Elected is when shards lost their leader for another reason, such as a busy machine, and
	// elected the next one. Only then, and after a fault that stopped a node, may leases get
	// their whole time to live again.
	Elected []Interval
	// Timeout bounds the search for a linearization of one group. Default 30 s.
	Timeout time.Duration
}

// Interval is a part of the run within which something happened.
type Interval struct{ From, To time.Duration }

const timeoutDefault = 30 * time.Second

// Check judges a history of a store that was empty when it began.
func Check(h History, opt Options) Report {
	r := count(h)
	r.Seed = opt.Seed
	f, found := gather(h)
	r.Violations = found
	if r.Has(UnusableHistory) || r.Has(MalformedResponse) {
		return r // nothing that follows could be trusted
	}
	scopeOf := opt.ShardOf
	if scopeOf == nil {
		scopeOf = groupKeys(h.Ops, f.keys).root
	}
	timeout := opt.Timeout
	if timeout == 0 {
		timeout = timeoutDefault
	}
	r.Violations = append(r.Violations, f.checkCuts()...)
	r.Violations = append(r.Violations, f.checkUnique()...)
	r.Violations = append(r.Violations, f.checkOrder(scopeOf)...)
	r.Violations = append(r.Violations, f.checkChains()...)
	r.Violations = append(r.Violations, f.checkWatches(opt.PromptProgress)...)
	r.Violations = append(r.Violations, f.checkLeases(opt, scopeOf, &r)...)
	lin, undecided := f.checkLinearizable(timeout)
	r.Violations = append(r.Violations, lin...)
	r.Undecided = undecided
	return r
}

func count(h History) Report {
	r := Report{Total: len(h.Ops), Watches: len(h.Watches)}
	for i := range h.Ops {
		switch h.Ops[i].Outcome {
		case Unknown:
			r.Unknown++
		case Refused:
			r.Refused++
		}
	}
	for i := range h.Watches {
		for _, resp := range h.Watches[i].Responses {
			r.Events += len(resp.Events)
		}
	}
	for _, op := range h.Leases {
		if op.Kind == Grant {
			r.Leases++
		}
	}
	return r
}

// isFutureRevision reports whether an error text is etcd's refusal of a revision
// that the store has not reached.
func isFutureRevision(text string) bool { return strings.Contains(text, "future revision") }
