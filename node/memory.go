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
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// memory divides a node's budget among its parts. Together they leave room for everything that is not counted
// separately: the program, connections, requests being read, and garbage.
type memory struct {
	cache   int64                  // of the store: blocks of tables, and the memtables
	backlog int64                  // what replicas have applied but not stored yet
	room    admission.Bounds       // accepted but unanswered requests
	answers admission.AnswerBounds // until clients have taken them
	toNodes admission.AnswerBounds // the same, for other nodes
	headers int                    // keys of which the latest revision is cached, over all shards, so that a put need not look it up
	packed  int                    // bytes for more of them in packed form, at about 20 bytes each plus the key
	rows    int                    // slots for latest versions that were read: two versions each, of at most 1 KiB
	trails  int                    // places of changes, with which watches catch up
	raft    uint64                 // each of Raft's queues: replica.RaftConfig.QueueBytes
}

const (
	// headerBytes is roughly the memory of a header and its key.
	headerBytes = 200
	// backlogBytesMax is shared by several busy shards. Together they fill batches as a single shard would, and more
	// than three such batches save nothing. With the smallest budget, half of the backlog is still large enough for
	// the store to make a table of it at once (gatherBytes of shard/apply).
	backlogBytesMax = 28 << 20
	// storingBytesMax is what the backlog takes together with the batches in which it is on its way to tables.
	storingBytesMax = 48 << 20
)

// usualBytes is the budget beyond which more helps only stores with many keys: then a quarter of what is more is for
// packed headers, and other caches of objects, which garbage collection has to follow, stay as they are.
const usualBytes = 1 << 30

// share divides a budget (D5).
func share(budget int64) memory {
	usual := min(budget, usualBytes)
	backlog := min(budget/7, backlogBytesMax)
	// Of a small budget answers get what the other parts leave. A larger one has more than storing takes: half of
	// that is theirs too.
	answers := budget/32 + max(0, budget/7-storingBytesMax)/2
	return memory{
		cache:   budget / 4,
		backlog: backlog,
		room:    admission.Bounds{Requests: budget / (64 << 10), Bytes: budget / 8},
		answers: answerBounds(answers / 4 * 3),
		toNodes: answerBounds(answers / 4),
		headers: int(usual / 40 / headerBytes),
		packed:  int(usual/40*3 + (budget-usual)/4),
		rows:    int(usual / (16 << 10)),
		trails:  int(budget / 64),
		raft:    uint64(budget / 16),
	}
}

// answerBounds divides what answers may take together.
func answerBounds(bytes int64) admission.AnswerBounds {
	return admission.AnswerBounds{Gets: bytes / 4, Pages: bytes / 8, Lists: bytes / 2, Writes: bytes / 8}
}

// memoryParts returns the parts that count their own memory.
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
		{"answers", m.answers.Sum() + m.toNodes.Sum(), func() float64 { return float64(n.answers.Bytes() + n.toNodes.Bytes()) }},
		{"trails", int64(m.trails), func() float64 { return float64(o.Trails.Bytes()) }},
	}
}

const (
	// memoryMin is the smallest budget: the store alone may have 96 MiB in memtables.
	memoryMin = 256 << 20
	// memoryDefaultMax bounds the default.
	memoryDefaultMax = 8 << 30
	// memoryUnknown is what machineMemory returns where the system does not tell.
	memoryUnknown = math.MaxInt64
)

// defaultMemory is an eighth of the machine's memory, or usualBytes if that is more, because a machine may have
// several nodes and the page cache needs most of it. It is at most half of the machine's memory, and three quarters of
// what this process may use.
func defaultMemory(machine, allowed int64) int64 {
	part := int64(usualBytes)
	if machine != memoryUnknown {
		part = max(part, min(machine/8, memoryDefaultMax))
	}
	return max(min(part, machine/2, allowed/4*3), memoryMin)
}

// taken is how much memory a process uses at one moment.
type taken struct {
	live        int64  // live data in Go's heap at the last collection
	packed      int64  // of that, packed headers, which cost a collection nothing
	mapped      int64  // mapped by Go from the system, including garbage and free memory
	resident    int64  // the whole process; less than mapped if the system does not report it
	loose       int64  // of Go's heap: garbage, and free memory that was not given back
	collections uint64 // garbage collections since the process began
}

// collecting says how Go collects garbage.
type collecting struct {
	percent int   // GOGC
	limit   int64 // GOMEMLIMIT
	// short: live data leaves no room for what requests bring (D5).
	short bool
}

const (
	// percentMax is used while the heap is small. With Go's default of 100, a tenth of the CPU time under load went
	// into garbage collection.
	percentMax = 300
	// percentMin keeps collections apart when nearly all that is live is packed headers.
	percentMin = 10
	// garbagePart: one twelfth of the budget, up to usualBytes, may be garbage between collections. With one
	// twenty-fourth, transactions on eight shards were a tenth slower for a fifth less memory. With three times the live
	// data, however large, servers took twice the memory.
	garbagePart = 12
)

// collect decides how garbage is collected in a process with a budget. Go does not know about memory outside its
// heap, so that is subtracted. usual is the budget without what nodes have beyond usualBytes.
func collect(budget, usual int64, t taken) collecting {
	outside := max(0, t.resident-t.mapped)
	// A heap that is large anyway may double, as by Go's default, until the limit prevents it.
	garbage := max(usual/garbagePart, t.live-t.packed)
	return collecting{
		percent: int(min(max(100*garbage/max(t.live, 1), percentMin), percentMax)),
		limit:   max(budget-outside, budget/4),
		short:   t.live+outside > budget/8*7,
	}
}

// KeepMemory keeps a process that runs only these nodes within the sum of their budgets, until ctx ends. It leaves
// Go's collector alone if the operator has set GOGC or GOMEMLIMIT.
func KeepMemory(ctx context.Context, nodes ...*Node) {
	engine.MapMemTables()
	k := newKeptMemory(setCollector, debug.FreeOSMemory, nodes...)
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.look(k.taken())
		case <-ctx.Done():
			return
		}
	}
}

// keptMemory is what KeepMemory has decided so far.
type keptMemory struct {
	budget int64 // immutable, like the next four
	usual  int64 // of the budget, not counting what nodes have beyond usualBytes
	set    func(collecting)
	// giveBack collects garbage and returns free memory to the system.
	giveBack func()
	nodes    []*Node
	now      collecting
	// calm is how many looks in a row found no collection since the previous look.
	calm        int
	collections uint64
}

func newKeptMemory(set func(collecting), giveBack func(), nodes ...*Node) *keptMemory {
	k := &keptMemory{set: set, giveBack: giveBack, nodes: nodes}
	for _, n := range nodes {
		k.budget += n.cfg.MemoryBytes
		k.usual += min(n.cfg.MemoryBytes, usualBytes)
	}
	k.now = collect(k.budget, k.usual, taken{})
	set(k.now)
	return k
}

// taken is what the process and its nodes take.
func (k *keptMemory) taken() taken {
	t := takenNow()
	for _, n := range k.nodes {
		t.packed += n.headers.PackedBytes()
	}
	return t
}

// look reacts to the present memory use.
func (k *keptMemory) look(t taken) {
	k.calmDown(t)
	next := collect(k.budget, k.usual, t)
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
	// calmLooks in a row without a collection, half a minute, mean that the load is gone. Go would keep its garbage
	// for two minutes, and then return free memory slowly, using a hundredth of a CPU.
	calmLooks = 60
	// loosePart: one sixty-fourth of the budget is worth a collection.
	loosePart = 64
)

// calmDown returns memory that a past load has left. Under load, free memory is used again at once.
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

// memoryInterval is mostly shorter than the time between two collections.
const memoryInterval = time.Second / 2

// differs reports whether the difference is worth stopping all goroutines for a moment.
func (c collecting) differs(o collecting) bool {
	far := func(a, b int64) bool { return math.Abs(float64(a-b)) > float64(b)/16 }
	return far(int64(c.percent), int64(o.percent)) || far(c.limit, o.limit)
}

// takenNow measures this process.
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
