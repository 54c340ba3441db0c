package house

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mostCrossed is how many files of the runtime a message may cross from Send to the error table, according to docs/walkthrough.md.
const mostCrossed = 15

// crossing are the sections of docs/walkthrough.md in which the message itself passes through the files.
var crossing = []string{"1. Sent", "3. Fetched", "4. Handled", "6. Failed"}

// stop is a row of a table of docs/walkthrough.md.
type stop struct{ section, file, function string }

var stepRow = regexp.MustCompile("^\\| `([^`]+\\.go)` \\| `([^`]+)` \\|")

func stepsOf(text string) (steps []stop) {
	section := ""
	for line := range strings.Lines(text) {
		if title, is := strings.CutPrefix(strings.TrimSpace(line), "## "); is {
			section = title
		}
		if row := stepRow.FindStringSubmatch(line); row != nil {
			steps = append(steps, stop{section, row[1], row[2]})
		}
	}
	return steps
}

// functionsOf lists the functions of each file, and methods as Type.Method.
func functionsOf(all []pkg) map[string][]string {
	functions := map[string][]string{}
	for _, p := range all {
		for _, f := range p.files {
			for _, d := range f.tree.Decls {
				fn, is := d.(*ast.FuncDecl)
				switch {
				case !is:
				case fn.Recv == nil:
					functions[f.name] = append(functions[f.name], fn.Name.Name)
				default:
					functions[f.name] = append(functions[f.name], receiverOf(fn)+"."+fn.Name.Name)
				}
			}
		}
	}
	return functions
}

func walkthrough(t *testing.T) []stop {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "walkthrough.md"))
	if err != nil {
		t.Fatal(err)
	}
	steps := stepsOf(string(text))
	if len(steps) < 30 {
		t.Fatalf("docs/walkthrough.md has %d steps only", len(steps))
	}
	return steps
}

// Every file and function named in the walkthrough exists.
func TestWalkthroughIsTrue(t *testing.T) {
	t.Parallel()
	functions := functionsOf(own(t))
	for _, s := range walkthrough(t) {
		switch there, is := functions[s.file]; {
		case !is:
			t.Errorf("section %q names %s, which is no file with functions", s.section, s.file)
		case !slices.Contains(there, s.function):
			t.Errorf("section %q names %s in %s, which is not there", s.section, s.function, s.file)
		}
	}
}

// A message crosses only a few files on its way from Send to the error table.
func TestWalkthroughCrossesFewFiles(t *testing.T) {
	t.Parallel()
	var files []string
	sections := map[string]bool{}
	for _, s := range walkthrough(t) {
		if sections[s.section] = true; slices.Contains(crossing, s.section) && !slices.Contains(files, s.file) {
			files = append(files, s.file)
		}
	}
	for _, section := range crossing {
		if !sections[section] {
			t.Errorf("docs/walkthrough.md has no section %q", section)
		}
	}
	t.Logf("a message crosses %d files: %s", len(files), strings.Join(files, " "))
	if len(files) > mostCrossed {
		t.Errorf("a message crosses %d files from Send to the error table, at most %d are allowed", len(files), mostCrossed)
	}
	if len(files) < mostCrossed {
		t.Errorf("a message crosses %d files: lower mostCrossed", len(files))
	}
}
