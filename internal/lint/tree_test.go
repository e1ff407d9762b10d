package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/flotilla-kv/flotilla"

// tree is the repository's Go source as the rules see it.
type tree struct {
	fset *token.FileSet
	// pkgs are the folders with Go files, by path from the root. Files of every
	// build tag belong to them, and so do external tests.
	pkgs map[string]*pkg
}

type pkg struct {
	path  string
	files []*file
}

type file struct {
	path      string
	test      bool
	generated bool
	syntax    *ast.File
}

// finding is one breach of a rule.
type finding struct {
	where string // file:line, or what else the reader can go to
	what  string
	help  string // what to do instead
}

func (f finding) String() string {
	return f.what + " (" + f.where + ").\n  " + strings.ReplaceAll(f.help, "\n", "\n  ")
}

// report fails the test with every finding.
func report(t *testing.T, rule string, findings []finding) {
	t.Helper()
	for _, f := range findings {
		t.Errorf("%s: %s", rule, f)
	}
}

// repository returns the folder of go.mod.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatalf("find the repository: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatalf("find the repository: %v", err)
	}
	return dir
}

// ignoredDir reports whether Go, and so every rule here, passes a folder over.
func ignoredDir(name string) bool {
	return name == "testdata" || strings.HasPrefix(name, ".") && name != "." || strings.HasPrefix(name, "_")
}

// loadTree parses every Go file of the module, but not of modules nested in it.
func loadTree(t *testing.T, root string) *tree {
	t.Helper()
	out := newTree()
	err := walk(root, func(name string, read func() []byte) error {
		if path.Ext(name) == ".go" {
			return out.add(name, read())
		}
		return nil
	})
	if err != nil {
		t.Fatalf("parse the repository: %v", err)
	}
	return out
}

// walk visits the files of the module at root, by path from there.
func walk(root string, visit func(name string, read func() []byte) error) error {
	repo := os.DirFS(root)
	return fs.WalkDir(repo, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if ignoredDir(d.Name()) {
				return fs.SkipDir
			}
			if _, err := fs.Stat(repo, path.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir
			}
			return nil
		}
		return visit(name, func() []byte {
			data, readErr := fs.ReadFile(repo, name)
			if readErr != nil {
				panic(readErr) // listed a moment ago
			}
			return data
		})
	})
}

func newTree() *tree { return &tree{fset: token.NewFileSet(), pkgs: make(map[string]*pkg)} }

func (t *tree) add(name string, source []byte) error {
	syntax, err := parser.ParseFile(t.fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse %s: %w", name, err)
	}
	dir := path.Dir(name)
	if t.pkgs[dir] == nil {
		t.pkgs[dir] = &pkg{path: dir}
	}
	t.pkgs[dir].files = append(t.pkgs[dir].files, &file{
		path: name, test: strings.HasSuffix(name, "_test.go"), generated: ast.IsGenerated(syntax), syntax: syntax,
	})
	return nil
}

// sorted returns the packages by path, so that reports do not change from run to run.
func (t *tree) sorted() []*pkg {
	var out []*pkg
	for _, name := range slices.Sorted(maps.Keys(t.pkgs)) {
		out = append(out, t.pkgs[name])
	}
	return out
}

func (t *tree) at(n ast.Node) string {
	p := t.fset.Position(n.Pos())
	return p.Filename + ":" + strconv.Itoa(p.Line)
}

// imports calls f for every import of the file, with its path.
func (f *file) imports(visit func(spec *ast.ImportSpec, path string)) {
	for _, spec := range f.syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has taken it
		}
		visit(spec, imported)
	}
}

// local returns the folder of an import of this module.
func local(imported string) (string, bool) {
	return strings.CutPrefix(imported, module+"/")
}

// uses calls visit for every mention of a name of an imported package, for example
// ("time", "Now"), however the import is called in the file.
func (f *file) uses(visit func(n ast.Node, imported, name string)) {
	byName := make(map[string]string)
	f.imports(func(spec *ast.ImportSpec, imported string) {
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		byName[name] = imported
	})
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && byName[x.Name] != "" {
			visit(n, byName[x.Name], sel.Sel.Name)
		}
		return true
	})
}

// within reports whether a folder matches a pattern: "a/b" itself, "a/b/..." with all
// below it.
func within(folder, pattern string) bool {
	parent, below := strings.CutSuffix(pattern, "/...")
	return folder == parent || below && strings.HasPrefix(folder, parent+"/")
}

func withinAny(folder string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return within(folder, p) })
}
