package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// docs/errors.md lists every error that a caller of the library can distinguish, with the methods that return it and a test
// that provokes it; every exit code of the command line; and every error that the SQL functions raise.
func TestErrorsDoc(t *testing.T) {
	t.Parallel()
	doc := string(read(t, "docs", "errors.md"))
	for _, p := range own(t) {
		if !isLibrary(p.dir) || strings.Contains(p.dir, "internal") {
			continue
		}
		errs, callable := exportedErrors(p)
		rows := tableBelow(doc, "## Package "+filepath.Base(p.dir))
		if len(errs) == 0 && len(rows) == 0 {
			continue
		}
		tests := testsOf(t, p.dir)
		var listed []string
		for _, row := range rows {
			name := strings.Trim(row[0], "`*")
			listed = append(listed, name)
			if len(row) != 5 {
				t.Errorf("docs/errors.md, %s: %d columns, want 5", name, len(row))
				continue
			}
			for _, by := range backquoted.FindAllStringSubmatch(row[2], -1) {
				if exported := strings.TrimLeft(by[1], "*"); !callable[exported] && !slices.Contains(errs, exported) {
					t.Errorf("docs/errors.md, %s: package %s has no function %s", name, p.dir, exported)
				}
			}
			for _, test := range backquoted.FindAllStringSubmatch(row[4], -1) {
				if source, there := tests[test[1]]; !there || !strings.Contains(source, name) {
					t.Errorf("docs/errors.md, %s: package %s has no %s that names it", name, p.dir, test[1])
				}
			}
			if !strings.Contains(row[4], "`Test") {
				t.Errorf("docs/errors.md, %s: no test is named", name)
			}
		}
		same(t, "the errors of "+p.dir, listed, errs)
	}

	texts := string(read(t, "sqlq", "testdata", "errors.txt")) + string(read(t, "sqlq", "migrate", "errors_test.go"))
	_, block, _ := strings.Cut(doc, "```text\n")
	block, _, _ = strings.Cut(block, "\n```")
	for line := range strings.SplitSeq(block, "\n") {
		if !strings.Contains(texts, line) {
			t.Errorf("docs/errors.md: no test provokes %s", line)
		}
	}

	var codes []string
	for _, row := range tableBelow(doc, "## Exit codes") {
		codes = append(codes, row[0])
	}
	same(t, "the exit codes", codes, append(exitCodes(t), "0"))

	var raised []string
	for _, row := range tableBelow(doc, "## Errors of the SQL functions") {
		raised = append(raised, row[1]+" "+row[2])
	}
	same(t, "the errors that the SQL functions raise", raised, raisedErrors(t))
}

var backquoted = regexp.MustCompile("`([^`]+)`")

// same requires two lists to have the same entries; the first is from docs/errors.md.
func same(t *testing.T, what string, listed, there []string) {
	t.Helper()
	for _, name := range there {
		if !slices.Contains(listed, name) {
			t.Errorf("%s: docs/errors.md does not list %s", what, name)
		}
	}
	for _, name := range listed {
		if !slices.Contains(there, name) {
			t.Errorf("%s: docs/errors.md lists %s, which does not exist", what, name)
		}
	}
}

// tableBelow returns the rows of the table below a heading, without its header.
func tableBelow(doc, heading string) (rows [][]string) {
	_, section, _ := strings.Cut(doc, "\n"+heading)
	_, section, _ = strings.Cut(section, "\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.SplitSeq(section, "\n") {
		if row, is := strings.CutPrefix(line, "| "); is {
			cells := strings.Split(strings.TrimSuffix(row, " |"), " | ")
			for i := range cells {
				cells[i] = strings.TrimSpace(strings.Trim(cells[i], "|"))
			}
			rows = append(rows, cells)
		}
	}
	return rows[min(1, len(rows)):]
}

// exportedErrors returns the error variables and types of a package, and its exported functions and methods.
func exportedErrors(p pkg) (errs []string, callable map[string]bool) {
	callable = map[string]bool{}
	for _, f := range p.files {
		for _, d := range f.tree.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, is := spec.(*ast.ValueSpec); is && d.Tok == token.VAR {
						for _, name := range v.Names {
							if strings.HasPrefix(name.Name, "Err") {
								errs = append(errs, name.Name)
							}
						}
					}
				}
			case *ast.FuncDecl:
				name := d.Name.Name
				if on := receiver(d); on != "" {
					if name == "Error" && ast.IsExported(on) {
						errs = append(errs, on)
					}
					name = on + "." + name
				}
				callable[name] = true
			}
		}
	}
	return errs, callable
}

// receiver returns the name of the type that a method belongs to; "" for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	on := d.Recv.List[0].Type
	if star, is := on.(*ast.StarExpr); is {
		on = star.X
	}
	if index, is := on.(*ast.IndexExpr); is {
		on = index.X
	}
	if name, is := on.(*ast.Ident); is {
		return name.Name
	}
	return ""
}

// testsOf returns, for each test of a package, the text of the file that it is in.
func testsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range testFunc.FindAllSubmatch(text, -1) {
			tests[string(name[1])] = string(text)
		}
	}
	return tests
}

// exitCodes returns the values of the constants exit… of the command line.
func exitCodes(t *testing.T) (codes []string) {
	t.Helper()
	for _, found := range regexp.MustCompile(`(?m)^\s+exit[A-Z]\w*\s*= (\d+)`).FindAllSubmatch(read(t, "internal", "cli", "main.go"), -1) {
		codes = append(codes, string(found[1]))
	}
	return codes
}

// raisedErrors returns the condition and message of each RAISE in the migrations, as docs/errors.md writes them: with …
// for the parts that vary.
func raisedErrors(t *testing.T) (raised []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "migrations", "*.sql"))
	if err != nil {
		t.Fatal(err)
	}
	raise := regexp.MustCompile(`(?s)RAISE ([a-z_]+) USING\s+MESSAGE = ([^;]*?)(?:,\s*HINT|;)`)
	literal := regexp.MustCompile(`'((?:[^']|'')*)'`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if all, understood := strings.Count(string(text), "RAISE "), len(raise.FindAll(text, -1)); all != understood {
			t.Errorf("%s: %d RAISE statements, but this test understands only %d", file, all, understood)
		}
		for _, found := range raise.FindAllSubmatch(text, -1) {
			message := string(literal.FindSubmatch(found[2])[1])
			message = strings.NewReplacer("%s", "…", "%I", "…", "''", "'").Replace(message)
			if one := fmt.Sprintf("`%s` %s", found[1], strconv.Quote(message)); !slices.Contains(raised, one) {
				raised = append(raised, one)
			}
		}
	}
	return raised
}
