package robustness

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// Workload says what clients do.
type Workload struct {
	Clients int
	// Rate bounds the requests per second of all clients together: a history that is to be judged within seconds must
	// stay small.
	Rate float64
	// Timeout ends a request, which leaves a write with an unknown outcome. It is shorter than an election, so that
	// faults cause some of these.
	Timeout time.Duration
	Keys    Keyspace
	Mix     Mix
	// Watchers and Lessees are how many additional clients watch and hold leases.
	Watchers, Lessees int
	// LeaseTTL is the TTL with which leases are granted, in whole seconds.
	LeaseTTL Between
}

// Mix holds the weight of each kind of request.
type Mix struct {
	Put, Get, Delete int
	// Swap writes one key if it is as last seen, Group writes a whole group if its first key is, and GroupRead reads
	// a group at once.
	Swap, Group, GroupRead int
	// Range reads over several shards; Past reads a key or a range at a revision that
	// was reported before.
	Range, Past int
}

// defaultMix contains every kind.
func defaultMix() Mix {
	return Mix{Put: 30, Get: 18, Delete: 4, Swap: 12, Group: 12, GroupRead: 4, Range: 14, Past: 6}
}

// DefaultWorkload is sized for two cores, and for histories that can be judged in seconds.
func DefaultWorkload() Workload {
	return Workload{
		Clients: 16, Rate: 800, Timeout: 400 * time.Millisecond, Keys: newKeyspace(16, 4, 8), Mix: defaultMix(),
		// etcd grants no less than two seconds at its default election timeout.
		Watchers: 8, Lessees: 4, LeaseTTL: Between{2 * time.Second, 4 * time.Second},
	}
}

// generator decides what a client requests next. It is pure: the same seed and the same answers give the same
// requests.
type generator struct {
	client int
	rng    *rand.Rand
	load   Workload
	serial int
	// mods is what the client last saw of each key; 0 when absent.
	mods map[string]int64
	// reported are the latest revisions it was told, oldest first.
	reported []int64
}

// reportedMax is how far back, in answers, a client remembers revisions.
const reportedMax = 32

func newGenerator(client int, seed int64, load Workload) *generator {
	return &generator{
		client: client, rng: rand.New(rand.NewPCG(uint64(seed), uint64(client))),
		load: load, mods: make(map[string]int64),
	}
}

// next returns the next request.
func (g *generator) next() history.Request {
	m := g.load.Mix
	kinds := []struct {
		weight int
		make   func() history.Request
	}{
		{m.Put, func() history.Request { return history.Put(g.key(), g.value()) }},
		{m.Get, func() history.Request { return history.Get(g.key(), 0) }},
		{m.Delete, func() history.Request { return history.Delete(g.key()) }},
		{m.Swap, g.swap}, {m.Group, g.group}, {m.GroupRead, g.groupRead},
		{m.Range, func() history.Request { return g.span(0) }}, {m.Past, g.past},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	dice := g.rng.IntN(total)
	for _, k := range kinds {
		if dice < k.weight {
			return k.make()
		}
		dice -= k.weight
	}
	panic("weights do not add up")
}

func (g *generator) key() string {
	all := g.load.Keys.Plain()
	return all[g.rng.IntN(len(all))]
}

// value is unique in the whole run, which the checks rely on.
func (g *generator) value() string {
	g.serial++
	return fmt.Sprintf("c%d-%d", g.client, g.serial)
}

func (g *generator) swap() history.Request {
	key := g.key()
	return history.Request{
		If:   []history.Compare{{Key: key, Mod: g.mods[key]}},
		Then: []history.Action{{Kind: history.ActionPut, Key: key, Value: g.value()}},
		Else: []history.Action{{Kind: history.ActionGet, Key: key}},
	}
}

func (g *generator) pickGroup() []string {
	return g.load.Keys.Groups[g.rng.IntN(len(g.load.Keys.Groups))]
}

// group writes all keys of a group, or reads them if another client was faster. Sometimes it deletes the last key
// instead.
func (g *generator) group() history.Request {
	keys, value := g.pickGroup(), g.value()
	req := history.Request{If: []history.Compare{{Key: keys[0], Mod: g.mods[keys[0]]}}}
	for i, k := range keys {
		write := history.Action{Kind: history.ActionPut, Key: k, Value: value}
		if i == len(keys)-1 && g.rng.IntN(8) == 0 {
			write = history.Action{Kind: history.ActionDelete, Key: k}
		}
		req.Then = append(req.Then, write)
		req.Else = append(req.Else, history.Action{Kind: history.ActionGet, Key: k})
	}
	return req
}

func (g *generator) groupRead() history.Request {
	var req history.Request
	for _, k := range g.pickGroup() {
		req.Then = append(req.Then, history.Action{Kind: history.ActionGet, Key: k})
	}
	return req
}

func (g *generator) span(revision int64) history.Request {
	all := spans()
	s := all[g.rng.IntN(len(all))]
	return history.Range(s[0], s[1], revision)
}

// past reads at a revision that the client was told, often the latest one, because shards that were idle have not
// reached that yet.
func (g *generator) past() history.Request {
	if len(g.reported) == 0 {
		return history.Get(g.key(), 0)
	}
	rev := g.reported[len(g.reported)-1]
	if g.rng.IntN(2) == 0 {
		rev = g.reported[g.rng.IntN(len(g.reported))]
	}
	if g.rng.IntN(2) == 0 {
		return g.span(rev)
	}
	return history.Get(g.key(), rev)
}

// observe learns from an answer.
func (g *generator) observe(req history.Request, resp history.Response) {
	for _, kv := range resp.KVs {
		g.mods[kv.Key] = kv.Mod
	}
	if req.Read == nil {
		g.observeTxn(req, resp)
	} else if req.Read.End == "" && req.Read.Revision == 0 && len(resp.KVs) == 0 {
		g.mods[req.Read.Key] = 0
	}
	g.reported = append(g.reported, resp.Revision)
	g.reported = g.reported[max(0, len(g.reported)-reportedMax):]
}

func (g *generator) observeTxn(req history.Request, resp history.Response) {
	branch := req.Else
	if resp.Succeeded {
		branch = req.Then
	}
	for i, a := range branch {
		switch a.Kind {
		case history.ActionPut:
			g.mods[a.Key] = resp.Revision
		case history.ActionDelete:
			g.mods[a.Key] = 0
		case history.ActionGet:
			g.mods[a.Key] = resp.Results[i].KV.Mod
		}
	}
}
