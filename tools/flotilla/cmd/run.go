package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// childGrace is how long a command may take to end after it was interrupted.
const childGrace = 10 * time.Second

// run runs a command with this process's streams and additional environment variables. If ctx ends
// it is interrupted. If it fails, its exit code becomes this command's.
func (s *session) run(ctx context.Context, command []string, env ...string) error {
	child := exec.CommandContext(ctx, command[0], command[1:]...)
	child.Env = append(os.Environ(), env...)
	child.Stdin, child.Stdout, child.Stderr = s.in, s.out, s.err
	child.Cancel = func() error { return child.Process.Signal(os.Interrupt) }
	child.WaitDelay = childGrace
	err := child.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.ExitCode() > 0 {
		return &failure{ended.ExitCode(), fmt.Errorf("%s: %w", command[0], err)}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", command[0], err)
	}
	return nil
}
