package peer

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// MachineTime is CPU time of the whole machine, summed over its cores.
type MachineTime struct {
	// Busy is what was used by anybody, or taken by a hypervisor; All includes idle time.
	Busy, All time.Duration
}

// ReadMachineTime reads the machine's CPU time so far.
func ReadMachineTime() (MachineTime, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return MachineTime{}, fmt.Errorf("read the machine's CPU time: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return parseMachineTime(first)
}

// parseMachineTime reads the "cpu" line of proc(5): user nice system idle iowait irq
// softirq steal; guest times, which follow, are part of user time already.
func parseMachineTime(line string) (MachineTime, error) {
	fields := strings.Fields(line)
	const names, idle, iowait = 8, 3, 4
	if len(fields) < 1+names || fields[0] != "cpu" {
		return MachineTime{}, fmt.Errorf("read the machine's CPU time: %q is not a cpu line", line)
	}
	var t MachineTime
	for i, field := range fields[1 : 1+names] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return MachineTime{}, fmt.Errorf("read the machine's CPU time: %w", err)
		}
		d := time.Duration(n) * clockTick
		t.All += d
		if i != idle && i != iowait {
			t.Busy += d
		}
	}
	return t, nil
}
