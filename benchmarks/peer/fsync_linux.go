package peer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel hands a process's fsyncs to another process before it carries them out (seccomp's
// user notifications), which lets them go on when it likes. That works for any server, however it
// was built and whatever file system it is on, and costs its other system calls nothing.
//
//	load ──starts──> holder ──filter──> becomes the server
//	  ^                 │                   │ fsync
//	  └──── listener ───┘                   v
//	  waits, then says "go on" <──────── kernel

// holderSocket is the holder's end of a socket: the first of its extra files.
const holderSocket = 3

// Hold becomes a command whose fsyncs are delayed by the process that started this one through
// heldBack.
func Hold(command []string) error {
	if len(command) == 0 {
		return errors.New("hold back fsyncs: of no command")
	}
	binary, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("hold back fsyncs: %w", err)
	}
	runtime.LockOSThread() // the filter is this thread's, which becomes the server
	listener, err := filterFsyncs()
	if err != nil {
		return fmt.Errorf("hold back fsyncs: install a filter: %w", err)
	}
	if err := unix.Sendmsg(holderSocket, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return fmt.Errorf("hold back fsyncs: hand over: %w", err)
	}
	unix.CloseOnExec(holderSocket)
	err = syscall.Exec(binary, command, os.Environ())
	return fmt.Errorf("hold back fsyncs: start %s: %w", binary, err)
}

// filterFsyncs has fsync and fdatasync of this thread, and of what it becomes, wait for who
// listens.
func filterFsyncs() (listener int, err error) {
	const number = 0 // where the system call's number is in what a filter looks at
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jt: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FDATASYNC, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	// Once somebody has heard of one, only death ends its wait: Go's signals to its threads
	// would start it again.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if failed != 0 {
		return 0, failed
	}
	return int(fd), nil
}

// heldBack has a command wait with each of its fsyncs until wait returns. holder is the command
// that runs Hold. listen is called after the command was started, and returns when it has ended, or with an
// error when nothing is held back.
func heldBack(cmd *exec.Cmd, holder []string, wait func()) (listen func() error, err error) {
	binary, err := exec.LookPath(holder[0])
	if err != nil {
		return nil, fmt.Errorf("hold back fsyncs: %w", err)
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold back fsyncs: %w", err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "holder")
	cmd.Path, cmd.Args = binary, append(append([]string{}, holder...), cmd.Args...)
	cmd.ExtraFiles = []*os.File{theirs}
	return func() error {
		_ = theirs.Close() // they have it now, or nobody will
		listener, err := receiveListener(ends[0])
		_ = unix.Close(ends[0]) // nothing more comes
		if err != nil {
			return fmt.Errorf("hold back fsyncs: nobody hands them over: %w", err)
		}
		defer unix.Close(listener)
		return letGo(listener, wait)
	}, nil
}

// receiveListener waits for what Hold hands over.
func receiveListener(socket int) (int, error) {
	data, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, size, _, _, err := unix.Recvmsg(socket, data, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, errors.New("it ended before")
	}
	messages, err := unix.ParseSocketControlMessage(rights[:size])
	if err != nil {
		return 0, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// notification and verdict are seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	data       [64]byte
}

type verdict struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// letGo lets every fsync go on when wait has returned, each by itself, until nobody is left to
// ask.
func letGo(listener int, wait func()) error {
	var waiting sync.WaitGroup
	defer waiting.Wait() // they use the listener
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		_, err := unix.Poll(poll, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("hold back fsyncs: %w", err)
		case poll[0].Revents&unix.POLLIN == 0:
			return nil // the process is gone
		}
		var asked notification
		err = control(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&asked))
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT): // who asked is gone
			continue
		case err != nil:
			return fmt.Errorf("hold back fsyncs: %w", err)
		}
		waiting.Go(func() {
			wait()
			goOn := verdict{id: asked.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
			_ = control(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&goOn)) // fails when who asked is gone
		})
	}
}

func control(fd int, request uint, argument unsafe.Pointer) error {
	if _, _, failed := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(argument)); failed != 0 {
		return failed
	}
	return nil
}
