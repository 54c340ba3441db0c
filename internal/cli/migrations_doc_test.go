package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// The shell of docs/migrations.md runs, one block after the other on one database, with the psql that is installed, or one
// that does as much as is needed here.
func TestMigrationsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/migrations.md")
	if err != nil {
		t.Fatal(err)
	}
	sqlq := program(t)
	bin := filepath.Dir(sqlq)
	if _, err := exec.LookPath("psql"); err != nil {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(self, filepath.Join(bin, "psql")); err != nil {
			t.Fatal(err)
		}
	}
	url, dir := pgtest.Empty(t), t.TempDir()
	blocks := strings.Split(string(page), "```sh\n")[1:]
	for _, block := range blocks {
		script, _, _ := strings.Cut(block, "```\n")
		// Standard input ends at once, so whatever asks fails.
		c := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
		c.Dir = dir
		c.Env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "DATABASE_URL="+url)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s\n%s", err, script, out)
		}
	}
	if len(blocks) != 4 {
		t.Errorf("%d blocks were run, want 4", len(blocks))
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var schemas int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relname = 'history' AND relkind = 'r'`).Scan(&schemas); err != nil || schemas != 2 {
		t.Errorf("%d schemas have the newest version at the end (%v), want sqlq and by_hand", schemas, err)
	}
}

// psql stands in for PostgreSQL's where that is not installed: it runs a file, or standard input, in one transaction.
func psql(args []string) error {
	text, err := io.ReadAll(os.Stdin)
	if i := slices.Index(args, "-f"); i >= 0 {
		text, err = os.ReadFile(args[i+1])
	}
	if err != nil {
		return err
	}
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, args[len(args)-1])
	if err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, string(text)).ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

func psqlCode() int {
	if err := psql(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "psql:", err)
		return 3
	}
	return 0
}
