package node

import (
	"context"
	"sync"
)

// jobs run beside a loop that keeps looking: one at a time per key, and a limited number
// altogether. A job that is requested while another with its key runs is dropped, because it was
// decided before that one took effect: the loop will look again.
type jobs[K comparable] struct {
	slots chan struct{}
	work  sync.WaitGroup

	mu struct {
		sync.Mutex
		underWay map[K]bool
	}
}

// newJobs runs at most the given number of jobs at the same time; more of them wait.
func newJobs[K comparable](most int) *jobs[K] {
	j := &jobs[K]{slots: make(chan struct{}, most)}
	j.mu.underWay = make(map[K]bool)
	return j
}

// begin returns at once. A job that still waits when ctx ends is dropped.
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

// wait returns when all started jobs have ended.
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
