package robustness

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// Fault is a way to disturb a System.
type Fault string

// The faults. KillAll kills every node at once: a power cut that the page cache survives.
const (
	Kill    Fault = "kill"
	Pause   Fault = "pause"
	KillAll Fault = "kill all"
	// Split splits a shard, Merge merges two, Rejoin does both in this order, Move moves a replica to another node,
	// Transfer makes a node the leader of as many shards as it can be. All of them make routers' maps stale.
	Split    Fault = "split"
	Merge    Fault = "merge"
	Rejoin   Fault = "rejoin"
	Move     Fault = "move"
	Transfer Fault = "transfer leadership to"
)

// Nemesis says which faults a run has.
type Nemesis struct {
	// Weights of the faults; a fault without a weight does not happen. KillAll disregards MaxDown, which is its
	// purpose.
	Weights map[Fault]int
	// MaxDown is how many nodes may be killed or paused at once (B2).
	MaxDown int
	// Gap is the range of the time between two faults that stop nodes; Down and Paused are the ranges of their
	// lengths. Changes is the time between two changes of the layout, which happen also while nodes are down.
	Gap, Down, Paused, Changes Between
}

// Between is a range of durations.
type Between struct{ Min, Max time.Duration }

func (b Between) pick(rng *rand.Rand) time.Duration {
	if b.Max <= b.Min {
		return b.Min
	}
	return b.Min + time.Duration(rng.Int64N(int64(b.Max-b.Min)))
}

// DefaultNemesis kills and pauses one node at a time.
func DefaultNemesis() Nemesis {
	return Nemesis{
		Weights: map[Fault]int{Kill: 1, Pause: 1}, MaxDown: 1,
		Gap:    Between{300 * time.Millisecond, 1200 * time.Millisecond},
		Down:   Between{0, 1500 * time.Millisecond},
		Paused: Between{500 * time.Millisecond, 3 * time.Second}, Changes: Between{200 * time.Millisecond, 1200 * time.Millisecond},
	}
}

// Reshaping adds splits, merges, moves and transfers to the faults.
func (n Nemesis) Reshaping() Nemesis {
	n.Weights = maps.Clone(n.Weights)
	n.Weights[Split], n.Weights[Merge], n.Weights[Rejoin], n.Weights[Move], n.Weights[Transfer] = 3, 2, 3, 3, 1
	return n
}

// Attack is one planned fault.
type Attack struct {
	Fault     Fault
	At, Lasts time.Duration
	// Node is the node that Kill, Pause and Transfer affect, and the target of a Move. Key names the shard to split,
	// merge or move.
	Node int
	Key  string
}

func (a Attack) String() string {
	switch a.Fault {
	case Split:
		return fmt.Sprintf("%6.3fs split at %q", a.At.Seconds(), a.Key)
	case Merge:
		return fmt.Sprintf("%6.3fs merge at %q", a.At.Seconds(), a.Key)
	case Rejoin:
		return fmt.Sprintf("%6.3fs split at %q and merge", a.At.Seconds(), a.Key)
	case Move:
		return fmt.Sprintf("%6.3fs move %q to node %d", a.At.Seconds(), a.Key, a.Node+1)
	case Transfer:
		return fmt.Sprintf("%6.3fs %s node %d", a.At.Seconds(), a.Fault, a.Node+1)
	case KillAll:
		return fmt.Sprintf("%6.3fs kill all for %.3fs", a.At.Seconds(), a.Lasts.Seconds())
	default:
		return fmt.Sprintf("%6.3fs %s node %d for %.3fs", a.At.Seconds(), a.Fault, a.Node+1, a.Lasts.Seconds())
	}
}

// Plan decides all attacks of a run in advance. It is pure.
func (n Nemesis) Plan(rng *rand.Rand, nodes int, keys []string, duration time.Duration) []Attack {
	stops, changes := []Fault{Kill, Pause, KillAll}, []Fault{Split, Merge, Rejoin, Move, Transfer}
	var plan []Attack
	// Each of MaxDown slots has at most one attack at a time.
	for range max(1, n.MaxDown) {
		plan = n.fill(plan, rng, stops, n.Gap, nodes, keys, duration)
	}
	plan = n.fill(plan, rng, changes, n.Changes, nodes, keys, duration)
	slices.SortFunc(plan, func(a, b Attack) int { return cmp.Compare(a.At, b.At) })
	return plan
}

// fill adds attacks of some kinds, one after the other.
func (n Nemesis) fill(plan []Attack, rng *rand.Rand, kinds []Fault, gap Between, nodes int, keys []string, duration time.Duration) []Attack {
	total := 0
	for _, f := range kinds {
		total += n.Weights[f]
	}
	if total == 0 {
		return plan
	}
	for now := gap.pick(rng); ; now += gap.pick(rng) {
		a := n.draw(rng, kinds, total, nodes, keys)
		a.At = now
		if a.At+a.Lasts > duration {
			return plan
		}
		if !slices.ContainsFunc(plan, a.collides) {
			plan = append(plan, a)
		}
		now += a.Lasts
	}
}

func (n Nemesis) draw(rng *rand.Rand, kinds []Fault, total, nodes int, keys []string) Attack {
	a := Attack{Node: rng.IntN(nodes), Key: keys[rng.IntN(len(keys))]}
	dice := rng.IntN(total)
	for _, f := range kinds {
		if dice < n.Weights[f] {
			a.Fault = f
			break
		}
		dice -= n.Weights[f]
	}
	switch a.Fault {
	case Kill, KillAll:
		a.Lasts = n.Down.pick(rng)
	case Pause:
		a.Lasts = n.Paused.pick(rng)
	}
	return a
}

// stops reports whether a node does not serve during the fault.
func (f Fault) stops() bool { return f == Kill || f == Pause || f == KillAll }

// collides reports whether two attacks would hit one node at the same time.
func (a Attack) collides(b Attack) bool {
	if !a.Fault.stops() || !b.Fault.stops() || a.At > b.At+b.Lasts || b.At > a.At+a.Lasts {
		return false
	}
	return a.Node == b.Node || a.Fault == KillAll || b.Fault == KillAll
}
