package report

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Machine describes what the numbers depend on besides the systems.
type Machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	MemoryGiB  int    `json:"memory_gib"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // of the data directories
	// Fsync is the median duration of writing and syncing 4 KiB in dir; 0 in reports from before it
	// was measured.
	Fsync time.Duration `json:"fsync_ns,omitempty"`
	Go    string        `json:"go"`
}

func (m Machine) String() string {
	disk := m.FileSystem
	if m.Fsync > 0 {
		disk += fmt.Sprintf(" (fsync %.2f ms)", float64(m.Fsync.Microseconds())/1000)
	}
	return fmt.Sprintf("%s, %d cores, %d GiB, Linux %s, data on %s, %s", m.CPU, m.Cores, m.MemoryGiB, m.Kernel, disk, m.Go)
}

const unknown = "unknown"

// ThisMachine describes the machine; dir is where the data will be.
func ThisMachine(dir string) (Machine, error) {
	m := Machine{CPU: unknown, Cores: runtime.NumCPU(), Kernel: unknown, FileSystem: fileSystem(dir), Go: runtime.Version()}
	for key, value := range pairs("/proc/cpuinfo") {
		if key == "model name" {
			m.CPU = value
		}
	}
	for key, value := range pairs("/proc/meminfo") {
		var kib int
		if n, _ := fmt.Sscanf(value, "%d kB", &kib); key == "MemTotal" && n == 1 {
			m.MemoryGiB = (kib + 1<<19) >> 20
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	var err error
	m.Fsync, err = fsync(dir)
	return m, err
}

// fsyncs is enough for a median, and takes a second on a slow disk.
const fsyncs = 100

// fsync is the median time of appending 4 KiB to a file in dir and syncing it.
func fsync(dir string) (median time.Duration, err error) {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return 0, fmt.Errorf("time the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	took, block := make([]time.Duration, fsyncs), make([]byte, 4<<10)
	for i := range took {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, fmt.Errorf("time the disk: %w", err)
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("time the disk: %w", err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// pairs yields the "key : value" lines of a file in /proc, none if it can't be read.
func pairs(path string) func(yield func(key, value string) bool) {
	return func(yield func(string, string) bool) {
		f, err := os.Open(path)
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			key, value, found := strings.Cut(lines.Text(), ":")
			if found && !yield(strings.TrimSpace(key), strings.TrimSpace(value)) {
				return
			}
		}
	}
}

// fileSystem is the type of the innermost mount that holds dir.
func fileSystem(dir string) string {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return unknown
	}
	longest, kind := -1, unknown
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		at := strings.TrimSuffix(fields[1], "/")
		if (dir == at || strings.HasPrefix(dir, at+"/")) && len(at) > longest {
			longest, kind = len(at), fields[2]
		}
	}
	return kind
}

// Commit identifies the measured source, which is in root; "+" says that it was modified. Outside
// of a repository root is "", and the commit unknown.
func Commit(ctx context.Context, root string) string {
	if root == "" {
		return unknown // git would look around where it is
	}
	text, err := exec.CommandContext(ctx, "git", "-C", root, "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return unknown
	}
	commit := strings.TrimSpace(string(text))
	if changes, err := exec.CommandContext(ctx, "git", "-C", root, "status", "--porcelain").Output(); err != nil || len(changes) > 0 {
		commit += "+"
	}
	return commit
}
