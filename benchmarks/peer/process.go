package peer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopGrace is how long a server may take to stop when asked before it is killed.
const stopGrace = 10 * time.Second

// process is one started server.
type process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when the process is gone
}

func startProcess(binary string, args []string, logPath string, fsyncs SlowFsyncs) (*process, error) {
	// One log over all starts.
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", filepath.Base(binary), err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C ends this program, which then stops its servers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	listen := func() error { return nil }
	if fsyncs.Delay > 0 {
		if listen, err = heldBack(cmd, fsyncs.Holder, func() { time.Sleep(fsyncs.Delay) }); err != nil {
			return nil, errors.Join(err, log.Close())
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", binary, err), listen(), log.Close())
	}
	go func() {
		if err := listen(); err != nil {
			_, _ = fmt.Fprintln(log, err)
			_ = cmd.Process.Kill() // what is not held back must not be measured
		}
	}()
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended shows in its log; that it ended is what counts
	}()
	return p, nil
}

// stop asks the process to end, kills it if it does not, and waits until it is gone. It
// does nothing to one that was stopped before.
func (p *process) stop() error {
	if p.log == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it is gone already
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return p.closeLog()
}

// kill ends the process as a power cut would, but that what it wrote stays written.
func (p *process) kill() error {
	_ = p.cmd.Process.Kill() // fails only when it is gone already
	<-p.done
	return p.closeLog()
}

func (p *process) closeLog() error {
	err := p.log.Close()
	p.log = nil
	return err
}

// logTail is the end of what the process said, for error messages.
func (p *process) logTail() string {
	const tailBytesMax = 2 << 10
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailBytesMax):])
}
