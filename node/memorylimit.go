package node

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// machineMemory returns how much memory the machine has, and how much of it this process may use; memoryUnknown where
// the system does not say. root is the file system.
func machineMemory(root fs.FS) (machine, allowed int64) {
	machine, allowed = memoryUnknown, memoryUnknown
	meminfo, _ := fs.ReadFile(root, "proc/meminfo")
	if _, rest, found := strings.Cut(string(meminfo), "MemTotal:"); found {
		if fields := strings.Fields(rest); len(fields) > 0 {
			if kib, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				machine = kib << 10
			}
		}
	}
	groups, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(groups)) { // 0::/path, or with the old hierarchies 9:memory:/path
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) < 3:
		case fields[1] == "":
			allowed = min(allowed, groupMemory(root, "sys/fs/cgroup", fields[2], "memory.max"))
		case fields[1] == "memory":
			allowed = min(allowed, groupMemory(root, "sys/fs/cgroup/memory", fields[2], "memory.limit_in_bytes"))
		}
	}
	return machine, allowed
}

// groupMemory returns the smallest limit of a control group and its ancestors. In a container, the group's path may
// not exist; its own files are then at the top.
func groupMemory(root fs.FS, mount, group, file string) int64 {
	least := int64(memoryUnknown)
	for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
		data, _ := fs.ReadFile(root, path.Join(mount, dir, file))
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil { // otherwise it is "max", or missing
			least = min(least, limit)
		}
		if dir == "/" {
			return least
		}
	}
}
