package node

import (
	"bytes"
	"os"
	"strconv"
)

// processors measures how busy the CPUs that this process may use are, with the work of all processes. Only one
// caller may use it.
type processors struct {
	idle, all float64 // at the last call, in ticks of the kernel
}

// busy returns the utilisation since the last call; 0 if the kernel does not report it, and within
// one tick of its clock.
func (p *processors) busy() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	idle, all := processorTime(stat, allowedProcessors(status))
	part := 0.0
	if all > p.all { // otherwise the set of CPUs has changed
		part = 1 - (idle-p.idle)/(all-p.all)
	}
	p.idle, p.all = idle, all
	return part
}

// allowedProcessors reads from /proc/PID/status which CPUs a process may use, as /proc/stat names
// them; none if that is not reported.
func allowedProcessors(status []byte) map[string]bool {
	_, rest, _ := bytes.Cut(status, []byte("\nCpus_allowed_list:"))
	list, _, _ := bytes.Cut(rest, []byte("\n"))
	names := make(map[string]bool)
	for part := range bytes.SplitSeq(bytes.TrimSpace(list), []byte(",")) { // "0-2,5"
		from, to, several := bytes.Cut(part, []byte("-"))
		first, err := strconv.Atoi(string(from))
		if err != nil {
			continue
		}
		last := first
		if several {
			if last, err = strconv.Atoi(string(to)); err != nil {
				continue
			}
		}
		for i := first; i <= last; i++ {
			names["cpu"+strconv.Itoa(i)] = true
		}
	}
	return names
}

// processorTime adds up the lines of the given CPUs in /proc/stat, or reads the first line, the
// total, if they are unknown: user, nice, system, idle, iowait, ….
func processorTime(stat []byte, of map[string]bool) (idle, all float64) {
	if len(of) == 0 {
		of = map[string]bool{"cpu": true}
	}
	for line := range bytes.Lines(stat) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || !of[string(fields[0])] {
			continue
		}
		for i, field := range fields[1:] {
			ticks, err := strconv.ParseFloat(string(field), 64)
			if err != nil {
				continue // not a number of the kernel
			}
			all += ticks
			if i == 3 || i == 4 {
				idle += ticks
			}
		}
	}
	return idle, all
}
