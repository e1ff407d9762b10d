package lint

import (
	"go/ast"
	"slices"
	"testing"
)

// pure packages compute: the same arguments give the same result, whoever calls, when
// and on how many goroutines. Their tests need no world.
func pure() []string {
	return []string{"shard", "shard/listing", "shard/load", "txn", "placement"}
}

// deterministic packages may hold state and use the store they are given, but what
// they do depends neither on time nor on scheduling: every replica must do the same.
func deterministic() []string { return []string{"shard/apply", "shard/mvcc"} }

// worldly are the packages through which a pure package would meet the world.
func worldly() []string {
	return []string{
		"sync/...", "os/...", "net/...", "io/fs", "log/...", "math/rand/...", "crypto/rand", "runtime/...", "syscall", "unsafe",
		"github.com/cockroachdb/pebble/...", "github.com/lni/dragonboat/...", "github.com/prometheus/...",
	}
}

// clockwork are the names of package time that read or wait for a clock. Its types
// and arithmetic are pure.
func clockwork() []string {
	return []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
}

func TestPurity(t *testing.T) { report(t, "purity", checkPurity(loadTree(t, repository(t)))) }

func checkPurity(t *tree) []finding {
	var out []finding
	for _, p := range t.sorted() {
		isPure := slices.Contains(pure(), p.path)
		if !isPure && !slices.Contains(deterministic(), p.path) {
			continue
		}
		for _, f := range p.files {
			if f.test {
				continue
			}
			if isPure {
				out = append(out, t.world(p, f)...)
			}
			out = append(out, t.time(p, f)...)
		}
	}
	return out
}

// world finds imports through which a file meets the world.
func (t *tree) world(p *pkg, f *file) (out []finding) {
	f.imports(func(spec *ast.ImportSpec, imported string) {
		// gRPC's codes and statuses are values; the rest of net is the network.
		if withinAny(imported, worldly()) {
			out = append(out, finding{t.at(spec), p.path + " is pure and imports " + imported,
				"Decide here on values; let the caller read, lock, send and store, and give the\nresult as an argument. A package that must do it itself leaves pure in\ninternal/lint/purity_test.go, with the reason in docs/decisions."})
		}
	})
	return out
}

// time finds goroutines and clocks.
func (t *tree) time(p *pkg, f *file) (out []finding) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if _, ok := n.(*ast.GoStmt); ok {
			out = append(out, finding{t.at(n), p.path + " starts a goroutine",
				"What happens here must not depend on scheduling. The shell around it owns goroutines."})
		}
		return true
	})
	f.uses(func(n ast.Node, imported, name string) {
		if imported == "time" && slices.Contains(clockwork(), name) {
			out = append(out, finding{t.at(n), p.path + " uses time." + name,
				"Time is an argument here: it comes in a command, a request or a parameter."})
		}
	})
	return out
}
