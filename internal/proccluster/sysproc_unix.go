//go:build unix && !linux

package proccluster

import "syscall"

// childAttr keeps the terminal's signals from a child: the test decides how a node
// ends. There is no way to tie it to the life of the test here.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
