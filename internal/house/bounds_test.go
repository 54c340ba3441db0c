package house

import (
	"fmt"
	"go/ast"
	"go/types"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// These bounds keep the library in parts: no type with too many methods, and no mutex that is taken all over the
// place.
const (
	mostMethods    = 40
	mostMutexFiles = 5
)

// methodsOf counts the methods of each type of a package.
func methodsOf(p pkg) map[string]int {
	counts := map[string]int{}
	for _, f := range p.files {
		for _, d := range f.tree.Decls {
			if fn, is := d.(*ast.FuncDecl); is && fn.Recv != nil {
				counts[p.dir+"."+receiverOf(fn)]++
			}
		}
	}
	return counts
}

// receiverOf returns the name of a method's type.
func receiverOf(fn *ast.FuncDecl) string {
	t := fn.Recv.List[0].Type
	for {
		switch inner := t.(type) {
		case *ast.StarExpr:
			t = inner.X
		case *ast.IndexExpr:
			t = inner.X
		case *ast.Ident:
			return inner.Name
		default:
			return ""
		}
	}
}

// mutexFiles lists, for each mutex that is a field of a type of the package, the files in which it is taken.
func mutexFiles(t *testing.T, p pkg) map[string]map[string]bool {
	t.Helper()
	var files []*ast.File
	for _, f := range p.files {
		if f.tree.Name.Name != p.files[0].tree.Name.Name || strings.Contains(f.name, "_other") {
			continue
		}
		files = append(files, f.tree)
	}
	info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
	// Other packages are not loaded. Errors that follow from that are ignored; the fields of this package's types are still known.
	config := types.Config{Importer: blank{}, Error: func(error) {}}
	checked, _ := config.Check(p.dir, p.files[0].fset, files, info)
	owners := map[types.Object]string{}
	for _, name := range checked.Scope().Names() {
		named, is := checked.Scope().Lookup(name).Type().(*types.Named)
		if !is {
			continue
		}
		if s, is := named.Underlying().(*types.Struct); is {
			for i := range s.NumFields() {
				owners[s.Field(i)] = p.dir + "." + name + "." + s.Field(i).Name()
			}
		}
	}
	taken := map[string]map[string]bool{}
	for _, f := range p.files {
		ast.Inspect(f.tree, func(n ast.Node) bool {
			call, is := n.(*ast.CallExpr)
			if !is {
				return true
			}
			method, is := call.Fun.(*ast.SelectorExpr)
			if !is || !slices.Contains([]string{"Lock", "RLock", "TryLock"}, method.Sel.Name) {
				return true
			}
			if field, is := method.X.(*ast.SelectorExpr); is && info.Selections[field] != nil {
				if owner := owners[info.Selections[field].Obj()]; owner != "" {
					if taken[owner] == nil {
						taken[owner] = map[string]bool{}
					}
					taken[owner][path.Base(f.name)] = true
				}
			}
			return true
		})
	}
	return taken
}

// blank imports every package as an empty one.
type blank struct{}

func (blank) Import(path string) (*types.Package, error) {
	name := path[strings.LastIndex(path, "/")+1:]
	if name == "v5" {
		name = "pgx"
	}
	p := types.NewPackage(path, name)
	p.MarkComplete()
	return p, nil
}

// overBounds lists what is above its bound.
func overBounds(what string, counts map[string]int, most int) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[name]; n > most {
			faults = append(faults, fmt.Sprintf("%s: %s %d, at most %d are allowed", name, what, n, most))
		}
	}
	return faults
}

func TestNoTypeHasTooManyMethods(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for _, p := range own(t) {
		maps.Copy(counts, methodsOf(p))
	}
	logLargest(t, "methods", counts)
	report(t, overBounds("methods:", counts, mostMethods))
}

func TestNoMutexIsTakenAllOverThePlace(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for _, p := range own(t) {
		if !isLibrary(p.dir) || len(p.files) == 0 {
			continue
		}
		for name, files := range mutexFiles(t, p) {
			counts[name] = len(files)
		}
	}
	if len(counts) < 10 {
		t.Errorf("only %d mutexes were found", len(counts))
	}
	logLargest(t, "files", counts)
	report(t, overBounds("files that take it:", counts, mostMutexFiles))
}

// logLargest logs the largest few.
func logLargest(t *testing.T, what string, counts map[string]int) {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return counts[b] - counts[a] })
	for _, name := range names[:min(len(names), 8)] {
		t.Logf("%4d %s: %s", counts[name], what, name)
	}
}

// TestBoundsFindFaults plants one.
func TestBoundsFindFaults(t *testing.T) {
	t.Parallel()
	if got := overBounds("x:", map[string]int{"a": 3, "b": 5, "c": 4}, 4); len(got) != 1 || !strings.Contains(got[0], "b:") {
		t.Errorf("%q", got)
	}
}
