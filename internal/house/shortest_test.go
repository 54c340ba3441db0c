package house

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// TestShortestProgram builds the README's Go program, word for word, in a separate module outside the repository, and runs it
// against `sqlq dev`. The module requires what this one does, in the same versions, so nothing is downloaded that is not already
// there to build this test; `go mod tidy` would download more.
func TestShortestProgram(t *testing.T) {
	t.Parallel()
	pgtest.Server(t) // if it must be fetched, do that here, where it does not count as output
	var program *block
	readPage(t, string(read(t, "README.md"))).each(func(b *block) {
		if b.language == "go" && program == nil && strings.Contains(b.text(), "package main\n") {
			program = b
		}
	})
	if program == nil {
		t.Fatal("README.md has no Go program")
	}
	checkout, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("main.go", program.text())
	write("go.mod", string(read(t, "go.mod")))
	write("go.sum", string(read(t, "go.sum")))
	sh := newShell(t, "")
	run := func(command ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), command[0], command[1:]...)
		c.Dir = dir
		c.Env = append(sh.env, "GOFLAGS=", "GOPROXY=off", "GOWORK=off", "XDG_RUNTIME_DIR="+dir)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
		return string(out)
	}
	run("go", "mod", "edit", "-module=example.com/hello", "-require="+module+"@v0.0.0", "-replace="+module+"="+checkout)
	if out := run(filepath.Join(sh.bin, "sqlq"), "dev", "--", "go", "run", "."); strings.TrimSpace(out) != "Hello, world!" {
		t.Errorf("it printed\n%s", out)
	}
}
