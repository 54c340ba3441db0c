package house

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	storeDir = "sqlq/internal/store"
	opsDir   = "sqlq/ops"
	namesFor = storeDir + "/names.go" // names and quoting, which the operators' SQL shares with the runtime's
)

// storeFaults lists functions and methods of the store that the runtime does not call: SQL that only operators run belongs in
// sqlq/ops/internal/query.
func storeFaults(all []pkg) (faults []string) {
	nouns := map[string]bool{} // the fields of store.Schema: what they have is called by both names
	for _, p := range all {
		if p.dir == storeDir {
			nouns = fieldsOf(p, "Schema")
		}
	}
	named := map[string]bool{} // outside of the operators' packages
	for _, p := range all {
		if p.dir == opsDir || strings.HasPrefix(p.dir, opsDir+"/") {
			continue
		}
		for _, f := range p.files {
			ast.Inspect(f.tree, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					named[n.Sel.Name] = true
					if noun, is := n.X.(*ast.SelectorExpr); is {
						named[noun.Sel.Name+"."+n.Sel.Name] = true
					}
				case *ast.CallExpr:
					if id, is := n.Fun.(*ast.Ident); is {
						named[id.Name] = true
					}
				}
				return true
			})
		}
	}
	for _, p := range all {
		if p.dir != storeDir {
			continue
		}
		for _, f := range p.files {
			for _, d := range f.tree.Decls {
				d, is := d.(*ast.FuncDecl)
				if !is || f.name == namesFor || !d.Name.IsExported() || strings.HasPrefix(d.Name.Name, "Scan") {
					continue
				}
				name := d.Name.Name
				if d.Recv != nil && nouns[receiver(d)] {
					name = receiver(d) + "." + name
				}
				if !named[name] {
					faults = append(faults, fmt.Sprintf("%s: the runtime does not call %s: what only operators run belongs into sqlq/ops/internal/query", f.line(d), name))
				}
			}
		}
	}
	return faults
}

// fieldsOf returns the exported fields of a struct.
func fieldsOf(p pkg, of string) map[string]bool {
	fields := map[string]bool{}
	for _, f := range p.files {
		ast.Inspect(f.tree, func(n ast.Node) bool {
			spec, is := n.(*ast.TypeSpec)
			if !is || spec.Name.Name != of {
				return true
			}
			if s, is := spec.Type.(*ast.StructType); is {
				for _, field := range s.Fields.List {
					for _, name := range field.Names {
						fields[name.Name] = name.IsExported()
					}
				}
			}
			return true
		})
	}
	return fields
}

// maxMethods is how many methods a type of the operators' packages may have; one with more should be several types.
const maxMethods = 40

// methodFaults lists types of the operators' packages with too many methods.
func methodFaults(all []pkg) (faults []string) {
	for _, p := range all {
		if p.dir != opsDir && !strings.HasPrefix(p.dir, opsDir+"/") {
			continue
		}
		methods := map[string]int{}
		for _, f := range p.files {
			for _, d := range f.tree.Decls {
				if d, is := d.(*ast.FuncDecl); is && d.Recv != nil {
					methods[receiver(d)]++
				}
			}
		}
		for of, n := range methods {
			if n > maxMethods {
				faults = append(faults, fmt.Sprintf("package %s: %s has %d methods, the most is %d: divide it by what they are about", p.dir, of, n, maxMethods))
			}
		}
	}
	return faults
}

func TestOperatorsTypesAreSmall(t *testing.T) {
	t.Parallel()
	report(t, methodFaults(own(t)))
}

func TestTheStoreIsTheRuntimes(t *testing.T) {
	t.Parallel()
	report(t, storeFaults(own(t)))
}

// TestStoreFaultsAreFound plants one: a method is called by its noun and its name, and the name alone says nothing.
func TestStoreFaultsAreFound(t *testing.T) {
	t.Parallel()
	tree := fstest.MapFS{
		storeDir + "/a.go": {Data: []byte(`package store

type Schema struct {
	Ready  Ready
	Leases Leases
}

type Ready struct{}

func (Ready) Fetch() {}

type Leases struct{}

func (Leases) Fetch() {}
`)},
		"sqlq/a.go": {Data: []byte(`package sqlq

func f(c client) { c.store.Ready.Fetch() }
`)},
	}
	faults := storeFaults(slices.DeleteFunc(packages(t, tree), func(p pkg) bool { return p.files == nil }))
	if len(faults) != 1 || !strings.Contains(faults[0], "Leases.Fetch") {
		t.Errorf("%q", faults)
	}
}
