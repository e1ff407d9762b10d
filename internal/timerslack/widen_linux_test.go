package timerslack

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const asProgram = "FLOTILLA_TEST_TIMERSLACK"

// The test binary is also a program that widens its slack and tells what its other threads have.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	if err := Widen(); err != nil {
		panic(err)
	}
	runtime.LockOSThread() // so that the goroutine below is another thread's
	threads := make(chan time.Duration)
	go func() {
		runtime.LockOSThread()
		slack, err := current()
		if err != nil {
			panic(err)
		}
		threads <- slack
	}()
	fmt.Println(os.Getpid(), strings.Join(os.Args[1:], " "), <-threads)
	os.Exit(0)
}

// A process with the kernel's slack gets the wanted one and stays the same process. A slack that somebody has chosen stays.
func TestWiden(t *testing.T) {
	runtime.LockOSThread() // never given back: the thread has an odd slack
	for _, c := range []struct{ given, got time.Duration }{{kernelDefault, Wanted}, {70 * time.Microsecond, 70 * time.Microsecond}} {
		require.NoError(t, set(c.given)) // which a child inherits
		child := exec.Command(os.Args[0], "-some", "words")
		child.Env = append(os.Environ(), asProgram+"=1")
		out, err := child.Output()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintln(child.Process.Pid, "-some words", c.got), string(out))
	}
}
