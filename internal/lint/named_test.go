package lint

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestPackagesArePlaced(t *testing.T) {
	root := repository(t)
	text, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatalf("read the architecture: %v", err)
	}
	report(t, "docs", checkPlaced(loadTree(t, root), string(text)))
}

// checkPlaced finds packages that a reader of docs/ARCHITECTURE.md would not know to exist.
func checkPlaced(t *tree, text string) (out []finding) {
	for _, p := range t.sorted() {
		if p.path == "." || strings.HasSuffix(p.path, "pb") { // generated from the .proto file of their parent
			continue
		}
		if !regexp.MustCompile(`(^|[^\w/])` + regexp.QuoteMeta(p.path) + `($|[^\w])`).MatchString(text) {
			out = append(out, finding{p.path, "docs/ARCHITECTURE.md does not name it",
				"Add a row where somebody would look who wants to change what " + path.Base(p.path) + " does."})
		}
	}
	return out
}
