package lint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// treeOf parses files given by name.
func treeOf(t *testing.T, files map[string]string) *tree {
	t.Helper()
	out := newTree()
	for name, source := range files {
		require.NoError(t, out.add(name, []byte(source)))
	}
	return out
}

func importing(pkg string, paths ...string) string {
	var b strings.Builder
	b.WriteString("package " + pkg + "\n")
	for _, p := range paths {
		b.WriteString("import _ \"" + strings.Replace(p, "~", module, 1) + "\"\n")
	}
	return b.String()
}

// TestRulesNotice breaks each rule once and wants exactly that to be said; what is
// allowed must pass in silence.
func TestRulesNotice(t *testing.T) {
	for _, c := range []struct {
		name  string
		check func(*tree) []finding
		files map[string]string
		want  []string // a part of each finding, in order
	}{
		{"an arrow that points down", checkLayout, map[string]string{"router/a.go": importing("router", "~/txn", "~/shard", "fmt")}, nil},
		{"an arrow between neighbours", checkLayout, map[string]string{"txn/a.go": importing("txn", "~/placement")},
			[]string{"txn imports placement (txn/a.go:2).\n  txn looks at a request alone."}},
		{"an arrow that points up", checkLayout, map[string]string{"shard/mvcc/a.go": importing("mvcc", "~/shard/apply")},
			[]string{"shard/mvcc imports shard/apply"}},
		{"the router's root and storage", checkLayout, map[string]string{"router/a.go": importing("router", "~/shard/mvcc")},
			[]string{"router imports shard/mvcc"}},
		{"a harness in a test", checkLayout, map[string]string{"node/a_test.go": importing("node", "~/internal/testcluster")}, nil},
		{"a harness in production", checkLayout, map[string]string{"node/a.go": importing("node", "~/internal/testcluster")},
			[]string{"node imports the test harness internal/testcluster"}},
		{"a harness may import all", checkLayout, map[string]string{"internal/testcluster/a.go": importing("testcluster", "~/node", "~/client")}, nil},
		{"a folder out of nowhere", checkLayout, map[string]string{"util/a.go": "package util"}, []string{"util has no place"}},
		{"a leaf with a dependency", checkLayout, map[string]string{"internal/clock/a.go": importing("clock", "~/shard")},
			[]string{"internal/clock imports shard"}},

		{"a client that is light", checkLight, map[string]string{
			"client/a.go": importing("client", "~/router"), "router/a.go": importing("router", "~/shard"), "shard/a.go": "package shard",
			"router/a_test.go": importing("router", "github.com/cockroachdb/pebble/v2"),
		}, nil},
		{"a client that pulls storage in", checkLight, map[string]string{
			"client/a.go": importing("client", "~/router"), "router/a.go": importing("router", "~/shard/mvcc"),
			"shard/mvcc/a.go": importing("mvcc", "github.com/cockroachdb/pebble/v2/vfs"),
		}, []string{"By way of client -> router -> shard/mvcc -> github.com/cockroachdb/pebble/v2/vfs", "router depends on"}},

		{"a pure package", checkPurity, map[string]string{"txn/a.go": "package txn\nimport \"time\"\nvar _ time.Duration"}, nil},
		{"a lock in a pure package", checkPurity, map[string]string{"txn/a.go": importing("txn", "sync/atomic")},
			[]string{"txn is pure and imports sync/atomic"}},
		{"a clock under another name", checkPurity, map[string]string{"shard/apply/a.go": "package apply\nimport clock \"time\"\nvar _ = clock.Now()"},
			[]string{"shard/apply uses time.Now (shard/apply/a.go:3)"}},
		{"a goroutine in apply", checkPurity, map[string]string{"shard/apply/a.go": "package apply\nfunc f() { go f() }"},
			[]string{"shard/apply starts a goroutine"}},
		{"apply may lock", checkPurity, map[string]string{"shard/apply/a.go": importing("apply", "sync/atomic")}, nil},
		{"a test of a pure package", checkPurity, map[string]string{"txn/a_test.go": importing("txn", "os")}, nil},

		{"globals that nobody changes", checkGlobals, map[string]string{"node/a.go": "package node\nimport \"errors\"\nvar _ error = nil\nvar ErrA = errors.New(\"a\")\nvar t = &other.Table\n//go:embed a\nvar b []byte\n"}, nil},
		{"state", checkGlobals, map[string]string{"node/a.go": "package node\nvar (\n\tn int\n\tm = map[int]int{}\n)"},
			[]string{"package variable n (node/a.go:3)", "package variable m (node/a.go:4)"}},
		{"init", checkGlobals, map[string]string{"node/a.go": "package node\nfunc init() {}"}, []string{"init function"}},
		{"a method called init", checkGlobals, map[string]string{"node/a.go": "package node\nfunc (n N) init() {}"}, nil},
		{"flags of a test", checkGlobals, map[string]string{"node/a_test.go": "package node\nvar n int"}, nil},

		{"one package comment", checkPackageComments, map[string]string{"node/a.go": "// Package node is.\npackage node", "node/b.go": "package node"}, nil},
		{"no package comment", checkPackageComments, map[string]string{"node/a.go": "package node"}, []string{"node has 0 package comments"}},
		{"two package comments", checkPackageComments, map[string]string{"node/a.go": "// Package node is.\npackage node", "node/b.go": "// Package node was.\npackage node"},
			[]string{"node has 2 package comments"}},
		{"another beginning", checkPackageComments, map[string]string{"node/a.go": "// This is node.\npackage node"}, []string{"does not begin with"}},

		{"a sleep", checkTests, map[string]string{"node/a_test.go": "package node\nimport clock \"time\"\nfunc f() { clock.Sleep(1) }"}, []string{"node sleeps in a test"}},
		{"a skip", checkTests, map[string]string{"node/a_test.go": "package node\nfunc f() { t.Skipf(\"\") }"}, []string{"node skips a test"}},
		{"something else that skips", checkTests, map[string]string{"node/a_test.go": "package node\nfunc f() { reader.Skip(3) }"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) { requireFindings(t, c.want, c.check(treeOf(t, c.files))) })
	}
}

func requireFindings(t *testing.T, want []string, got []finding) {
	t.Helper()
	require.Len(t, got, len(want), "%v", got)
	for i := range want {
		require.Contains(t, got[i].String(), want[i])
	}
}

func TestUnplacedPackagesAreNoticed(t *testing.T) {
	packages := treeOf(t, map[string]string{
		"shard/mvcc/a.go": "package mvcc", "shard/shardpb/a.go": "package shardpb", "internal/ports/a.go": "package ports", "internal/port/a.go": "package port",
	})
	found := checkPlaced(packages, "| versions | `shard/mvcc/rows.go` |\n| ports | `internal/ports` |")
	require.Len(t, found, 1)
	require.Contains(t, found[0].String(), "docs/ARCHITECTURE.md does not name it (internal/port)")
}

func TestTextRulesNotice(t *testing.T) {
	requireFindings(t, []string{"a " + laterMarks()[0] + " is left for later (a.go:2)"}, checkLater("a.go", []byte("fine\n// "+laterMarks()[0]+" later")))

	complete := append([]string{".git", "node"}, rootWanted()...)
	requireFindings(t, nil, checkRoot(complete))
	requireFindings(t, []string{"a.out lies in the root folder"}, checkRoot(append([]string{"a.out"}, complete...)))
	requireFindings(t, []string{"README.md is missing"}, checkRoot(complete[3:]))

	pages := map[string]string{
		"README.md":  "[a](docs/A.md#what-it-is-100-) [b](https://nowhere) [c](docs)\n```\n[x](in-code.md)\n```\n",
		"docs/A.md":  "# What it is (100 %)\n[up](../README.md) [none](B.md)\n[self](#no-such)\n",
		"docs/B2.md": "",
	}
	exists := func(name string) bool { _, ok := pages[name]; return ok || name == "docs" }
	requireFindings(t, []string{"link to B.md leads nowhere (docs/A.md:2)", "#no-such names no heading"}, checkLinks(pages, exists))

	table := "| Put | same | `txn.TestPut` |\n| Get | same | `corpus:range/all` `corpus:gone` |\n| Txn | differs | |\n| A | absent | |\n| B | same | untested |\n| C | same | `TestC` |\n"
	requireFindings(t, []string{"script gone", "names no test (docs/ETCD.md:3)", "without its folder", "names no test (docs/ETCD.md:6)"},
		checkNamedTests("docs/ETCD.md", table, map[string]bool{"txn.TestPut": true}, func(s string) bool { return s == "range/all" }))
	requireFindings(t, []string{"names txn.TestPut, which does not exist"}, checkNamedTests("docs/ETCD.md", "`txn.TestPut`", nil, nil))

	metrics := map[string]string{"flotilla_a_total": "a.go:1", "flotilla_b_seconds": "b.go:2", "etcd_c": "c.go:3"}
	requireFindings(t, []string{"the metric etcd_c is not in docs/OPERATING.md (c.go:3)", "names flotilla_gone, which does not exist"},
		checkMetrics(metrics, "| `flotilla_a_total`, `…_b_seconds`, `flotilla_gone`, `etcd_other` |"))

	requireFindings(t, []string{"names shard/gone.go, which does not exist (docs/A.md:2)"},
		checkNamedFiles("docs/A.md", "`shard/here.go` `testdata/here.txt` `gone.go`\n`shard/gone.go`", func(name string) bool {
			return name == "shard/here.go" || name == "docs/testdata/here.txt"
		}))
}
