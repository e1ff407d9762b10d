//go:build !linux

package peer

import (
	"errors"
	"os/exec"
)

var errHoldBack = errors.New("hold back fsyncs: only Linux can")

// Hold is only there on Linux.
func Hold([]string) error { return errHoldBack }

func heldBack(*exec.Cmd, []string, func()) (listen func() error, err error) { return nil, errHoldBack }
