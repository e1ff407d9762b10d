package lint

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// constantCalls make values that nobody changes afterwards.
func constantCalls() []string {
	return []string{"errors.New", "fmt.Errorf", "status.Error", "status.Errorf", "regexp.MustCompile", "crc32.MakeTable"}
}

// admitted are the exceptions, as "folder.name", each with its reason.
func admitted() map[string]string {
	return map[string]string{
		"shard/replica.raftLogOnce":             "dragonboat has one logger for the whole process, so adopting it is global too",
		"shard/replica.settle":                  "dragonboat has one set of sizes for the whole process, so setting them is global too",
		"shard/replica.receiveQueueLen":         "dragonboat's",
		"shard/replica.incomingProposalsMaxLen": "dragonboat's",
		"shard/replica.incomingReadIndexMaxLen": "dragonboat's",
		"shard/replica.entrySliceSize":          "dragonboat's",
		"shard/replica.minEntrySliceSize":       "dragonboat's",
		"shard/replica.pendingProposalShards":   "dragonboat's",
		"shard/replica.streamConnections":       "dragonboat's",
		"shard/replica.sendQueueLen":            "dragonboat's",
		"shard/replica.errSnapshotOutOfDate":    "dragonboat's",
		"shard/replica.syncTaskInterval":        "dragonboat's",
		"shard/replica.nodeReloadInterval":      "dragonboat's",
	}
}

func TestGlobals(t *testing.T) { report(t, "globals", checkGlobals(loadTree(t, repository(t)))) }

// checkGlobals lets pass, at package level: assertions (var _), embedded files, errors
// and tables made by a known call, and pointers to another package's constant tables.
// Test files and generated ones are left alone.
func checkGlobals(t *tree) []finding {
	var out []finding
	for _, p := range t.sorted() {
		for _, f := range p.files {
			if f.test || f.generated {
				continue
			}
			for _, d := range f.syntax.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						out = append(out, finding{t.at(d), p.path + " has an init function",
							"Importing a package must do nothing. Let New or the caller do it: many nodes run in\none test process."})
					}
				case *ast.GenDecl:
					out = append(out, t.variables(p, d)...)
				}
			}
		}
	}
	return out
}

func (t *tree) variables(p *pkg, d *ast.GenDecl) (out []finding) {
	if d.Tok != token.VAR || embeds(d.Doc) {
		return nil
	}
	for _, s := range d.Specs {
		spec := s.(*ast.ValueSpec)
		for i, name := range spec.Names {
			if name.Name == "_" || admitted()[p.path+"."+name.Name] != "" || embeds(spec.Doc) || i < len(spec.Values) && constant(spec.Values[i]) {
				continue
			}
			out = append(out, finding{t.at(name), p.path + " has the package variable " + name.Name,
				"Many nodes run in one test process: state belongs to a value that New makes, a table to\na function that returns it, a limit to a const. If it is an error or a table made by a\ncall that yields constants, add the call to constantCalls in internal/lint/globals_test.go."})
		}
	}
	return out
}

func embeds(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// constant reports whether nobody can change the value: the result of a known call, or
// the address of another package's variable.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CallExpr:
		return slices.Contains(constantCalls(), qualified(e.Fun))
	case *ast.UnaryExpr:
		return e.Op == token.AND && qualified(e.X) != ""
	}
	return false
}

// qualified returns "pkg.Name" for such an expression and "" for any other.
func qualified(e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + sel.Sel.Name
}
