package house

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestExamples runs every program in examples/ on a database of its own and compares what it prints with output.txt
// beside it.
func TestExamples(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob(filepath.Join(root, "examples", "*", "main.go"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples found (%v)", err)
	}
	for _, main := range examples {
		dir := filepath.Dir(main)
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := read(t, "examples", name, "main.go")
			if lines := bytes.Count(text, []byte("\n")); lines >= 100 {
				t.Errorf("%s has %d lines; an example has fewer than 100", main, lines)
			}
			want := read(t, "examples", name, "output.txt")
			url := pgtest.Database(t)
			program := exec.CommandContext(t.Context(), "go", "run", "./examples/"+name)
			program.Dir = root
			program.Env = append(os.Environ(), "DATABASE_URL="+url)
			var said bytes.Buffer
			program.Stderr = &said
			got, err := program.Output()
			if err != nil {
				t.Fatalf("%s: %v\n%s", program, err, &said)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s printed\n%s\nwant, from output.txt,\n%s\nand said\n%s", program, got, want, &said)
			}
		})
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
