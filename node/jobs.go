package node

import (
	"context"
	"sync"
)

// jobs are done beside a loop that goes on looking: one at a time for each key, and a few
// for all of them. One that is asked for while another of its key is under way is dropped,
// since it was decided on before that had its effect: the loop looks again.
type jobs[K comparable] struct {
	slots chan struct{}
	work  sync.WaitGroup

	mu struct {
		sync.Mutex
		underWay map[K]bool
	}
}

// newJobs has room for most at the same time; more of them wait.
func newJobs[K comparable](most int) *jobs[K] {
	j := &jobs[K]{slots: make(chan struct{}, most)}
	j.mu.underWay = make(map[K]bool)
	return j
}

// begin returns at once. A job that still waits when ctx ends is not done.
func (j *jobs[K]) begin(ctx context.Context, key K, job func(context.Context)) {
	if !j.take(key) {
		return
	}
	j.work.Go(func() {
		defer j.release(key)
		select {
		case j.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-j.slots }()
		job(ctx)
	})
}

// wait returns when all that began have ended.
func (j *jobs[K]) wait() { j.work.Wait() }

func (j *jobs[K]) take(key K) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mu.underWay[key] {
		return false
	}
	j.mu.underWay[key] = true
	return true
}

func (j *jobs[K]) release(key K) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.mu.underWay, key)
}
