package load

import (
	"math"
	"math/rand/v2"
)

// zipfExponent is YCSB's: a tenth of the keys gets three quarters of the requests.
const zipfExponent = 0.99

// zipf picks ranks out of n, the first most often. The standard library's takes only
// exponents above 1. It is the method of Gray and others, "Quickly generating
// billion-record synthetic databases" (1994).
type zipf struct {
	n                 float64
	zeta, alpha, tail float64
}

// newZipf prepares ranks 0 to n-1.
func newZipf(n int) *zipf {
	z := &zipf{n: float64(n), alpha: 1 / (1 - zipfExponent)}
	for i := range n {
		z.zeta += math.Pow(float64(i+1), -zipfExponent)
	}
	two := 1 + math.Pow(2, -zipfExponent)
	z.tail = (1 - math.Pow(2/z.n, 1-zipfExponent)) / (1 - two/z.zeta)
	return z
}

// rank picks one.
func (z *zipf) rank(r *rand.Rand) int {
	u := r.Float64()
	switch weight := u * z.zeta; {
	case weight < 1:
		return 0
	case weight < 1+math.Pow(2, -zipfExponent):
		return 1
	}
	return min(int(z.n)-1, int(z.n*math.Pow(z.tail*u-z.tail+1, z.alpha)))
}
