package simulation

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"sort"
)

// Keys are positions in [0, 1), so that every share of the keyspace can be cut
// anywhere. They are 8 bytes, big-endian, so that they sort as positions do.
func keyAt(position float64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(position*(1<<63)))
}

func positionOf(key []byte) float64 {
	return float64(binary.BigEndian.Uint64(key)) / (1 << 63)
}

// density is how something is spread over the keyspace: even within each of many
// buckets, and sums to 1.
type density struct {
	upTo []float64 // upTo[i] is the sum of the buckets before i
}

const buckets = 4096

// zipf gives the buckets, in an order of chance, shares that fall by a power law.
func zipf(rng *rand.Rand, exponent float64) density {
	weights := make([]float64, buckets)
	for i, rank := range rng.Perm(buckets) {
		weights[i] = 1 / math.Pow(float64(rank+1), exponent)
	}
	return densityOf(weights)
}

func densityOf(weights []float64) density {
	d := density{upTo: make([]float64, len(weights)+1)}
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	for i, w := range weights {
		d.upTo[i+1] = d.upTo[i] + w/sum
	}
	return d
}

// before is the share of the keys below a position.
func (d density) before(position float64) float64 {
	x := position * buckets
	i := min(int(x), buckets-1)
	return d.upTo[i] + (x-float64(i))*(d.upTo[i+1]-d.upTo[i])
}

// at is the position below which lies a share.
func (d density) at(share float64) float64 {
	i := min(sort.SearchFloat64s(d.upTo, share), buckets)
	if i == 0 {
		return 0
	}
	width := d.upTo[i] - d.upTo[i-1]
	return (float64(i-1) + (share-d.upTo[i-1])/width) / buckets
}

// between is the share of the keys in [from, to).
func (d density) between(from, to float64) float64 { return d.before(to) - d.before(from) }

// middle is the position that halves the share of [from, to).
func (d density) middle(from, to float64) float64 {
	return d.at((d.before(from) + d.before(to)) / 2)
}

// descending gives the buckets from a position on, round the keyspace, shares that fall by a
// power law.
func descending(position, exponent float64) density {
	weights := make([]float64, buckets)
	first := int(position * buckets)
	for i := range weights {
		weights[(first+i)%buckets] = 1 / math.Pow(float64(i+1), exponent)
	}
	return densityOf(weights)
}
