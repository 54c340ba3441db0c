package house

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// layers are the runtime's packages from top to bottom. A package imports only those of lower rows.
var layers = [][]string{
	{"sqlq"},
	{"sqlq/internal/sending", "sqlq/internal/wakeup", "sqlq/internal/presence", "sqlq/internal/handmade"},
	{"sqlq/internal/session"},
	{"sqlq/internal/store", "migrations"},
}

// layerOf returns the row of a package, -1 if it has none.
func layerOf(dir string) int {
	return slices.IndexFunc(layers, func(row []string) bool { return slices.Contains(row, dir) })
}

// arrowsOf lists which packages of this module the runtime's packages import, each by its last name: "sending → store".
func arrowsOf(all []pkg) (arrows map[string][2]string) {
	arrows = map[string][2]string{}
	for _, p := range all {
		if layerOf(p.dir) < 0 && !strings.HasPrefix(p.dir, "sqlq/internal/") {
			continue
		}
		for _, f := range p.files {
			for _, imported := range f.imports() {
				if within, local := strings.CutPrefix(imported, module+"/"); local {
					arrows[filepath.Base(p.dir)+" → "+filepath.Base(within)] = [2]string{p.dir, within}
				}
			}
		}
	}
	return arrows
}

var drawn = regexp.MustCompile(`(?m)^ +(\w+) --> ([\w &]+)$`)

// The picture in docs/design.md shows exactly the imports there are, and none points up or sideways.
func TestArrowsAreAsDrawn(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	picture := map[string]bool{}
	for _, line := range drawn.FindAllStringSubmatch(string(text), -1) {
		for to := range strings.SplitSeq(line[2], " & ") {
			picture[line[1]+" → "+to] = true
		}
	}
	arrows := arrowsOf(own(t))
	for _, arrow := range slices.Sorted(maps.Keys(arrows)) {
		ends := arrows[arrow]
		from, to := layerOf(ends[0]), layerOf(ends[1])
		switch {
		case from < 0 || to < 0:
			t.Errorf("%s imports %s, and one of them has no row in layers", ends[0], ends[1])
		case from >= to:
			t.Errorf("%s imports %s: arrows point down", ends[0], ends[1])
		case !picture[arrow]:
			t.Errorf("docs/design.md does not draw %s", arrow)
		}
	}
	for arrow := range picture {
		if _, is := arrows[arrow]; !is {
			t.Errorf("docs/design.md draws %s, which is not so", arrow)
		}
	}
	t.Logf("%d arrows: %s", len(arrows), strings.Join(slices.Sorted(maps.Keys(arrows)), ", "))
}
