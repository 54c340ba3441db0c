package house

import (
	"go/ast"
	"go/token"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// go doc must read like a manual: every exported name of a public package has a comment.
func TestExportedNamesHaveComments(t *testing.T) {
	t.Parallel()
	for _, p := range own(t) {
		for _, fault := range commentFaults(p) {
			t.Error(fault)
		}
	}
}

func TestCommentFaults(t *testing.T) {
	t.Parallel()
	source := `// Package a is one.
package a

type Bare struct {
	A int
	B int // has one
	c int
}

// Some has names.
type Some interface {
	M()
	// N has one.
	N()
}

func Func() {}

// F has one.
func F() {}

func (Bare) Method() {}
func (Bare) hidden() {}
func (h hidden) Method() {}

type hidden int

const (
	C = 1
	D = 2 // has one
)

// Group has one.
const Group = 1
var Var int
`
	all := packages(t, fstest.MapFS{"sqlq/a/a.go": {Data: []byte(source)}})
	got := strings.Join(commentFaults(all[0]), "\n")
	for _, name := range []string{"Bare", "Bare.A", "Some.M", "Func", "Bare.Method", "C", "Var"} {
		if !strings.Contains(got+"\n", ": "+name+" has no comment\n") {
			t.Errorf("%s was not found", name)
		}
	}
	if n := strings.Count(got, "has no comment"); n != 7 {
		t.Errorf("found %d, want 7:\n%s", n, got)
	}
}

// The links in the comments of a public package resolve.
func TestCommentLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`(?m)\[\*?([A-Z]\w*(?:\.[A-Z]\w*)?)\]`)
	found := 0
	for _, p := range own(t) {
		if !isLibrary(p.dir) || strings.Contains(p.dir, "internal") {
			continue
		}
		names := declared(p)
		for _, f := range p.files {
			for _, c := range f.tree.Comments {
				for line := range strings.SplitSeq(c.Text(), "\n") {
					if strings.HasPrefix(line, "\t") { // code
						continue
					}
					for _, to := range link.FindAllStringSubmatch(line, -1) {
						if found++; !names[to[1]] {
							t.Errorf("%s: the link [%s] leads nowhere", f.line(c), to[1])
						}
					}
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("found only %d links", found)
	}
}

// declared returns what a package declares: functions, methods as Type.Name, types, variables and constants.
func declared(p pkg) map[string]bool {
	_, names := exportedErrors(p)
	for _, f := range p.files {
		for _, d := range f.tree.Decls {
			if d, is := d.(*ast.GenDecl); is {
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						names[spec.Name.Name] = true
					case *ast.ValueSpec:
						for _, name := range spec.Names {
							names[name.Name] = true
						}
					}
				}
			}
		}
	}
	return names
}

// commentFaults lists the exported names of a public package that have no comment, and the package if it has none.
func commentFaults(p pkg) (faults []string) {
	if !isLibrary(p.dir) || strings.Contains(p.dir, "internal") || len(p.files) == 0 {
		return nil
	}
	if p.doc == "" {
		faults = append(faults, p.dir+": the package has no comment")
	}
	return append(faults, undocumented(p)...)
}

// undocumented lists the exported names of a package that have no comment.
func undocumented(p pkg) (faults []string) {
	for _, f := range p.files {
		want := func(n ast.Node, name string, comments ...*ast.CommentGroup) {
			for _, c := range comments {
				if c.Text() != "" {
					return
				}
			}
			faults = append(faults, f.line(n)+": "+name+" has no comment")
		}
		for _, d := range f.tree.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if on := receiver(d); d.Name.IsExported() && (d.Recv == nil || ast.IsExported(on)) {
					want(d, strings.TrimPrefix(on+"."+d.Name.Name, "."), d.Doc)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					wantSpec(d, spec, want)
				}
			}
		}
	}
	return faults
}

// wantSpec requires comments on a declared type, its fields and methods, or on declared constants and variables.
func wantSpec(d *ast.GenDecl, spec ast.Spec, want func(n ast.Node, name string, comments ...*ast.CommentGroup)) {
	alone := d.Doc
	if d.Lparen != token.NoPos {
		alone = nil // the comment is the group's
	}
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			if name.IsExported() {
				want(name, name.Name, alone, spec.Doc, spec.Comment)
			}
		}
	case *ast.TypeSpec:
		if !spec.Name.IsExported() {
			return
		}
		want(spec, spec.Name.Name, alone, spec.Doc, spec.Comment)
		var inside *ast.FieldList
		switch of := spec.Type.(type) {
		case *ast.StructType:
			inside = of.Fields
		case *ast.InterfaceType:
			inside = of.Methods
		default:
			return
		}
		for _, field := range inside.List {
			for _, name := range field.Names { // embedded types have their own comments
				if name.IsExported() {
					want(name, spec.Name.Name+"."+name.Name, field.Doc, field.Comment)
				}
			}
		}
	}
}
