package node

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/shard/apply"
)

// memory is what of a node's budget its parts may take, so that together they leave room for what
// is not counted by itself: the program, connections, requests that are read, and garbage.
type memory struct {
	cache   int64            // of the store: blocks of tables, and what is not in tables yet
	backlog int64            // what replicas have applied and not stored
	room    admission.Bounds // what was taken in and not answered
	headers int              // keys whose latest revision is kept, over all shards, so that a put need not look it up
	packed  int              // bytes of more of them, at about 20 bytes plus the key each
	rows    int              // slots of latest versions that were read, of two each, of 1 KiB at most
	trails  int              // where changes are that watches catch up with
	raft    uint64           // each queue of Raft's: replica.RaftConfig.QueueBytes
}

const (
	// headerBytes is what a header with its key takes, about.
	headerBytes = 200
	// backlogBytesMax: several busy shards share it. Together they fill batches as one of them would alone, and
	// more than three such batches make nothing cheaper. Of the least budget the half of it is still one that the store
	// makes a table of at once (gatherBytes of shard/apply).
	backlogBytesMax = 48 << 20
)

// share divides a budget (D5).
func share(budget int64) memory {
	return memory{
		cache:   budget / 4,
		backlog: min(budget/7, backlogBytesMax),
		room:    admission.Bounds{Requests: budget / (64 << 10), Bytes: budget / 8},
		headers: int(budget / 40 / headerBytes),
		packed:  int(budget / 40 * 3),
		rows:    int(budget / (16 << 10)),
		trails:  int(budget / 64),
		raft:    uint64(budget / 16),
	}
}

// memoryParts are those that count what they take.
func (n *Node) memoryParts(m memory, o apply.Options) []memoryPart {
	store := func() float64 {
		got := n.engine.Metrics()
		return float64(got.BlockCache.Size) + float64(got.MemTable.Size)
	}
	return []memoryPart{
		{"store", n.cfg.CacheBytes, store},
		{"backlog", m.backlog, func() float64 { return float64(o.Backlog.Bytes()) }},
		{"headers", int64(m.headers)*headerBytes + int64(m.packed), func() float64 {
			return headerBytes*float64(m.headers-o.Headers.Left()) + float64(o.Headers.PackedBytes())
		}},
		{"requests", m.room.Bytes, func() float64 { return float64(n.room.Bytes()) }},
		{"trails", int64(m.trails), func() float64 { return float64(o.Trails.Bytes()) }},
	}
}

const (
	// memoryMin is the least budget: the store alone may have 128 MiB that is not in tables yet.
	memoryMin = 256 << 20
	// memoryDefaultMax bounds the default: more makes only large stores faster.
	memoryDefaultMax = 1 << 30
)

// defaultMemory is half of what the machine has, or three quarters of what this process may take of it, which
// leaves some to the page cache; at most memoryDefaultMax.
func defaultMemory(machine, allowed int64) int64 {
	return min(max(min(machine/2, allowed/4*3), memoryMin), memoryDefaultMax)
}

// taken is what a process takes of memory at some time.
type taken struct {
	live        int64  // of Go's heap, when it was last collected
	mapped      int64  // by Go from the system, garbage and what is free included
	resident    int64  // all of the process; less than mapped where the system does not tell
	loose       int64  // of Go's heap: garbage, and what is free and not given back
	collections uint64 // of garbage, since the process began
}

// collecting says how Go collects garbage.
type collecting struct {
	percent int   // GOGC
	limit   int64 // GOMEMLIMIT
	// short: what is live leaves no room for what comes with requests (D5).
	short bool
}

const (
	// percentMax is while the heap is small: at Go's 100 a tenth of the CPU under load went into
	// collecting it.
	percentMax = 300
	// percentMin is Go's own: a heap that is large anyway may double, until the limit keeps it from that.
	percentMin = 100
	// garbagePart of the budget, the twelfth part, may be garbage meanwhile. With the twenty-fourth transactions on eight
	// shards were a tenth fewer, for a fifth less memory; with three times what is live, whatever that was, servers took twice the memory.
	garbagePart = 12
)

// collect decides how garbage is collected in a process that has a budget. What counts in it outside of Go's heap
// Go cannot know.
func collect(budget int64, t taken) collecting {
	outside := max(0, t.resident-t.mapped)
	return collecting{
		percent: int(min(max(100*(budget/garbagePart)/max(t.live, 1), percentMin), percentMax)),
		limit:   max(budget-outside, budget/4),
		short:   t.live+outside > budget/8*7,
	}
}

// KeepMemory keeps a process that runs nothing but these nodes within the sum of their budgets, until ctx ends. An
// operator who has set GOGC or GOMEMLIMIT has decided that.
func KeepMemory(ctx context.Context, nodes ...*Node) {
	k := newKeptMemory(setCollector, debug.FreeOSMemory, nodes...)
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.look(takenNow())
		case <-ctx.Done():
			return
		}
	}
}

// keptMemory is what KeepMemory has decided so far.
type keptMemory struct {
	budget int64 // immutable, like set, giveBack and nodes
	set    func(collecting)
	// giveBack collects garbage and gives the system what is free.
	giveBack func()
	nodes    []*Node
	now      collecting
	// calm is how many looks in a row found that nothing was collected since the one before.
	calm        int
	collections uint64
}

func newKeptMemory(set func(collecting), giveBack func(), nodes ...*Node) *keptMemory {
	k := &keptMemory{set: set, giveBack: giveBack, nodes: nodes}
	for _, n := range nodes {
		k.budget += n.cfg.MemoryBytes
	}
	k.now = collect(k.budget, taken{})
	set(k.now)
	return k
}

// look acts on what the process takes now.
func (k *keptMemory) look(t taken) {
	k.calmDown(t)
	next := collect(k.budget, t)
	if next.differs(k.now) {
		k.set(next)
		k.now.percent, k.now.limit = next.percent, next.limit
	}
	if next.short == k.now.short {
		return
	}
	k.now.short = next.short
	for _, n := range k.nodes {
		n.room.Shorten(next.short)
		if next.short {
			n.log.Warn("memory is short, requests are refused; give the node more (--memory), or have clients ask for less",
				"live", t.live, "resident", t.resident, "budget", k.budget)
		} else {
			n.log.Info("memory suffices again", "live", t.live, "resident", t.resident)
		}
	}
}

const (
	// calmLooks in a row, half a minute, without a collection: the load is gone. Go would keep its garbage for two
	// minutes, and what is free then for as long as it takes to give it back at a hundredth of a processor.
	calmLooks = 60
	// loosePart of the budget, the sixty-fourth part, is worth a collection.
	loosePart = 64
)

// calmDown gives back what a load has left. While there is one, what is free is used again at once.
func (k *keptMemory) calmDown(t taken) {
	if k.calm++; t.collections != k.collections {
		k.calm, k.collections = 0, t.collections
	}
	if k.calm >= calmLooks && t.loose > k.budget/loosePart {
		k.calm = 0
		k.giveBack()
	}
}

func setCollector(c collecting) {
	if _, chosen := os.LookupEnv("GOGC"); !chosen {
		debug.SetGCPercent(c.percent)
	}
	if _, chosen := os.LookupEnv("GOMEMLIMIT"); !chosen {
		debug.SetMemoryLimit(c.limit)
	}
}

// memoryInterval is shorter than a collection and the next one are apart mostly.
const memoryInterval = time.Second / 2

// differs reports whether it is worth stopping all goroutines for a moment.
func (c collecting) differs(o collecting) bool {
	far := func(a, b int64) bool { return math.Abs(float64(a-b)) > float64(b)/16 }
	return far(int64(c.percent), int64(o.percent)) || far(c.limit, o.limit)
}

// takenNow looks at this process.
func takenNow() taken {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(samples)
	t := taken{
		live: int64(samples[0].Value.Uint64()), mapped: int64(samples[1].Value.Uint64() - samples[2].Value.Uint64()),
		collections: samples[5].Value.Uint64(),
	}
	t.loose = int64(samples[3].Value.Uint64()+samples[4].Value.Uint64()) - t.live
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		t.resident = residentBytes(string(statm))
	}
	return t
}

// residentBytes reads the second number of /proc/PID/statm, which counts pages.
func residentBytes(statm string) int64 {
	fields := strings.Fields(statm)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
