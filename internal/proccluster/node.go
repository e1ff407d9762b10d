package proccluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Spec is what a node keeps over all its runs.
type Spec struct {
	Name, DataDir                   string
	ClientAddr, PeerAddr, AdminAddr string
}

// Node is one place in the cluster: a process, or the lack of one. Its methods may be
// called from any goroutine.
type Node struct {
	Spec
	program  Program
	args     []string
	out      *output
	launcher *launcher

	mu  sync.Mutex
	run *run // nil before the first start
	// paused says that the current run is stopped by Pause.
	paused  bool
	crashes []string
}

// run is one life of a node's process.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and all its output is in
	// expected is set before the node is told to end.
	expected bool
}

func (r *run) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Start runs the node. It does not wait until it serves.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run != nil && !n.run.ended() {
		return fmt.Errorf("start %s: it is running", n.Name)
	}
	cmd := exec.Command(n.program.Path, n.args...)
	cmd.Env = append(cmd.Environ(), n.program.Env...)
	cmd.SysProcAttr = childAttr()
	stdout, stderr := &stream{out: n.out}, &stream{out: n.out}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	n.out.begin("start " + strings.Join(cmd.Args, " "))
	if err := n.launcher.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	r := &run{cmd: cmd, done: make(chan struct{})}
	n.run, n.paused = r, false
	go n.reap(r, stdout, stderr)
	return nil
}

// reap waits for the end of a run and notes whether it was asked for (P3).
func (n *Node) reap(r *run, streams ...*stream) {
	err := r.cmd.Wait()
	for _, s := range streams {
		s.flush()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !r.expected {
		n.crashes = append(n.crashes, fmt.Sprintf("%s ended on its own: %v", n.Name, endOf(err)))
	}
	close(r.done)
}

func endOf(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// WaitReady returns when the node has printed its ready line.
func (n *Node) WaitReady(ctx context.Context) error {
	n.mu.Lock()
	r, ready := n.run, n.out.readiness()
	n.mu.Unlock()
	if r == nil {
		return fmt.Errorf("wait for %s: it was never started", n.Name)
	}
	select {
	case <-ready:
		return nil
	case <-r.done:
		return fmt.Errorf("wait for %s: it ended before it was ready", n.Name)
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to be ready: %w", n.Name, ctx.Err())
	}
}

// Kill ends the node with SIGKILL and waits until it is gone. A node that is not
// running stays as it is.
func (n *Node) Kill() error {
	r, err := n.end(syscall.SIGKILL)
	if err != nil || r == nil {
		return err
	}
	<-r.done
	return nil
}

// Stop asks the node to end (SIGTERM) and waits for it. A paused node goes on first.
func (n *Node) Stop(ctx context.Context) error {
	if err := n.Resume(); err != nil {
		return err
	}
	r, err := n.end(syscall.SIGTERM)
	if err != nil || r == nil {
		return err
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", n.Name, ctx.Err())
	}
}

// end signals the current run and marks its end as wanted. It returns nil when
// nothing is running.
func (n *Node) end(sig syscall.Signal) (*run, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run == nil || n.run.ended() {
		return nil, nil
	}
	n.run.expected = true
	return n.run, n.signal(sig)
}

// Pause freezes the node (SIGSTOP): it keeps its connections and answers nothing. The
// kernel stops its threads one by one, so an answer may still slip out right after.
func (n *Node) Pause() error { return n.freeze(true, syscall.SIGSTOP) }

// Resume lets a paused node go on. A node that is not paused stays as it is.
func (n *Node) Resume() error { return n.freeze(false, syscall.SIGCONT) }

func (n *Node) freeze(paused bool, sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.paused == paused || n.run == nil || n.run.ended() {
		return nil
	}
	n.paused = paused
	return n.signal(sig)
}

// signal needs n.mu and a run.
func (n *Node) signal(sig syscall.Signal) error {
	// A process that has ended but is not reaped yet is as good as signalled.
	if err := n.run.cmd.Process.Signal(sig); err != nil && !isGone(err) {
		return fmt.Errorf("send %s to %s: %w", sig, n.Name, err)
	}
	return nil
}

// Restart kills the node if it runs, and starts it with the same arguments.
func (n *Node) Restart() error {
	if err := n.Kill(); err != nil {
		return err
	}
	return n.Start()
}

// Running reports whether the node's process exists, paused or not.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.run != nil && !n.run.ended()
}

// Tail returns the last lines that the node has printed.
func (n *Node) Tail() []string { return n.out.lastLines() }

func (n *Node) crashList() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.crashes...)
}

func isGone(err error) bool {
	return errors.Is(err, syscall.ESRCH) || errors.Is(err, os.ErrProcessDone)
}
