package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts' files")

// TestMain makes the test binary be sqlq for the scripts, which find it under that name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "sqlq":
		os.Exit(Main())
	case "psql":
		os.Exit(psqlCode())
	}
	pgtest.Main(m)
}

// TestScripts runs testdata/script/*.txtar, each on a database of its own: DATABASE_URL is one with the schema, and in
// scripts that are called migrate* an empty one. Besides the commands of testscript they have
//
//	exits CODE PROGRAM ARGS...    run a program and want this exit code
//	sql FILE                      run SQL on the database
//	holds QUERY WANT              want that one value of a query
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("../../testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	bin := filepath.Dir(program(t))
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".txtar")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := pgtest.Database
			if strings.HasPrefix(name, "migrate") {
				database = pgtest.Empty
			}
			url := database(t)
			testscript.Run(t, testscript.Params{
				Files:         []string{script},
				UpdateScripts: *update,
				Setup: func(env *testscript.Env) error {
					env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
					env.Setenv("DATABASE_URL", url)
					env.Setenv("XDG_CACHE_HOME", cache) // sqlq dev may have to fetch its server
					env.Setenv("TMPDIR", os.TempDir())  // and its user must be able to enter
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "sql": runSQL, "holds": holds},
			})
		})
	}
}

// program returns the path of a sqlq that can be run, which is this test binary.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sqlq")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// command runs a command line in this process and returns the exit code and what was printed. answer is what somebody
// types on the terminal; "" is none.
func command(t *testing.T, answer string, args ...string) (code int, out, err string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	s := streams{in: strings.NewReader(answer), out: &stdout, err: &stderr}
	if answer != "" {
		s.inTerminal, s.outTerminal, s.errTerminal, s.width = true, true, true, 80
	}
	code = run(t.Context(), args, s)
	return code, stdout.String(), stderr.String()
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

func runSQL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sql FILE")
	}
	conn, err := pgx.Connect(context.Background(), ts.Getenv("DATABASE_URL"))
	ts.Check(err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), ts.ReadFile(args[0]))
	ts.Check(err)
}

func holds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: holds QUERY WANT")
	}
	conn, err := pgx.Connect(context.Background(), ts.Getenv("DATABASE_URL"))
	ts.Check(err)
	defer conn.Close(context.Background())
	var got any
	ts.Check(conn.QueryRow(context.Background(), args[0]).Scan(&got))
	if fmt.Sprint(got) != args[1] {
		ts.Fatalf("got %v, want %s", got, args[1])
	}
}
