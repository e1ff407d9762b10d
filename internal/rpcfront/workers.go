package rpcfront

import "sync"

// idleWorkersMax is how many goroutines wait for jobs. Beyond them each job gets its own, and grows its
// stack anew.
const idleWorkersMax = 1024

// workers are goroutines that live on, with stacks as large as requests need. Who worked last works next:
// its stack is still in a processor's cache.
type workers struct {
	running sync.WaitGroup
	mu      struct {
		sync.Mutex
		idle    []chan job
		stopped bool
	}
}

type job interface{ run() }

// do has a job done, soon. It does not wait.
func (w *workers) do(j job) {
	w.mu.Lock()
	n := len(w.mu.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		w.running.Go(func() { w.work(j) })
		return
	}
	next := w.mu.idle[n]
	w.mu.idle = w.mu.idle[:n]
	w.mu.Unlock()
	next <- j
}

// keep has a job done that may last: no worker's stack is kept from others for it.
func (w *workers) keep(j job) { w.running.Go(j.run) }

func (w *workers) work(j job) {
	next := make(chan job, 1)
	for ok := true; ok; j, ok = <-next {
		j.run()
		j = nil // not kept from the collector while idle
		if !w.rest(next) {
			return
		}
	}
}

// rest has a worker wait for the next job, unless enough do.
func (w *workers) rest(next chan job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.stopped || len(w.mu.idle) == idleWorkersMax {
		return false
	}
	w.mu.idle = append(w.mu.idle, next)
	return true
}

// stop returns when all jobs are done. There must not be new ones.
func (w *workers) stop() {
	w.mu.Lock()
	w.mu.stopped = true
	for _, next := range w.mu.idle {
		close(next)
	}
	w.mu.idle = nil
	w.mu.Unlock()
	w.running.Wait()
}
