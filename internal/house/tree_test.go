package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/sqlq/sqlq"

// root is the module's root folder, relative to this package's, in which its tests run.
var root = filepath.Join("..", "..")

// pkg is a package of the module as its files say, on any platform: files excluded from this one count too.
type pkg struct {
	dir   string // relative to the module's root
	doc   string // package comment
	tests bool   // it has test files
	files []source
}

// source is a file of a package that is not a test.
type source struct {
	name string // relative to the module's root
	fset *token.FileSet
	tree *ast.File
}

func (s source) imports() []string {
	var paths []string
	for _, spec := range s.tree.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func (s source) line(n ast.Node) string {
	return s.name + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

// strings calls visit with every string literal except imports.
func (s source) strings(visit func(at, text string)) {
	ast.Inspect(s.tree, func(n ast.Node) bool {
		if _, is := n.(*ast.ImportSpec); is {
			return false
		}
		if lit, is := n.(*ast.BasicLit); is && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				visit(s.line(n), text)
			}
		}
		return true
	})
}

// calls calls visit with the name of every called method, and of every called function of another package.
func (s source) calls(visit func(at, name string)) {
	ast.Inspect(s.tree, func(n ast.Node) bool {
		if call, is := n.(*ast.CallExpr); is {
			if selector, is := call.Fun.(*ast.SelectorExpr); is {
				visit(s.line(selector.Sel), selector.Sel.Name)
			}
		}
		return true
	})
}

// packages finds the packages of the module in fsys, without nested modules and hidden folders.
func packages(t *testing.T, fsys fs.FS) []pkg {
	t.Helper()
	all, err := readPackages(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func readPackages(fsys fs.FS) ([]pkg, error) {
	byDir := map[string]*pkg{}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if strings.HasPrefix(path.Base(name), ".") && name != "." {
				return fs.SkipDir
			}
			if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		dir := path.Dir(name)
		p := byDir[dir]
		if p == nil {
			p = &pkg{dir: dir}
			byDir[dir] = p
		}
		if strings.HasSuffix(name, "_test.go") {
			p.tests = true
			return nil
		}
		return p.add(fsys, name)
	})
	if err != nil {
		return nil, err
	}
	var all []pkg
	for _, p := range byDir {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b pkg) int { return strings.Compare(a.dir, b.dir) })
	return all, nil
}

func (p *pkg) add(fsys fs.FS, name string) error {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	fset := token.NewFileSet() // one for the files of a package
	if len(p.files) > 0 {
		fset = p.files[0].fset
	}
	s := source{name: name, fset: fset}
	if s.tree, err = parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
		return err
	}
	p.files = append(p.files, s)
	if doc := s.tree.Doc.Text(); doc != "" {
		p.doc = strings.TrimSpace(p.doc + "\n\n" + doc)
	}
	return nil
}

// own returns the module's own packages, which nobody changes.
func own(t *testing.T) []pkg {
	t.Helper()
	all, err := ownOnce()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d packages below %s", len(all), root)
	}
	return all
}

var ownOnce = sync.OnceValues(func() ([]pkg, error) { return readPackages(os.DirFS(root)) })
