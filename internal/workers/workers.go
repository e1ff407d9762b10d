// Package workers keeps idle goroutines for reuse. A job costs less on one of them than on a new goroutine, whose
// stack has to grow again.
//
// It owns the goroutines and has no queue: a job never waits for another.
package workers

import "sync"

// idleMax is how many goroutines wait for jobs. Beyond them each job gets its own.
const idleMax = 1024

// Job is what a goroutine is needed for.
type Job interface{ Run() }

// Func is a Job.
type Func func()

// Run implements Job.
func (f Func) Run() { f() }

// Pool are goroutines that live on. Who worked last works next: its stack is still in a processor's cache. The
// zero Pool is ready.
type Pool struct {
	running sync.WaitGroup
	mu      struct {
		sync.Mutex
		idle   []chan Job
		closed bool
	}
}

// Do has a job done, soon. It does not wait.
func (p *Pool) Do(j Job) {
	p.mu.Lock()
	n := len(p.mu.idle) - 1
	if n < 0 {
		p.running.Go(func() { p.work(j) })
		p.mu.Unlock()
		return
	}
	next := p.mu.idle[n]
	p.mu.idle = p.mu.idle[:n]
	p.mu.Unlock()
	next <- j
}

// Keep has a job done that may last: no goroutine that waits is taken from others for it.
func (p *Pool) Keep(j Job) { p.running.Go(j.Run) }

func (p *Pool) work(j Job) {
	next := make(chan Job, 1)
	for ok := true; ok; j, ok = <-next {
		j.Run()
		j = nil // not kept from the collector while idle
		if !p.rest(next) {
			return
		}
	}
}

// rest has a goroutine wait for the next job, unless enough do.
func (p *Pool) rest(next chan Job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed || len(p.mu.idle) == idleMax {
		return false
	}
	p.mu.idle = append(p.mu.idle, next)
	return true
}

// Close ends the goroutines that wait, and the others after their jobs.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.closed = true
	for _, next := range p.mu.idle {
		close(next)
	}
	p.mu.idle = nil
}

// Wait returns, after Close, when all jobs are done. There must not be new ones.
func (p *Pool) Wait() { p.running.Wait() }
