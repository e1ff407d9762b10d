package cmd

import (
	"context"
	"errors"
	"io"
)

// interruptible is standard input for a command that reads it to its end. Reads end with the command's context: those of a
// terminal or a pipe do not otherwise, so that an interrupt would do nothing.
type interruptible struct {
	ctx context.Context
	in  io.Reader
}

// Read implements io.Reader. After an interrupt the goroutine is abandoned, and with it what it may still read.
func (r interruptible) Read(p []byte) (int, error) {
	type result struct {
		data []byte // not p, which belongs to the caller after an interrupt
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data := make([]byte, len(p))
		n, err := r.in.Read(data)
		done <- result{data[:n], err}
	}()
	select {
	case got := <-done:
		return copy(p, got.data), got.err
	case <-r.ctx.Done():
		return 0, errors.New("interrupted")
	}
}
