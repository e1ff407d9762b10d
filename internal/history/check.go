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
	// Timeout bounds the search for a linearization of one group. Default 30 s.
	Timeout time.Duration
}

const timeoutDefault = 30 * time.Second

// Check judges a history of a store that was empty when it began.
func Check(ops []Op, opt Options) Report {
	r := Report{Seed: opt.Seed, Total: len(ops)}
	for i := range ops {
		switch ops[i].Outcome {
		case Unknown:
			r.Unknown++
		case Refused:
			r.Refused++
		}
	}
	f, found := gather(ops)
	r.Violations = found
	if r.Has(UnusableHistory) || r.Has(MalformedResponse) {
		return r // nothing that follows could be trusted
	}
	scopeOf := opt.ShardOf
	if scopeOf == nil {
		scopeOf = groupKeys(ops, f.keys).root
	}
	timeout := opt.Timeout
	if timeout == 0 {
		timeout = timeoutDefault
	}
	r.Violations = append(r.Violations, f.checkCuts()...)
	r.Violations = append(r.Violations, f.checkUnique()...)
	r.Violations = append(r.Violations, f.checkOrder(scopeOf)...)
	r.Violations = append(r.Violations, f.checkChains()...)
	lin, undecided := f.checkLinearizable(timeout)
	r.Violations = append(r.Violations, lin...)
	r.Undecided = undecided
	return r
}

// IsFutureRevision reports whether an error text is etcd's refusal of a revision
// that the store has not reached.
func IsFutureRevision(text string) bool { return strings.Contains(text, "future revision") }
