package lint

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestLinksResolve(t *testing.T) {
	root := repository(t)
	pages := make(map[string]string)
	err := walk(root, func(name string, read func() []byte) error {
		if path.Ext(name) == ".md" {
			pages[name] = string(read())
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read the pages: %v", err)
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
		return err == nil
	}
	report(t, "docs", checkLinks(pages, exists))
}

// checkLinks follows the links of pages to files and to headings of pages. Links to
// other machines are not followed: a test must not need them.
func checkLinks(pages map[string]string, exists func(string) bool) (out []finding) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for name, text := range pages {
		for i, line := range strings.Split(withoutCode(text), "\n") {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
					continue
				}
				target, heading, _ := strings.Cut(m[1], "#")
				to := name
				if target != "" {
					to = path.Join(path.Dir(name), target)
				}
				where := fmt.Sprintf("%s:%d", name, i+1)
				switch page, isPage := pages[to]; {
				case !exists(to):
					out = append(out, finding{where, "the link to " + m[1] + " leads nowhere", "There is no " + to + "."})
				case heading != "" && isPage && !slices.Contains(headings(page), heading):
					out = append(out, finding{where, "the link to " + m[1] + " names no heading",
						"The headings of " + to + " are " + strings.Join(headings(page), ", ") + "."})
				}
			}
		}
	}
	return out
}

// withoutCode blanks fenced code, keeping the line numbers.
func withoutCode(text string) string {
	lines := strings.Split(text, "\n")
	fenced := false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence {
			fenced = !fenced
		}
		if fenced || fence {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// headings returns the anchors that a page's headings get.
func headings(text string) []string {
	var out []string
	dropped := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for line := range strings.Lines(withoutCode(text)) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			title = dropped.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			out = append(out, strings.ReplaceAll(title, " ", "-"))
		}
	}
	return out
}

func TestNamedTestsExist(t *testing.T) {
	root := repository(t)
	tests := testNames(loadTree(t, root))
	script := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, "internal", "conformance", "testdata", filepath.FromSlash(name)+".txt"))
		return err == nil
	}
	err := walk(root, func(name string, read func() []byte) error {
		if strings.HasPrefix(name, "docs/") && path.Ext(name) == ".md" {
			report(t, "docs", checkNamedTests(name, string(read()), tests, script))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read the pages: %v", err)
	}
}

// testNames returns every test and fuzz target, as "folder.TestName".
func testNames(t *tree) map[string]bool {
	out := make(map[string]bool)
	for _, p := range t.pkgs {
		for _, f := range p.files {
			for _, d := range f.syntax.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
					out[p.path+"."+fn.Name.Name] = true
				}
			}
		}
	}
	return out
}

// checkNamedTests wants every `folder.TestName` and every `corpus:script` of a page to
// exist, every table row that says "same" or "differs", as those of docs/ETCD.md, to name
// one, and no test to be named in a way that this rule would not see.
func checkNamedTests(name, page string, tests map[string]bool, script func(string) bool) (out []finding) {
	test := regexp.MustCompile("`([a-z0-9_/]+\\.(?:Test|Fuzz)[A-Za-z0-9_]+)`")
	corpus := regexp.MustCompile("`corpus:([a-z_/]+)`")
	loose := regexp.MustCompile("`(?:Test|Fuzz)[A-Z][A-Za-z0-9_]*`")
	for i, line := range strings.Split(page, "\n") {
		where := fmt.Sprintf("%s:%d", name, i+1)
		named := 0
		for _, m := range test.FindAllStringSubmatch(line, -1) {
			named++
			if !tests[m[1]] {
				out = append(out, finding{where, "the page names " + m[1] + ", which does not exist",
					"A row without a test is only a claim. Name the test that shows it now."})
			}
		}
		for _, m := range corpus.FindAllStringSubmatch(line, -1) {
			named++
			if !script(m[1]) {
				out = append(out, finding{where, "the page names the script " + m[1] + ", which does not exist",
					"Scripts are the files of internal/conformance/testdata."})
			}
		}
		if loose.MatchString(line) {
			out = append(out, finding{where, "a test is named without its folder", "Write `folder.TestName`, so that it can be found and checked."})
		}
		if claims(line) && named == 0 {
			out = append(out, finding{where, "a row claims a behaviour and names no test",
				"Name `folder.TestName` or `corpus:script`, or say \"untested\" in the row."})
		}
	}
	return out
}

// claims reports whether a table row says how something behaves: its second cell is
// "same" or "differs", and it does not own up to being untested.
func claims(line string) bool {
	cells := strings.Split(line, "|")
	if len(cells) < 4 || strings.Contains(line, "untested") {
		return false
	}
	verdict := strings.Trim(cells[2], " *")
	return verdict == "same" || verdict == "differs"
}

// metricsPage tells operators of every metric.
const metricsPage = "docs/OPERATING.md"

func TestMetricsAreDocumented(t *testing.T) {
	root := repository(t)
	page, err := os.ReadFile(filepath.Join(root, metricsPage))
	if err != nil {
		t.Fatalf("read the page of metrics: %v", err)
	}
	report(t, "docs", checkMetrics(metricNames(loadTree(t, root)), string(page)))
}

// metricNames returns the metrics that the server and the client have, with where they are
// named. Benchmarks read metrics and have none.
func metricNames(t *tree) map[string]string {
	name := regexp.MustCompile(`^"(?:flotilla|etcd)_[a-z_]+"$`)
	out := make(map[string]string)
	for _, p := range t.pkgs {
		if strings.HasPrefix(p.path, "benchmarks/") {
			continue
		}
		for _, f := range p.files {
			if f.test || f.generated {
				continue
			}
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && name.MatchString(lit.Value) {
					out[strings.Trim(lit.Value, `"`)] = t.at(lit)
				}
				return true
			})
		}
	}
	return out
}

// checkMetrics wants every metric on the page, in full or as the end of one behind "…", and
// every metric of Flotilla's own on the page to exist.
func checkMetrics(metrics map[string]string, page string) (out []finding) {
	full := regexp.MustCompile("`((?:flotilla|etcd)_[a-z_]+)`")
	ends := regexp.MustCompile("`…(_[a-z_]+)`")
	told := make(map[string]bool)
	for _, m := range full.FindAllStringSubmatch(page, -1) {
		told[m[1]] = true
	}
	for name, where := range metrics {
		known := told[name]
		for _, m := range ends.FindAllStringSubmatch(page, -1) {
			known = known || strings.HasSuffix(name, m[1])
		}
		if !known {
			out = append(out, finding{where, "the metric " + name + " is not in " + metricsPage, "Tell there what it shows and what to do about it."})
		}
	}
	for name := range told {
		if _, exists := metrics[name]; !exists && strings.HasPrefix(name, "flotilla_") {
			out = append(out, finding{metricsPage, "the page names " + name + ", which does not exist", "Alerts on it would stay silent."})
		}
	}
	slices.SortFunc(out, func(a, b finding) int { return strings.Compare(a.what, b.what) })
	return out
}

func TestNamedFilesExist(t *testing.T) {
	root := repository(t)
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
		return err == nil
	}
	err := walk(root, func(name string, read func() []byte) error {
		// Bugs and costs are history: what they speak of may be gone.
		if path.Ext(name) == ".md" && name != "docs/BUGS.md" && name != "docs/COSTS.md" {
			report(t, "docs", checkNamedFiles(name, string(read()), exists))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read the pages: %v", err)
	}
}

// checkNamedFiles wants every source file that a page names with its folder to exist, there or
// from the root.
func checkNamedFiles(name, page string, exists func(string) bool) (out []finding) {
	file := regexp.MustCompile("`([a-z0-9_]+(?:/[a-z0-9_]+)*/[a-z0-9_]+\\.(?:go|proto|txt))`")
	for i, line := range strings.Split(page, "\n") {
		for _, m := range file.FindAllStringSubmatch(line, -1) {
			if !exists(m[1]) && !exists(path.Join(path.Dir(name), m[1])) {
				out = append(out, finding{fmt.Sprintf("%s:%d", name, i+1), "the page names " + m[1] + ", which does not exist",
					"Name the file where it is now."})
			}
		}
	}
	return out
}
