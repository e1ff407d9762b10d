package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestPackageComments(t *testing.T) {
	report(t, "hygiene", checkPackageComments(loadTree(t, repository(t))))
}

// checkPackageComments wants exactly one package comment in each package that has more
// than generated code.
func checkPackageComments(t *tree) []finding {
	var out []finding
	for _, p := range t.sorted() {
		var comments []string
		written := false
		for _, f := range p.files {
			if f.generated || f.test {
				continue
			}
			written = true
			if f.syntax.Doc == nil {
				continue
			}
			comments = append(comments, f.path)
			wanted := "Package " + f.syntax.Name.Name + " "
			if f.syntax.Name.Name == "main" {
				wanted = "Command "
			}
			if !strings.HasPrefix(f.syntax.Doc.Text(), wanted) {
				out = append(out, finding{t.at(f.syntax), "the package comment of " + p.path + " does not begin with \"" + wanted + "…\"",
					"go doc shows it beside others, so all begin alike."})
			}
		}
		if written && len(comments) != 1 {
			out = append(out, finding{p.path, fmt.Sprintf("%s has %d package comments %v", p.path, len(comments), comments),
				"Say once, in doc.go or the main file, what the package owns, what it refuses, and its\nnumbered invariants."})
		}
	}
	return out
}

func TestTestsNeitherSkipNorSleep(t *testing.T) {
	report(t, "hygiene", checkTests(loadTree(t, repository(t))))
}

func checkTests(t *tree) []finding {
	var out []finding
	for _, p := range t.sorted() {
		for _, f := range p.files {
			if !f.test {
				continue
			}
			f.uses(func(n ast.Node, imported, name string) {
				if imported == "time" && name == "Sleep" {
					out = append(out, finding{t.at(n), p.path + " sleeps in a test",
						"A sleep is too short on a busy machine and too long on an idle one. Wait for the\ncondition (a channel, require.Eventually), or run under testing/synctest and move its\nclock with bubble.Pass."})
				}
			})
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				receiver, name, _ := strings.Cut(qualified(call.Fun), ".")
				if slices.Contains([]string{"t", "b", "f", "tb"}, receiver) && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, name) {
					out = append(out, finding{t.at(n), p.path + " skips a test",
						"A skipped test looks like one that passed. What needs something special belongs behind a\nflag or a build tag that says so; what is broken is repaired or removed."})
				}
				return true
			})
		}
	}
	return out
}

func TestNothingIsLeftForLater(t *testing.T) {
	var out []finding
	err := walk(repository(t), func(name string, read func() []byte) error {
		if slices.Contains([]string{".go", ".md", ".proto", ".yaml", ".sh", ".txt", ".mod", ".conf"}, path.Ext(name)) {
			out = append(out, checkLater(name, read())...)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read the repository: %v", err)
	}
	report(t, "hygiene", out)
}

// laterMarks are assembled so that this file does not contain them.
func laterMarks() []string { return []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:", "HA" + "CK:"} }

func checkLater(name string, content []byte) (out []finding) {
	for i, line := range bytes.Split(content, []byte("\n")) {
		for _, mark := range laterMarks() {
			if bytes.Contains(line, []byte(mark)) {
				out = append(out, finding{fmt.Sprintf("%s:%d", name, i+1), "a " + mark + " is left for later",
					"Do it, or say as a fact what is not done and what follows from that (docs/ETCD.md,\nREADME.md, or the comment of what is affected)."})
			}
		}
	}
	return out
}
