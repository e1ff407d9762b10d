package timerslack

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Widen gives all threads of this process the slack that is wanted. If they have the kernel's default it executes the process
// anew, with the same arguments, environment and process ID, and does not return. So it is called before anything is opened.
// It returns nil if they have another slack: it was called before, or whoever started the process
// has chosen one (TimerSlackNSec= of systemd). After an error the process goes on as it was.
func Widen() error {
	runtime.LockOSThread() // the slack is a thread's
	defer runtime.UnlockOSThread()
	now, err := current()
	if err != nil || now != kernelDefault {
		return err
	}
	self, err := os.Executable() // by its name, which is what ps and pkill know it by
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := set(Wanted); err != nil {
		return err
	}
	err = syscall.Exec(self, os.Args, os.Environ())
	return errors.Join(fmt.Errorf("execute this program again with a timer slack of %s: %w", Wanted, err), set(kernelDefault))
}

// current is the slack of this thread.
func current() (time.Duration, error) {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("read the timer slack: %w", err)
	}
	return time.Duration(n), nil
}

func set(slack time.Duration) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack to %s: %w", slack, err)
	}
	return nil
}
