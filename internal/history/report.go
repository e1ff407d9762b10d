package history

import (
	"fmt"
	"strings"
	"time"
)

// Anomaly names a way in which a store can be wrong.
type Anomaly string

// The anomalies Check can find, with the invariant of doc.go each breaks.
const (
	NotLinearizable     Anomaly = "not linearizable"            // H1
	LostWrite           Anomaly = "lost write"                  // H2
	StaleRead           Anomaly = "stale read"                  // H3
	TornCut             Anomaly = "torn cut"                    // H3
	FutureWrite         Anomaly = "future write in a cut"       // H3
	FutureRefused       Anomaly = "handed-out revision refused" // H3
	DuplicateRevision   Anomaly = "duplicate revision"          // H4
	TwoRevisions        Anomaly = "one write at two revisions"  // H4, H6
	ChangedPast         Anomaly = "past changed"                // H4
	RevisionRegression  Anomaly = "revision regression"         // H5
	DoubleApply         Anomaly = "double apply"                // H6
	RefusedWriteApplied Anomaly = "refused write applied"       // H6
	VersionMismatch     Anomaly = "version mismatch"            // H1, H6
	ValueFromNowhere    Anomaly = "value nobody wrote"          // H1
	MalformedResponse   Anomaly = "malformed response"
	UnorderedEvents     Anomaly = "events out of order"           // H7
	DuplicateEvent      Anomaly = "duplicate event"               // H7
	SplitRevision       Anomaly = "revision split over responses" // H7
	LostEvent           Anomaly = "lost event"                    // H8
	EventBeforeStart    Anomaly = "event before the start"        // H8
	StateMismatch       Anomaly = "list and watch disagree"       // H8
	WrongCompaction     Anomaly = "wrongly called compacted"      // H8
	EarlyProgress       Anomaly = "early progress"                // H9
	ShortProgress       Anomaly = "progress falls short"          // H9
	UnwantedEvent       Anomaly = "unwanted event"                // H10
	WrongPrevKV         Anomaly = "wrong previous value"          // H10
	EventFromNowhere    Anomaly = "event of nobody's doing"       // H10
	DoubleDelete        Anomaly = "deleted twice"                 // H10, H12
	EarlyExpiry         Anomaly = "early expiry"                  // H11
	LateExpiry          Anomaly = "late expiry"                   // H11
	DeadLeaseRenewed    Anomaly = "dead lease renewed"            // H12
	DeadLeaseAccepted   Anomaly = "put to a dead lease"           // H12
	DeadLeaseKey        Anomaly = "key of a dead lease"           // H12
	// UnusableHistory is a mistake of the harness, not of the store.
	UnusableHistory Anomaly = "unusable history"
)

// Violation is one anomaly and the operations that show it.
type Violation struct {
	Anomaly Anomaly
	Detail  string
	Ops     []Op
}

func (v Violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", v.Anomaly, v.Detail)
	for _, op := range v.Ops {
		fmt.Fprintf(&b, "\n    %s", clip(op.String(), opTextMax))
	}
	return b.String()
}

// Report is the verdict on one history.
type Report struct {
	Seed int64
	// Total, Unknown and Refused count operations.
	Total, Unknown, Refused int
	// Watches, Events and Leases count what was watched, delivered and granted.
	Watches, Events, Leases int
	// LatestExpiry is the longest a lease was there after it should have ended.
	LatestExpiry time.Duration
	Violations   []Violation
	// Undecided names key groups whose check ran out of time. They are not green.
	Undecided []string
}

// Clean reports whether the history was decided completely and nothing was found.
func (r Report) Clean() bool { return len(r.Violations) == 0 && len(r.Undecided) == 0 }

// Has reports whether the anomaly was found.
func (r Report) Has(a Anomaly) bool {
	for _, v := range r.Violations {
		if v.Anomaly == a {
			return true
		}
	}
	return false
}

const (
	// One broken thing shows itself in hundreds of operations; the first few of each
	// kind tell it.
	violationsShownMax = 3
	// A range over all keys is long; its beginning is enough to find it in the dump.
	opTextMax = 600
)

func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d operations (%d unknown, %d refused), %d events of %d watches, %d leases (the latest ended %s late); %d violations, %d groups undecided",
		r.Seed, r.Total, r.Unknown, r.Refused, r.Events, r.Watches, r.Leases, r.LatestExpiry.Round(time.Millisecond), len(r.Violations), len(r.Undecided))
	counts := make(map[Anomaly]int)
	for _, v := range r.Violations {
		if counts[v.Anomaly]++; counts[v.Anomaly] <= violationsShownMax {
			fmt.Fprintf(&b, "\n  seed %d: %s", r.Seed, v)
		}
	}
	for _, a := range sortedKeys(counts) {
		if counts[a] > violationsShownMax {
			fmt.Fprintf(&b, "\n  … and %d more of %q", counts[a]-violationsShownMax, a)
		}
	}
	for _, g := range r.Undecided {
		fmt.Fprintf(&b, "\n  undecided: %s", g)
	}
	return b.String()
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
