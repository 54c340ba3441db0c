package house

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// adapters returns the packages of the modules in adapters/, which own leaves out.
func adapters(t *testing.T) (all []pkg) {
	t.Helper()
	modules, err := filepath.Glob(filepath.Join(root, "adapters", "*", "go.mod"))
	if err != nil || len(modules) < 2 {
		t.Fatalf("found the modules %q, %v", modules, err)
	}
	for _, file := range modules {
		within := path.Join("adapters", filepath.Base(filepath.Dir(file)))
		for _, p := range packages(t, os.DirFS(filepath.Dir(file))) {
			p.dir = path.Join(within, p.dir)
			for i := range p.files {
				p.files[i].name = path.Join(within, p.files[i].name)
			}
			all = append(all, p)
		}
	}
	return all
}

// Adapters are released by themselves, so their code, unlike their tests, uses the public API only. They have a README, a package comment,
// a comment on each exported name, and no SQL.
func TestAdapters(t *testing.T) {
	t.Parallel()
	for _, p := range adapters(t) {
		report(t, docFaults([]pkg{p}))
		if strings.Contains(p.dir, "/examples/") {
			continue
		}
		report(t, undocumented(p))
		if len(read(t, p.dir, "README.md")) == 0 {
			t.Errorf("%s has no README.md", p.dir)
		}
		for _, f := range p.files {
			report(t, internalImports(f))
			f.strings(func(at, text string) {
				if sql := onTables.FindString(text); sql != "" {
					t.Errorf("%s: SQL (%.40q): adapters have none", at, sql)
				}
			})
		}
	}
}

// internalImports lists the imports of internal packages.
func internalImports(f source) (faults []string) {
	for _, imported := range f.imports() {
		if slices.Contains(strings.Split(imported, "/"), "internal") {
			faults = append(faults, fmt.Sprintf("%s imports %s: adapters use the public API only", f.name, imported))
		}
	}
	return faults
}
