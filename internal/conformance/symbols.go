package conformance

import (
	"fmt"
	"slices"
)

// symbols is the order-preserving match between the revisions of a recording,
// which are ranks 0, 1, 2..., and those of the server that is asked (C2).
type symbols struct {
	bound []binding // ascending in both rank and revision
}

type binding struct {
	rank     int
	revision int64
}

// bind notes that the recording's rank is revision here, or says why it can't be.
func (s *symbols) bind(rank int, revision int64) error {
	i, found := slices.BinarySearchFunc(s.bound, rank, func(b binding, rank int) int { return b.rank - rank })
	if found {
		if have := s.bound[i].revision; have != revision {
			return fmt.Errorf("revision %d stands where @%d is due, and @%d was %d before", revision, rank, rank, have)
		}
		return nil
	}
	if i > 0 && s.bound[i-1].revision >= revision {
		return fmt.Errorf("revision %d (@%d) is not above %d (@%d)", revision, rank, s.bound[i-1].revision, s.bound[i-1].rank)
	}
	if i < len(s.bound) && s.bound[i].revision <= revision {
		return fmt.Errorf("revision %d (@%d) is not below %d (@%d)", revision, rank, s.bound[i].revision, s.bound[i].rank)
	}
	s.bound = slices.Insert(s.bound, i, binding{rank, revision})
	return nil
}

// rankOf numbers the distinct revisions in ascending order.
func rankOf(revisions []int64) map[int64]int {
	sorted := slices.Clone(revisions)
	slices.Sort(sorted)
	ranks := make(map[int64]int)
	for i, r := range slices.Compact(sorted) {
		ranks[r] = i
	}
	return ranks
}
