package proccluster

import "syscall"

// childAttr makes a child die with the test (P1), and keeps the terminal's signals
// from it: the test decides how a node ends.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
