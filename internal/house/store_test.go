package house

import (
	"fmt"
	"go/ast"
	"strings"
	"testing"
)

const (
	storeDir = "sqlq/internal/store"
	opsDir   = "sqlq/ops"
	namesFor = storeDir + "/names.go" // names and quoting, which the operators' SQL shares with the runtime's
)

// storeFaults lists functions and methods of the store that the runtime does not call: SQL that only operators run belongs in
// sqlq/ops/internal/query.
func storeFaults(all []pkg) (faults []string) {
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
				if d, is := d.(*ast.FuncDecl); is && f.name != namesFor && d.Name.IsExported() && !strings.HasPrefix(d.Name.Name, "Scan") && !named[d.Name.Name] {
					faults = append(faults, fmt.Sprintf("%s: the runtime does not call %s: what only operators run belongs into sqlq/ops/internal/query", f.line(d), d.Name.Name))
				}
			}
		}
	}
	return faults
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
