package robustness

import (
	"math/rand/v2"
	"sync"
)

// toldRevisions are the latest revisions that any client was told, oldest first. Watches begin near them.
type toldRevisions struct {
	mu   sync.Mutex
	list []int64
}

// toldMax is how far back watches begin, in number of answers.
const toldMax = 512

func (t *toldRevisions) note(rev int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, rev)
	if len(t.list) > 2*toldMax {
		t.list = append(t.list[:0], t.list[len(t.list)-toldMax:]...)
	}
}

// pick returns the latest revision or one from the past.
func (t *toldRevisions) pick(rng *rand.Rand, latest bool) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.list) == 0:
		return 1
	case latest:
		return t.list[len(t.list)-1]
	default:
		return t.list[rng.IntN(len(t.list))]
	}
}
