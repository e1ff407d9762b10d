package node

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/shard"
)

// What the parts of a node may take leaves room for garbage, for the program and for what is not counted, and
// grows with the budget.
func TestSharesOfMemory(t *testing.T) {
	var last memory
	for budget := int64(memoryMin); budget <= 64<<30; budget *= 2 {
		m := share(budget)
		const rowBytes, rowsOfSlot = 1100, 2
		sum := m.cache + m.backlog + m.room.Bytes + m.answers.Sum() + m.toNodes.Sum() + int64(m.headers)*headerBytes + int64(m.packed) + int64(m.rows)*rowsOfSlot*rowBytes + int64(m.trails)
		require.Less(t, sum, budget/5*4)
		require.Greater(t, sum, budget/2)
		require.Positive(t, m.room.Requests)
		require.Greater(t, m.cache, last.cache)
		require.GreaterOrEqual(t, m.backlog, last.backlog)
		last = m
	}
	c := Config{MemoryBytes: 1 << 30}.withDefaults()
	require.Equal(t, int64(256<<20), c.CacheBytes)
	c = Config{MemoryBytes: 1 << 30, CacheBytes: 5}.withDefaults()
	require.Equal(t, int64(5), c.CacheBytes, "what was chosen stays")
	require.Error(t, Config{Name: "n", DataDir: "d", ClientAddr: "127.0.0.1:1", PeerAddr: "127.0.0.1:2", MemoryBytes: memoryMin - 1}.Validate())
}

func TestDefaultMemory(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ machine, allowed, want int64 }{
		{math.MaxInt64, math.MaxInt64, 1024}, // it is not said
		{8 << 30, math.MaxInt64, 1024},
		{24 << 30, math.MaxInt64, 3072},
		{1 << 40, math.MaxInt64, 8192},
		{24 << 30, 2 << 30, 1536},
		{1 << 30, math.MaxInt64, 512},
		{64 << 30, 512 * mib, 384},
		{1 << 30, 900 * mib, 512},
		{300 * mib, 200 * mib, 256}, // with less it would not work well
	} {
		require.Equal(t, c.want*mib, defaultMemory(c.machine, c.allowed), "%d %d", c.machine, c.allowed)
	}
}

func TestMachineMemory(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	none := int64(math.MaxInt64)
	for name, c := range map[string]struct {
		files            fstest.MapFS
		machine, allowed int64
	}{
		"nothing is known": {nil, none, none},
		"no groups":        {fstest.MapFS{"proc/meminfo": file("MemTotal:        2048 kB\nMemFree: 1 kB\n")}, 2 << 20, none},
		"one hierarchy, the parent's limit counts": {fstest.MapFS{
			"proc/self/cgroup":                                       file("0::/system.slice/flotilla.service\n"),
			"sys/fs/cgroup/system.slice/memory.max":                  file("5000\n"),
			"sys/fs/cgroup/system.slice/flotilla.service/memory.max": file("max\n"),
		}, none, 5000},
		"a container": {fstest.MapFS{
			"proc/self/cgroup":         file("0::/not/seen/from/here\n"),
			"sys/fs/cgroup/memory.max": file("7000\n"),
		}, none, 7000},
		"hierarchies of old": {fstest.MapFS{
			"proc/self/cgroup":                                  file("9:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":        file("9223372036854771712\n"),
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes":    file("6000\n"),
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":      file("8000\n"),
			"sys/fs/cgroup/cpu,cpuacct/a/memory.limit_in_bytes": file("1\n"),
		}, none, 6000},
	} {
		machine, allowed := machineMemory(c.files)
		require.Equal(t, []int64{c.machine, c.allowed}, []int64{machine, allowed}, name)
	}
}

// Garbage has a part of the budget while what is live has less; from there on it may be as much as that, and
// never more than the budget leaves.
func TestGarbageIsCollectedByTheBudget(t *testing.T) {
	const budget, mib = 1 << 30, 1 << 20
	for _, c := range []struct {
		live, outside int64
		want          collecting
	}{
		{0, 0, collecting{300, budget, false}},
		{16 * mib, 30 * mib, collecting{300, budget - 30*mib, false}},
		{50 * mib, 30 * mib, collecting{170, budget - 30*mib, false}},
		{90 * mib, 286 * mib, collecting{100, budget - 286*mib, false}},
		{600 * mib, 286 * mib, collecting{100, budget - 286*mib, false}},
		{620 * mib, 286 * mib, collecting{100, budget - 286*mib, true}},
		{100 * mib, 2 * budget, collecting{100, budget / 4, true}}, // never so little that all it does is to collect
	} {
		mapped := 2 * c.live
		require.Equal(t, c.want, collect(budget, budget, taken{live: c.live, mapped: mapped, resident: mapped + c.outside}), "%d %d", c.live, c.outside)
	}
	require.False(t, collect(budget, budget, taken{live: mib, mapped: 2 * mib}).short, "the system does not tell")
	// Packed headers do not make room for more of it.
	require.Equal(t, 15, collect(3*budget, budget, taken{live: 550 * mib, packed: 500 * mib}).percent)
	require.Equal(t, 40, collect(3*budget, budget, taken{live: 700 * mib, packed: 420 * mib}).percent)
	require.Equal(t, percentMin, collect(3*budget, budget, taken{live: 1200 * mib, packed: 1195 * mib}).percent)
}

// While what is live leaves no room, nodes take in nothing more; all of them share the process.
func TestNodesShortOfMemoryRefuse(t *testing.T) {
	nodes := []*Node{newTestNode(t, 300<<20), newTestNode(t, 300<<20)}
	var set []collecting
	k := newKeptMemory(func(c collecting) { set = append(set, c) }, func() {}, nodes...)
	require.Equal(t, []collecting{{percentMax, 600 << 20, false}}, set)
	takesIn := func(want error) {
		t.Helper()
		for _, n := range nodes {
			_, err := n.room.Take(admission.Write, 1)
			require.ErrorIs(t, err, want)
		}
	}
	k.look(taken{live: 1 << 20, mapped: 2 << 20, resident: 2 << 20})
	require.Len(t, set, 1, "nothing has changed")
	takesIn(nil)
	k.look(taken{live: 550 << 20, mapped: 560 << 20, resident: 560 << 20})
	require.Equal(t, 100, set[1].percent)
	takesIn(shard.ErrOverloaded)
	k.look(taken{live: 50 << 20, mapped: 560 << 20, resident: 560 << 20})
	takesIn(nil)
}

// What a load leaves in memory is given back when it is gone, once; while there is one nothing is.
func TestMemoryIsGivenBack(t *testing.T) {
	const budget = 1 << 30
	gaveBack := 0
	k := newKeptMemory(func(collecting) {}, func() { gaveBack++ })
	k.budget = budget
	loaded := taken{live: budget / 32, mapped: budget / 8, loose: budget / 16, collections: 7}
	for range 3 * calmLooks {
		loaded.collections++
		k.look(loaded)
	}
	require.Zero(t, gaveBack)
	for range calmLooks {
		k.look(loaded)
	}
	require.Equal(t, 1, gaveBack)
	after := taken{live: budget / 32, mapped: budget / 8, loose: budget / 64, collections: loaded.collections + 1}
	for range 3 * calmLooks {
		k.look(after)
	}
	require.Equal(t, 1, gaveBack, "there is little to give back")
}

func newTestNode(t *testing.T, memory int64) *Node {
	n, err := New(Config{Name: "n1", DataDir: t.TempDir(), ClientAddr: "127.0.0.1:0", PeerAddr: "127.0.0.1:0", MemoryBytes: memory})
	require.NoError(t, err)
	t.Cleanup(n.Close)
	return n
}

// What the process takes is known where tests run.
func TestTakenNow(t *testing.T) {
	got := takenNow()
	require.Positive(t, got.mapped)
	runtime.GC()
	require.Greater(t, takenNow().collections, got.collections)
	debug.FreeOSMemory()
	require.Less(t, takenNow().loose, int64(32<<20), "nothing is free")
	require.Positive(t, residentBytes("100 20 3 4 0 5 0\n"))
	require.Zero(t, residentBytes(""))
	require.Zero(t, residentBytes("1 x"))
}
