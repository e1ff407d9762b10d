package peer

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Usage is the resource usage of processes since they started, except RSS, which is current.
type Usage struct {
	CPU time.Duration
	// RSSBytes is resident memory, file mappings included.
	RSSBytes int64
	// WrittenBytes is what was sent to the block layer (write_bytes of /proc/PID/io).
	WrittenBytes int64
	// WriteCalls counts write system calls, sockets included (syscw).
	WriteCalls int64
}

func (u Usage) plus(o Usage) Usage {
	return Usage{u.CPU + o.CPU, u.RSSBytes + o.RSSBytes, u.WrittenBytes + o.WrittenBytes, u.WriteCalls + o.WriteCalls}
}

// Since is what was used between an earlier usage and this one; RSS stays as it is.
func (u Usage) Since(o Usage) Usage {
	return Usage{u.CPU - o.CPU, u.RSSBytes, u.WrittenBytes - o.WrittenBytes, u.WriteCalls - o.WriteCalls}
}

// OwnCPU is the processor time that this process has used.
func OwnCPU() (time.Duration, error) {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return 0, fmt.Errorf("read the CPU time of this process: %w", err)
	}
	return time.Duration(self.Utime.Nano() + self.Stime.Nano()), nil
}

// clockTick is the unit of CPU times in /proc: USER_HZ, which is 100 on every
// architecture Linux runs Go on.
const clockTick = 10 * time.Millisecond

func usageOf(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("read process times: %w", err)
	}
	u, err := parseStat(string(stat))
	if err != nil {
		return Usage{}, err
	}
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("read process I/O: %w", err)
	}
	for line := range strings.Lines(string(io)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("read process I/O %q: %w", line, err)
		}
		switch name {
		case "write_bytes":
			u.WrittenBytes = n
		case "syscw":
			u.WriteCalls = n
		}
	}
	return u, nil
}

// parseStat reads user time, system time and resident pages: fields 14, 15 and 24
// of proc(5). The command, field 2, may hold spaces; it ends at the last bracket.
func parseStat(stat string) (Usage, error) {
	_, rest, found := strings.Cut(stat, ")")
	for strings.Contains(rest, ")") {
		_, rest, _ = strings.Cut(rest, ")")
	}
	fields := strings.Fields(rest)
	const first = 3 // the number of the field after the command
	if !found || len(fields) <= 24-first {
		return Usage{}, fmt.Errorf("read process times: %q is not a stat line", stat)
	}
	var n [3]int64
	for i, field := range []int{14, 15, 24} {
		v, err := strconv.ParseInt(fields[field-first], 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("read process times, field %d: %w", field, err)
		}
		n[i] = v
	}
	return Usage{CPU: time.Duration(n[0]+n[1]) * clockTick, RSSBytes: n[2] * int64(os.Getpagesize())}, nil
}
