// Package pgtest gives each test a PostgreSQL database of its own.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestSend(t *testing.T) {
//		t.Parallel()
//		pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
//		…
//
// A test binary has at most one server, which the first call starts, and one template database, which the first call of
// Database migrates. Each Database is a copy of it, so tests can run at the same time and need not clean up. If the
// server or the template cannot be created, every test that asks for it fails with the reason.
//
// SQLQ_TEST_POSTGRES=18 makes tests fetch PostgreSQL 18 and use it. SQLQ_TEST_EXTRA_MIGRATION=/path/to/file.sql applies one further
// migration to the schema of each Database, as a newer release would: see testdata/window.
package pgtest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// Schema is the schema that Database has migrated.
const Schema = "sqlq"

// Main is for TestMain: it runs the tests, stops the server if there is one, and exits. (A test binary without it
// leaves nothing behind either, but kills its server instead of stopping it.) When the tests have passed, it looks for goroutines
// of the library and its sessions on the server that are still there, and fails if it finds any.
//
// Tests with a database wait more than they compute, so more of them run at a time than there are processors, unless -parallel
// says how many.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has something to do before it exits with the code that Run returns.
func Run(m *testing.M) int {
	flag.Parse()
	if cores := runtime.GOMAXPROCS(0); !parallelGiven() {
		_ = flag.Set("test.parallel", strconv.Itoa(min(4*cores, max(cores, 8))))
	}
	code := m.Run()
	if code == 0 {
		if err := leftBehind(); err != nil {
			fmt.Fprintln(os.Stderr, "the tests have left behind:", err)
			code = 1
		}
	}
	if s := running.Load(); s != nil {
		if err := s.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the tests' PostgreSQL:", err)
			code = max(code, 1)
		}
	}
	return code
}

func parallelGiven() (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	return given
}

// Server returns the test binary's server. All tests share it: do not stop it, or change its settings.
func Server(t testing.TB) *devpg.Server {
	t.Helper()
	s, err := Start()
	if err != nil {
		t.Fatal("start a PostgreSQL for tests: ", err)
	}
	return s
}

// Start returns the test binary's server; the first call starts it. Later calls get the same result.
func Start() (*devpg.Server, error) { return server() }

// Database returns the URL of a new database with a migrated schema "sqlq". At the end of the test, after the cleanups that the
// test itself has registered, it is dropped together with its connections.
func Database(t testing.TB) string {
	t.Helper()
	s := Server(t)
	if err := template(); err != nil {
		t.Fatal("create the template of test databases: ", err)
	}
	return create(t, s, templateName)
}

// Empty returns the URL of a new, empty database. It is dropped as one of Database is.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, Server(t), "template0")
}

var running atomic.Pointer[devpg.Server] // for Main: nil if no test needed a server

var server = sync.OnceValues(func() (*devpg.Server, error) {
	o, err := devpg.TestOptions()
	if err != nil {
		return nil, err
	}
	// Compiling a test's own counts costs more than it saves. (The library's sessions have jit off, which tests see for themselves.)
	o.Settings = map[string]string{"jit_above_cost": "-1"}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // long enough for a download
	defer cancel()
	s, err := devpg.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	running.Store(s)
	return s, nil
})

const templateName = "sqlq_template"

var template = sync.OnceValue(func() error {
	s, err := server()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const unfinished = templateName + "_unfinished"
	if err := s.CreateDatabase(ctx, unfinished, "template1"); err != nil {
		return err
	}
	if err := migrate.Up(ctx, s.URL(unfinished), Schema); err != nil {
		return err
	}
	if err := migrateFurther(ctx, s.URL(unfinished), os.Getenv("SQLQ_TEST_EXTRA_MIGRATION")); err != nil {
		return err
	}
	return s.MakeTemplate(ctx, unfinished, templateName)
})

// migrateFurther applies a file as the migration after the latest; "" for none.
func migrateFurther(ctx context.Context, url, file string) error {
	if file == "" {
		return nil
	}
	sql, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read SQLQ_TEST_EXTRA_MIGRATION: %w", err)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect for %s: %w", file, err)
	}
	defer conn.Close(ctx)
	_, err = conn.PgConn().Exec(ctx, fmt.Sprintf("SET search_path = %s; BEGIN; %s; INSERT INTO sqlq_migration (version_id, is_applied) SELECT max(version_id) + 1, true FROM sqlq_migration; COMMIT",
		Schema, sql)).ReadAll()
	if err != nil {
		return fmt.Errorf("apply %s: %w", file, err)
	}
	return nil
}

// createWithin and dropWithin limit one statement. They take milliseconds, on a busy machine seconds.
const (
	createWithin = time.Minute
	dropWithin   = time.Minute
)

var created atomic.Int64

func create(t testing.TB, s *devpg.Server, template string) string {
	t.Helper()
	name := databaseName(created.Add(1), t.Name())
	ctx, cancel := context.WithTimeout(context.Background(), createWithin)
	defer cancel()
	if err := s.CreateDatabase(ctx, name, template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dropWithin)
		defer cancel()
		if err := s.DropDatabase(ctx, name); err != nil {
			t.Error(err)
		}
	})
	return s.URL(name)
}

// databaseName names a test's database after it, for people who look at the server. The number makes it unique.
func databaseName(n int64, test string) string {
	test = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, test)
	return fmt.Sprintf("t%d_%.40s", n, test)
}
