package load

import (
	"bytes"
	"slices"
	"sort"
)

const (
	// sampleKeys is how many keys a sample holds: the share that a point leaves on its
	// left is then known to about a twentieth.
	sampleKeys = 128
	// pointKeysMin is how many it takes to name a point at all.
	pointKeysMin = 32
)

// Point is where a load could be cut.
type Point struct {
	// Key is the first key of the right part; nil when none is known.
	Key []byte
	// Left is the share of the left part, 0 to 1.
	Left float64
}

// Sample holds some of the keys that were written lately (G3). The zero value holds none.
type Sample struct {
	keys [][]byte // a ring once it is full
	next int
	// left are the writes to pass over, every is how many there are per key that is
	// taken, on average. They vary, so that a pattern in the writes is not met in step.
	left, every uint64
	state       uint64 // of what they vary by
}

// Wants counts a write and reports whether its key is to be added.
func (s *Sample) Wants() bool {
	if s.left > 0 {
		s.left--
		return false
	}
	if s.every > 1 {
		s.left = s.draw() % (2*s.every - 1)
	}
	return true
}

// draw is the next number of a sequence without a pattern (splitmix64).
func (s *Sample) draw() uint64 {
	s.state += 0x9e3779b97f4a7c15
	z := s.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Add takes a key, which it copies, in place of the oldest.
func (s *Sample) Add(key []byte) {
	if len(s.keys) < sampleKeys {
		s.keys = append(s.keys, bytes.Clone(key))
		return
	}
	s.keys[s.next] = append(s.keys[s.next][:0], key...)
	s.next = (s.next + 1) % sampleKeys
}

// Pace makes the keys be of about the last rateTime when there are that many writes per
// second.
func (s *Sample) Pace(perSecond float64) {
	s.every = max(uint64(perSecond*rateTime.Seconds()/sampleKeys), 1)
	s.left = min(s.left, 2*s.every)
}

// Point is where the writes divide most evenly: at one of the keys, so that a key that
// takes most of them shows as a bad share.
func (s *Sample) Point() Point {
	n := len(s.keys)
	if n < pointKeysMin {
		return Point{}
	}
	sorted := slices.Clone(s.keys)
	slices.SortFunc(sorted, bytes.Compare)
	middle := sorted[n/2]
	// The median's own writes go to the right of it, or to the left of the key after it.
	before := sort.Search(n, func(i int) bool { return bytes.Compare(sorted[i], middle) >= 0 })
	after := sort.Search(n, func(i int) bool { return bytes.Compare(sorted[i], middle) > 0 })
	cut := before
	if after < n && after-n/2 < n/2-before || before == 0 {
		cut = after
	}
	if cut == n { // only one key
		return Point{}
	}
	return Point{Key: bytes.Clone(sorted[cut]), Left: float64(cut) / float64(n)}
}
