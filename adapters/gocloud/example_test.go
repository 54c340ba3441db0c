package sqlqpubsub

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// The examples print what stands in their output.txt.
func TestExamples(t *testing.T) {
	t.Parallel()
	programs, err := filepath.Glob("examples/*/main.go")
	if err != nil || len(programs) == 0 {
		t.Fatalf("%q, %v", programs, err)
	}
	for _, program := range programs {
		dir := filepath.Dir(program)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(filepath.Join(dir, "output.txt"))
			if err != nil {
				t.Fatal(err)
			}
			command := exec.CommandContext(t.Context(), "go", "run", "./"+filepath.ToSlash(dir))
			command.Env = append(os.Environ(), "DATABASE_URL="+pgtest.Database(t))
			var said bytes.Buffer
			command.Stderr = &said
			got, err := command.Output()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v, printed\n%s\nwant\n%s\nand said\n%s", err, got, want, &said)
			}
		})
	}
}
