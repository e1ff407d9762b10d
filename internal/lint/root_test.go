package lint

import (
	"os"
	"slices"
	"testing"
)

// rootEntries is all that may lie in the root folder.
func rootEntries() []string {
	return []string{
		"README.md", "CHANGELOG.md", "LICENSE",
		"go.mod", "go.sum", "staticcheck.conf", "buf.yaml", "buf.gen.yaml", ".gitignore", ".ci",
		"node", "placement", "shard", "router", "txn", "client", "tools", "benchmarks", "internal", "docs",
	}
}

// rootWanted are the entries whose absence a reader would notice.
func rootWanted() []string {
	return []string{"README.md", "CHANGELOG.md", "LICENSE", "go.mod", "go.sum", ".ci", "docs"}
}

// localEntries are made by tools and by the commands of README.md, never committed, and named by .gitignore.
func localEntries() []string { return []string{".git", ".cache", "bin", "flotilla", "data"} }

func TestRoot(t *testing.T) {
	entries, err := os.ReadDir(repository(t))
	if err != nil {
		t.Fatalf("list the root folder: %v", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	report(t, "root", checkRoot(names))
}

func checkRoot(names []string) (out []finding) {
	for _, name := range names {
		if !slices.Contains(rootEntries(), name) && !slices.Contains(localEntries(), name) {
			out = append(out, finding{"/", name + " lies in the root folder",
				"The root folder is the first thing a reader sees. Put it where it belongs, or, if it is a\nbuild result, remove it and let .gitignore name it."})
		}
	}
	for _, name := range rootWanted() {
		if !slices.Contains(names, name) {
			out = append(out, finding{"/", name + " is missing from the root folder", "Every checkout has it."})
		}
	}
	return out
}
