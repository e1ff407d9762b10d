package lint

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// layer says what the packages of some folders may import of this module.
type layer struct {
	folders []string
	may     []string
	// why is told to whoever imports something else.
	why string
}

// leaves depend on nothing of ours and may be used by all.
func leaves() []string {
	return []string{
		"internal/certfiles", "internal/clock", "internal/etcdwire", "internal/giveway", "internal/portmux", "internal/rpcfront",
		"internal/snapfile", "internal/timerslack", "internal/workers",
	}
}

// harnesses are what tests stand on. They may import all, and only tests may import them.
func harnesses() []string {
	return []string{
		"internal/bubble", "internal/conformance", "internal/history", "internal/lint", "internal/ports", "internal/powercut", "internal/proccluster",
		"internal/robustness", "internal/simulation", "internal/testcluster",
	}
}

// layers are the arrows of docs/ARCHITECTURE.md, from the top down. The first layer
// that has a folder counts.
func layers() []layer {
	// What a node and the Go client share: no transport of clients, no storage.
	routing := []string{
		"router", "router/admission", "router/peer", "router/routerpb", "txn", "placement/...",
		"shard", "shard/shardpb", "shard/listing", "shard/hlc",
	}
	return []layer{
		{[]string{"tools/..."}, []string{"tools/...", "node", "client/...", "benchmarks/...", "router/...", "placement/...", "txn", "shard/..."},
			"Commands stand at the top: they use a node or a client and nothing imports them."},
		{[]string{"benchmarks/..."}, []string{"benchmarks/...", "client/...", "internal/ports", "router/adminapi/adminpb"},
			"Benchmarks see a cluster as its users do, through clients and processes;\nwhat they measure must not depend on what they can reach inside."},
		{[]string{"node/raftnet"}, nil,
			"The Raft transport carries bytes between nodes and knows nothing of what is in them."},
		{[]string{"node/..."}, []string{"node/...", "router/...", "placement/...", "txn", "shard/..."},
			"The composition root wires what is below it. Commands, clients and benchmarks are above."},
		{[]string{"client/..."}, append([]string{"client/...", "router/watchmerge", "router/etcderr"}, routing...),
			"A client shares the transport-free router with the nodes, and the vocabulary below it.\nWhat stores or serves belongs to nodes."},
		{[]string{"router/routerpb"}, []string{"shard/shardpb"},
			"Wire messages import wire messages only."},
		{[]string{"router/admission"}, []string{"shard"},
			"What a node takes in is decided without looking at it; the router and the faces ask here."},
		{[]string{"router"}, []string{"router/admission", "router/routerpb", "txn", "placement/...", "shard", "shard/shardpb", "shard/listing"},
			"The router's root is shared with the client: it is given a Sender and a Directory\nand has neither transport nor storage itself."},
		{[]string{"router/peer"}, []string{"router", "router/routerpb", "shard", "shard/shardpb"},
			"The peer protocol carries the router's requests; who carries them out is given to it."},
		{[]string{"router/etcdapi/v3lockpb", "router/etcdapi/v3electionpb"}, []string{"router/etcdapi/v3lockpb"},
			"Wire messages import wire messages only."},
		{[]string{"router/etcdapi"}, []string{"router/etcdapi/v3lockpb", "router/etcdapi/v3electionpb", "router/admission", "router/auth", "router/etcderr", "router/routerpb", "placement", "placement/placementpb", "txn", "shard"},
			"The etcd face is given a KV, Watches, Leases and a Cluster, and Users; it decides nothing about keys,\nshards or nodes."},
		{[]string{"router/auth"}, []string{"placement", "placement/placementpb", "shard"},
			"Who may do what is judged by users, roles and a request, all of which are given to it."},
		{[]string{"router/etcderr"}, []string{"router", "shard"},
			"Errors are turned into etcd's for nodes and clients alike."},
		{[]string{"router/native"}, []string{"router", "router/admission", "router/auth", "router/peer", "router/routerpb", "placement/...", "txn", "shard", "shard/shardpb", "shard/hlc"},
			"What native clients may do is decided before it reaches a replica: those who carry it out\nare given to it."},
		{[]string{"router/adminapi/adminpb"}, nil,
			"Wire messages import wire messages only."},
		{[]string{"router/adminapi"}, []string{"router/adminapi/adminpb", "placement/...", "shard"},
			"What the cluster tells of itself is made of a map and a load, which are given to it; it\nasks no node itself, and what it changes are commands to the placement table."},
		{[]string{"router/watchmerge"}, []string{"router", "router/routerpb", "shard", "shard/shardpb"},
			"Merging watches needs the map and feeds, both by way of the router. To whom events go is\ndecided above, so that a client can merge too."},
		{[]string{"router/..."}, []string{"router/...", "txn", "placement/...", "shard/..."},
			"Routing stands below the node: what it needs of one is given to it as a small interface."},
		{[]string{"txn"}, []string{"shard"},
			"txn looks at a request alone. Where keys live is found by the router and given to it\n(txn.Place); placement and txn never meet."},
		{[]string{"placement/placementpb"}, []string{"shard/shardpb"},
			"Wire messages import wire messages only."},
		{[]string{"placement/..."}, []string{"placement/...", "shard", "shard/shardpb"},
			"Placement decides on maps and loads as values. Who measures them and who carries steps out\nis the node's business; transactions are not placement's at all."},
		{[]string{"shard/shardpb"}, nil,
			"Wire messages of shards are the lowest layer."},
		{[]string{"shard"}, []string{"shard/shardpb"},
			"The root of shard is vocabulary for everybody: it holds no state and does no I/O."},
		{[]string{"shard/load"}, nil,
			"Figures are made of counts and times, whatever is counted."},
		{[]string{"shard/listing", "shard/hlc", "shard/engine"}, []string{"shard", "shard/shardpb"},
			"This package stands right above the vocabulary."},
		{[]string{"shard/mvcc"}, []string{"shard", "shard/shardpb", "shard/listing", "shard/engine"},
			"mvcc knows versions and bytes. Commands are apply's business, Raft is replica's."},
		{[]string{"shard/lease", "shard/watch"}, []string{"shard", "shard/shardpb", "shard/listing", "shard/engine", "shard/mvcc"},
			"Leases and watches are fed by apply; they do not know it."},
		{[]string{"shard/apply"}, []string{"shard", "shard/shardpb", "shard/listing", "shard/engine", "shard/mvcc", "shard/lease", "shard/watch"},
			"apply is driven by replica and does not know Raft, so that a test can drive it too."},
		{[]string{"shard/..."}, []string{"shard/..."},
			"A shard knows nothing of who routes to it or where its replicas are placed."},
		{leaves(), nil,
			"A leaf depends on nothing of ours, or it is no leaf."},
	}
}

func TestLayout(t *testing.T) { report(t, "layout", checkLayout(loadTree(t, repository(t)))) }

const layoutRemedy = "\nIf the arrow is right after all, add it to layers in internal/lint/layout_test.go\nand write the reason in docs/decisions."

func checkLayout(t *tree) []finding {
	var out []finding
	for _, p := range t.sorted() {
		if withinAny(p.path, harnesses()) {
			continue
		}
		all := layers()
		i := slices.IndexFunc(all, func(l layer) bool { return withinAny(p.path, l.folders) })
		if i < 0 {
			out = append(out, finding{p.path, p.path + " has no place in the layout",
				"Put it into one of the folders of docs/ARCHITECTURE.md, or give it a layer in\ninternal/lint/layout_test.go and write the reason in docs/decisions."})
			continue
		}
		l := all[i]
		for _, f := range p.files {
			f.imports(func(spec *ast.ImportSpec, imported string) {
				to, ok := local(imported)
				switch {
				case !ok, to == p.path, withinAny(to, l.may), withinAny(to, leaves()):
				case withinAny(to, harnesses()):
					if !f.test {
						out = append(out, finding{t.at(spec), p.path + " imports the test harness " + to,
							"Harnesses are for tests. What both need belongs in a package of its own." + layoutRemedy})
					}
				default:
					out = append(out, finding{t.at(spec), p.path + " imports " + to, l.why + layoutRemedy})
				}
			})
		}
	}
	return out
}

// light packages become part of every program that uses the Go client: none may pull
// Raft or a storage engine in.
func light() []string { return []string{"client/...", "router", "router/peer", "router/watchmerge"} }

// heavy are the modules that light packages stay free of.
func heavy() []string {
	return []string{"github.com/cockroachdb/pebble/...", "github.com/lni/dragonboat/..."}
}

func TestClientIsLight(t *testing.T) { report(t, "layout", checkLight(loadTree(t, repository(t)))) }

func checkLight(t *tree) []finding {
	var out []finding
	for _, p := range t.sorted() {
		if !withinAny(p.path, light()) {
			continue
		}
		if chain := t.heavyChain(p.path, make(map[string]bool)); chain != nil {
			out = append(out, finding{p.path, p.path + " depends on " + chain[len(chain)-1],
				"By way of " + strings.Join(append([]string{p.path}, chain...), " -> ") + ".\n" +
					"Programs that use the client would have to build a Raft library or a storage engine.\n" +
					"Move what is needed from there into a pure package, as shard/listing."})
		}
	}
	return out
}

// heavyChain returns the imports that lead from a package to a heavy module, nil if
// none do.
func (t *tree) heavyChain(folder string, seen map[string]bool) (chain []string) {
	p := t.pkgs[folder]
	if p == nil || seen[folder] {
		return nil
	}
	seen[folder] = true
	for _, f := range p.files {
		if f.test {
			continue
		}
		f.imports(func(_ *ast.ImportSpec, imported string) {
			switch to, ours := local(imported); {
			case chain != nil:
			case ours:
				if rest := t.heavyChain(to, seen); rest != nil {
					chain = append([]string{to}, rest...)
				}
			case withinAny(imported, heavy()):
				chain = []string{imported}
			}
		})
	}
	return chain
}
