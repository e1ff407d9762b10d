package proccluster

import (
	"os/exec"
	"runtime"
)

// launcher starts processes from one thread that lives as long as the cluster. The
// kernel's "die with your parent" speaks of the parent's thread, not of its process:
// a child started from a passing thread could be killed when Go ends that thread.
type launcher struct {
	jobs chan launch
	done chan struct{}
}

type launch struct {
	cmd *exec.Cmd
	err chan error
}

func newLauncher() *launcher {
	l := &launcher{jobs: make(chan launch), done: make(chan struct{})}
	go l.run()
	return l
}

func (l *launcher) run() {
	defer close(l.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for job := range l.jobs {
		job.err <- job.cmd.Start()
	}
}

func (l *launcher) start(cmd *exec.Cmd) error {
	job := launch{cmd: cmd, err: make(chan error, 1)}
	l.jobs <- job
	return <-job.err
}

// close ends the thread. All children must be gone.
func (l *launcher) close() {
	close(l.jobs)
	<-l.done
}
