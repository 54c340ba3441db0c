package house

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

func TestMain(m *testing.M) {
	code := pgtest.Run(m)
	if dir := builtIn.Load(); dir != nil {
		if err := os.RemoveAll(*dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// TestExamples runs everything in examples/ the way its package comment says, and compares what it prints with its output.txt.
// A program either runs by itself, on a database of its own, or is part of a story in several terminals.
func TestExamples(t *testing.T) {
	t.Parallel()
	var mains []pkg
	stories := map[string]*story{} // by folder
	inStory := map[string]bool{}   // folders of programs that are part of a story
	for _, p := range own(t) {
		if !strings.HasPrefix(p.dir, "examples/") {
			continue
		}
		if s := readStory(p.doc); s != nil {
			stories[p.dir] = s
			for _, program := range s.programs() {
				inStory[program] = true
			}
		}
		if p.isProgram() {
			mains = append(mains, p)
		}
	}
	if len(mains) < 5 || len(stories) == 0 {
		t.Fatalf("found %d programs and %d stories", len(mains), len(stories))
	}

	bin := programs(t)
	for _, p := range mains {
		if inStory[p.dir] {
			continue
		}
		t.Run(strings.TrimPrefix(p.dir, "examples/"), func(t *testing.T) {
			t.Parallel()
			if command := "go run ./cmd/sqlq dev -- go run ./" + p.dir; !strings.HasSuffix(p.doc, command) {
				t.Errorf("the package comment does not end with the command that runs it: %s", command)
			}
			want := string(read(t, p.dir, "output.txt"))
			program := exec.CommandContext(t.Context(), filepath.Join(bin, path.Base(p.dir)))
			program.Env = append(os.Environ(), "DATABASE_URL="+pgtest.Database(t))
			var said bytes.Buffer
			program.Stderr = &said
			got, err := program.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, &said)
			}
			if normal(string(got)) != normal(want) {
				t.Errorf("printed\n%s\nwant, from output.txt,\n%s\nand logged\n%s", got, want, &said)
			}
		})
	}
	for dir, s := range stories {
		t.Run(strings.TrimPrefix(dir, "examples/"), func(t *testing.T) {
			t.Parallel()
			s.tell(t, bin, string(read(t, dir, "output.txt")))
		})
	}
}

// programs returns the folder with sqlq and the programs of examples/, each under its own name, which are built once.
func programs(t *testing.T) (bin string) {
	t.Helper()
	bin, err := builtOnce()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

var builtOnce = sync.OnceValues(func() (bin string, err error) {
	all, err := ownOnce()
	if err != nil {
		return "", err
	}
	if bin, err = os.MkdirTemp("", "sqlq-house-"); err != nil {
		return "", err
	}
	builtIn.Store(&bin)
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin+string(filepath.Separator), "./cmd/sqlq")
	build.Dir = root
	names := map[string]string{"sqlq": "cmd/sqlq"}
	for _, p := range all {
		if !strings.HasPrefix(p.dir, "examples/") || !p.isProgram() {
			continue
		}
		name := path.Base(p.dir)
		if other := names[name]; other != "" {
			return "", fmt.Errorf("%s and %s have the same program name", other, p.dir)
		}
		names[name] = p.dir
		build.Args = append(build.Args, "./"+p.dir)
	}
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return bin, nil
})

// builtIn is the folder of programs, which TestMain removes.
var builtIn atomic.Pointer[string]

func (p pkg) isProgram() bool { return len(p.files) > 0 && p.files[0].tree.Name.Name == "main" }

// TestExamplesAreShort checks that every file of an example has fewer than a hundred lines, and that the README lists each example.
func TestExamplesAreShort(t *testing.T) {
	t.Parallel()
	readme := string(read(t, "README.md"))
	examples, err := os.ReadDir(filepath.Join(root, "examples"))
	if err != nil {
		t.Fatal(err)
	}
	for _, example := range examples {
		if !strings.Contains(readme, "](examples/"+example.Name()) {
			t.Errorf("README.md has no link to examples/%s", example.Name())
		}
	}
	files := 0
	err = fs.WalkDir(os.DirFS(root), "examples", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		if lines := bytes.Count(read(t, name), []byte("\n")); lines >= 100 {
			t.Errorf("%s has %d lines; a file of an example must have fewer than 100", name, lines)
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("%d files, %v", files, err)
	}
}

// read reads a file of the project.
func read(t *testing.T, name ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
