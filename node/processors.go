package node

import (
	"bytes"
	"os"
	"strconv"
)

// processors tells how busy the machine's processors are, whoever keeps them busy. It is
// for one caller at a time.
type processors struct {
	idle, all float64 // when it was last asked, in ticks of the kernel
}

// busy returns which part of the processors' time was in use since it was last called; 0
// where the kernel does not tell, and within its clock's tick.
func (p *processors) busy() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	idle, all := processorTime(stat)
	if all <= p.all {
		return 0
	}
	part := 1 - (idle-p.idle)/(all-p.all)
	p.idle, p.all = idle, all
	return part
}

// processorTime reads the first line of /proc/stat: user, nice, system, idle, waiting for the disk, ….
func processorTime(stat []byte) (idle, all float64) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	for i, field := range bytes.Fields(line) {
		ticks, err := strconv.ParseFloat(string(field), 64)
		if err != nil {
			continue // "cpu"
		}
		all += ticks
		if i == 4 || i == 5 {
			idle += ticks
		}
	}
	return idle, all
}
