package robustness_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/history"
	"github.com/flotilla-kv/flotilla/internal/robustness"
)

// plantedBug is a mistake a node can be told to make, and the load and faults that have
// to expose it.
type plantedBug struct {
	// knob names the bug to nodeEntry.
	knob string
	// harm says what goes wrong, for whoever reads a failure.
	harm string
	load robustness.Workload
	// extra is how many nodes there are more than replicas: those serve from afar what they
	// have no replica of.
	extra int
	// attack is empty for bugs that need no fault.
	attack robustness.Nemesis
	// want are the anomalies by which it may show; any one is enough.
	want []history.Anomaly
	// orDown accepts a node that crashes or never recovers as well, or a lease that never ends.
	orDown bool
}

const (
	// plantedRun is one attempt, plantedBound all attempts at one bug.
	plantedRun   = 4 * time.Second
	plantedBound = 60 * time.Second
	// plantedPatience is short: a cluster that a bug has brought down stays down.
	plantedPatience = 12 * time.Second
)

func (b plantedBug) config(seed int64) robustness.Config {
	return robustness.Config{
		Seed: seed, Duration: plantedRun, Workload: b.load, Nemesis: b.attack, Patience: plantedPatience,
		HandOn: b.attack.Weights[robustness.Transfer] > 0, LateBy: robustness.DefaultConfig(seed, plantedRun).LateBy,
	}
}

func plantedBugs() []plantedBug {
	lost := []history.Anomaly{history.LostWrite, history.StaleRead, history.TornCut, history.NotLinearizable}
	twice := []history.Anomaly{history.DoubleApply, history.TwoRevisions, history.ChangedPast, history.VersionMismatch}
	survives := []history.Anomaly{history.DeadLeaseKey, history.DeadLeaseAccepted}
	return []plantedBug{
		{
			knob: "ack-before-commit", harm: "a leader answers before a majority has the write",
			load: writes(1200), attack: only(robustness.Kill, soon()), want: lost,
		},
		{
			knob: "read-without-readindex", harm: "a replica answers from what it has applied so far",
			load: mixed(1000), attack: only(robustness.Pause, soon()),
			want: []history.Anomaly{history.StaleRead, history.NotLinearizable, history.RevisionRegression},
		},
		{
			knob: "stale-epoch-accepted", harm: "a command routed by an old map is applied by a shard that gave its keys away",
			load: writes(1200), attack: only(robustness.Split, soon()),
			want: append(lost, history.VersionMismatch, history.RevisionRegression),
		},
		{
			knob: "child-begins-without-seed", harm: "a shard that was split off does not go on from what its parent had",
			load: leases(), attack: only(robustness.Split, soon()),
			want: append(survives, history.EarlyExpiry, history.RevisionRegression),
		},
		{
			knob: "init-skipped", harm: "a shard that was split off is never told to begin",
			load: writes(800), attack: only(robustness.Split, soon()), want: lost, orDown: true,
		},
		{
			knob: "tombstones-not-moved", harm: "a shard that was split off begins without its tombstones: deleted keys are there again",
			load: deletes(1200), attack: only(robustness.Split, soon()),
			want: append(lost, history.VersionMismatch, history.ChangedPast, history.TwoRevisions),
		},
		{
			knob: "neighbour-serves-on", harm: "a shard serves on while its left neighbour takes its keys",
			load: writes(1200), attack: rejoins(),
			want: append(lost, history.RevisionRegression, history.VersionMismatch, history.DoubleApply, history.TwoRevisions, history.ChangedPast),
		},
		{
			knob: "neighbour-forgotten", harm: "a shard takes the keys of its neighbour and not what that knew of revisions and leases",
			load: leases(), attack: rejoins(),
			want: append(survives, history.EarlyExpiry, history.RevisionRegression),
		},
		{
			knob: "feed-kept-at-a-split", harm: "the feeds of keys that were split off go on as if nothing happened to them any more",
			load: watches(), attack: only(robustness.Split, soon()),
			want: []history.Anomaly{history.LostEvent, history.StateMismatch},
		},
		{
			knob: "close-skipped", harm: "a read over several shards does not close those that are behind",
			load: cuts(1500), attack: robustness.Nemesis{},
			want: []history.Anomaly{history.TornCut, history.RevisionRegression},
		},
		{
			knob: "slots-shared", harm: "shards mint their revisions in the same slot",
			load: writes(1500), attack: robustness.Nemesis{}, want: []history.Anomaly{history.DuplicateRevision},
		},
		{
			knob: "double-apply-after-restart", harm: "entries that were applied are applied again after a restart",
			load: writes(800), attack: only(robustness.KillAll, soon()), want: append(twice, history.NotLinearizable), orDown: true,
		},
		{
			knob: "revision-from-clock", harm: "each replica takes the revision from its own clock at apply",
			load: mixed(600), attack: robustness.Nemesis{}, want: append(twice, history.StaleRead, history.TornCut, history.LostWrite),
		},
		{
			knob: "lost-batch-tail", harm: "all commands of a batch are acknowledged, the first half is applied",
			load: writes(1500), attack: robustness.Nemesis{}, want: lost,
		},
		{
			knob: "unknown-reported-as-failed-then-retried", harm: "a write of unknown outcome counts as failed and is sent again",
			load: writes(1000), attack: killAndPause(),
			want: append(twice, history.RefusedWriteApplied),
		},
		{
			knob: "snapshot-forgets-span-tail", harm: "a streamed snapshot ends before the shard's last keys",
			load: writes(1500), attack: only(robustness.Kill, robustness.Between{Min: 1500 * time.Millisecond, Max: 2500 * time.Millisecond}),
			want: append(lost, history.RevisionRegression),
		},
		{
			knob: "sync-lies", harm: "the log is compacted up to what was applied but not synced",
			load: writes(1500), attack: only(robustness.KillAll, soon()), want: append(lost, twice...), orDown: true,
		},
		{
			knob: "new-leader-expires-leases", harm: "a new leader takes all leases for expired that it has not seen renewed",
			load: leases(), attack: only(robustness.Kill, soon()), want: []history.Anomaly{history.EarlyExpiry},
		},
		{
			knob: "wills-forgotten", harm: "leases get their whole time again from each leader that leadership is handed to",
			load: leases(), attack: only(robustness.Transfer, soon()), want: []history.Anomaly{history.LateExpiry}, orDown: true,
		},
		{
			knob: "unregistered-lease-accepted", harm: "a shard attaches keys to a lease without asking whether there is one",
			load: leases(), attack: robustness.Nemesis{}, want: survives,
		},
		{
			knob: "fence-ignored", harm: "a shard registers a lease that was revoked while it asked whether there is one",
			load: leases(), attack: robustness.Nemesis{}, want: survives,
		},
		{
			knob: "detach-skipped", harm: "a revocation leaves out the first of the lease's spans",
			load: leases(), attack: robustness.Nemesis{}, want: survives,
		},
		{
			knob: "event-lost-when-reopened", harm: "a feed that ended is opened again a little too far",
			load: watches(), extra: 1, attack: only(robustness.Kill, soon()),
			want: []history.Anomaly{history.LostEvent, history.WrongPrevKV, history.StateMismatch},
		},
		{
			knob: "event-again-when-reopened", harm: "a feed that ended is opened again where it ended, not behind it",
			load: watches(), extra: 1, attack: only(robustness.Kill, soon()),
			want: []history.Anomaly{history.DuplicateEvent, history.EventBeforeStart, history.EarlyProgress},
		},
		{
			knob: "progress-of-the-fastest", harm: "progress is told when the first shard has come there, not the last",
			load: watches(), attack: robustness.Nemesis{}, want: []history.Anomaly{history.EarlyProgress, history.LostEvent},
		},
		{
			knob: "promises-with-batches-under-way", harm: "a leader promises to mint no revision that a batch under way may still get",
			load: watches(), attack: robustness.Nemesis{}, want: []history.Anomaly{history.LostEvent, history.StateMismatch},
		},
		{
			knob: "promises-heeded-early", harm: "a replica goes by a promise before it has applied what the leader had",
			load: watches(), attack: robustness.Nemesis{}, want: []history.Anomaly{history.LostEvent, history.StateMismatch},
		},
		{
			knob: "events-released-at-once", harm: "a watch of several shards does not wait for those that are behind",
			load: watches(), attack: robustness.Nemesis{}, want: []history.Anomaly{history.UnorderedEvents, history.EarlyProgress},
		},
	}
}

// leases and watches are few requests and many of those who are called so. Leases end
// after the shortest time there is, and are mostly revoked while keys are attached.
func leases() robustness.Workload {
	load := mixed(200)
	load.Lessees, load.Watchers = 16, 2
	load.LeaseTTL = robustness.Between{Min: 2 * time.Second}
	return load
}

func watches() robustness.Workload {
	load := mixed(800)
	load.Watchers = 16
	return load
}

// mixed asks for everything; writes and cuts ask mostly for what they are called by.
func mixed(rate float64) robustness.Workload {
	load := robustness.DefaultWorkload()
	load.Rate, load.Watchers, load.Lessees = rate, 0, 0
	return load
}

func writes(rate float64) robustness.Workload {
	load := mixed(rate)
	load.Mix = robustness.Mix{Put: 60, Get: 8, Delete: 3, Swap: 12, Group: 10, Range: 4, Past: 3}
	return load
}

func deletes(rate float64) robustness.Workload {
	load := mixed(rate)
	load.Mix = robustness.Mix{Put: 35, Get: 20, Delete: 25, Range: 15, Past: 5}
	return load
}

func cuts(rate float64) robustness.Workload {
	load := mixed(rate)
	load.Mix = robustness.Mix{Put: 50, Swap: 5, Group: 5, Range: 35, Past: 5}
	return load
}

// soon is how long a killed node is down when it is to come back at once.
func soon() robustness.Between { return robustness.Between{Max: 300 * time.Millisecond} }

// only attacks with one fault, one node at a time.
func only(fault robustness.Fault, down robustness.Between) robustness.Nemesis {
	n := robustness.DefaultNemesis()
	n.Weights = map[robustness.Fault]int{fault: 1}
	n.Gap = robustness.Between{Min: 300 * time.Millisecond, Max: 900 * time.Millisecond}
	n.Changes = n.Gap
	n.Down, n.Paused = down, robustness.Between{Min: 300 * time.Millisecond, Max: 1500 * time.Millisecond}
	return n
}

// rejoins has shards split and merged again all the time.
func rejoins() robustness.Nemesis {
	n := only(robustness.Rejoin, soon())
	n.Changes = robustness.Between{Min: 100 * time.Millisecond, Max: 300 * time.Millisecond}
	return n
}

func killAndPause() robustness.Nemesis {
	n := only(robustness.Kill, soon())
	n.Weights[robustness.Pause] = 1
	return n
}

// TestPlantedBugsAreFound shows that the harness would notice. It takes minutes, so it
// runs with -planted only; a single bug is chosen with -run.
func TestPlantedBugsAreFound(t *testing.T) {
	f := readFlags()
	if !f.planted {
		t.Log("-planted is not set: no bug is planted")
		return
	}
	for _, bug := range plantedBugs() {
		t.Run(bug.knob, func(t *testing.T) {
			target, ok := f.flotillaTarget(t, bug.knob)
			if !ok {
				t.Log("no node is linked into this test binary: nowhere to plant the bug")
				return
			}
			target.nodes += bug.extra
			require.True(t, bug.hunt(t, target, f.seed), "not found in %s: %s", plantedBound, bug.harm)
		})
	}
}

// hunt makes runs, each with its own seed and cluster, until one exposes the bug.
func (b plantedBug) hunt(t *testing.T, target target, first int64) bool {
	began := time.Now()
	for seed := first; time.Since(began) < plantedBound; seed++ {
		exposed := false
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			exposed = b.exposedBy(target.run(t, b.config(seed)))
		})
		if exposed {
			t.Logf("%s: found with seed %d after %s", b.knob, seed, time.Since(began).Round(time.Second))
			return true
		}
	}
	return false
}

func (b plantedBug) exposedBy(res robustness.Result) bool {
	return slices.ContainsFunc(b.want, res.Report.Has) || b.orDown && len(res.Problems) > 0
}

func TestEveryPlantedBugHasAPlan(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range plantedBugs() {
		require.False(t, seen[b.knob], "%s is planted twice", b.knob)
		seen[b.knob] = true
		require.NotEmpty(t, b.harm, b.knob)
		require.NotEmpty(t, b.want, b.knob)
		require.Positive(t, b.load.Rate, b.knob)
		require.LessOrEqual(t, b.attack.MaxDown, 1, "%s: a majority has to survive", b.knob)
	}
}
