package sqlqtest

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// role creates a role with that name, and returns the URL with which it connects to the server.
func role(t *testing.T, name, attributes string) string {
	t.Helper()
	s := pgtest.Server(t)
	if err := s.Admin(t.Context(), `CREATE ROLE `+name+` LOGIN `+attributes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, statement := range append(dropsOf(t, name), `DROP ROLE `+name) {
			if err := s.Admin(context.Background(), statement); err != nil {
				t.Error(err)
			}
		}
	})
	u, err := url.Parse(s.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(name)
	return u.String()
}

// databases lists those that a role owns.
func databases(t *testing.T, role string) []string {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), pgtest.Server(t).URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(), `SELECT datname FROM pg_database WHERE datdba = to_regrole($1) ORDER BY datname`, role)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func dropsOf(t *testing.T, role string) (statements []string) {
	for _, name := range databases(t, role) {
		statements = append(statements, `DROP DATABASE `+name+` WITH (FORCE)`)
	}
	return statements
}

// open opens the user's own server as another test binary would.
func open(t *testing.T, url string) *server { t.Helper(); return openPrepared(t, url, preparation{}) }

func openPrepared(t *testing.T, url string, p preparation) *server {
	t.Helper()
	s, err := openServer(url, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.die(t) })
	return s
}

// die closes the connection that shows that the test binary is alive.
func (s *server) die(t *testing.T) {
	if s.alive.IsClosed() {
		return
	}
	if err := s.alive.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func (s *server) mustCreate(t *testing.T, test string) string {
	t.Helper()
	name, err := s.create(t.Context(), "sqlq", test)
	if err != nil {
		t.Error(err)
	}
	return name
}

// On the user's own server, concurrent test binaries share one template, which stays; databases that a killed one has left are
// dropped by the next, and only those. The role need not be a superuser.
func TestOwnServer(t *testing.T) {
	t.Parallel()
	const owner = "sqlqtest_developer"
	url := role(t, owner, "CREATEDB")
	killed, lives := open(t, url), open(t, url)
	var left, kept string
	var both sync.WaitGroup
	both.Go(func() { left = killed.mustCreate(t, "TestLeft/Behind") })
	both.Go(func() { kept = lives.mustCreate(t, "TestKept") })
	both.Wait()
	if !strings.HasSuffix(left, "_testleft_behind") {
		t.Errorf("a database is called %s", left)
	}
	template := func(name string) bool { return strings.HasPrefix(name, templatePrefix) }
	names := databases(t, owner)
	if !slices.Contains(names, left) || !slices.Contains(names, kept) || !slices.ContainsFunc(names, template) || len(names) != 3 {
		t.Errorf("there are %q, want %s, %s and a template", names, left, kept)
	}
	killed.die(t)
	// The server notices the end of a session a little later.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for slices.Contains(databases(t, owner), left) {
		if ctx.Err() != nil {
			t.Fatalf("%s is still there", left)
		}
		open(t, url).die(t)
	}
	names = databases(t, owner)
	if !slices.Contains(names, kept) || !slices.ContainsFunc(names, template) || len(names) != 2 {
		t.Errorf("then there are %q, want %s and a template", names, kept)
	}
	conn, err := pgx.Connect(t.Context(), lives.URL(kept))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `SELECT sqlq.create_queue('sales'); SELECT sqlq.send('sales', 'sales.PlaceOrder', '{}')`); err != nil {
		t.Error(err)
	}
}

// A role that may not create databases is told what is missing.
func TestOwnServerRefuses(t *testing.T) {
	t.Parallel()
	s := open(t, role(t, "sqlqtest_guest", ""))
	if _, err := s.create(t.Context(), "sqlq", "TestX"); err == nil || !strings.Contains(err.Error(), "ALTER ROLE … CREATEDB") {
		t.Errorf("create: %v", err)
	}
	if _, err := s.create(t.Context(), "pg_own", "TestX"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("create with a schema that is not allowed: %v", err)
	}
}

// The function given to Prepare is applied once, until what it works from changes.
func TestPrepare(t *testing.T) {
	t.Parallel()
	url := role(t, "sqlqtest_preparer", "CREATEDB")
	var applied int
	preparing := func(file string, failure error) preparation {
		return preparation{fstest.MapFS{"00001_shop.sql": {Data: []byte(file)}}, func(ctx context.Context, url string) error {
			applied++
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				return err
			}
			defer conn.Close(ctx)
			_, err = conn.Exec(ctx, file)
			return errors.Join(err, failure)
		}}
	}
	tables := func(s *server) (n int) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), s.URL(s.mustCreate(t, "TestX")))
		if err == nil {
			defer conn.Close(context.Background())
			err = conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relname IN ('orders', 'invoices') OR relname = 'q_sales'`).Scan(&n)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const one = `CREATE SCHEMA shop; CREATE TABLE shop.orders (id int); SELECT sqlq.create_queue('sales')`
	const two = one + `; CREATE TABLE shop.invoices (id int)`
	broken := openPrepared(t, url, preparing(one, errors.New("no luck")))
	for range 2 {
		if _, err := broken.create(t.Context(), "sqlq", "TestX"); err == nil || !strings.Contains(err.Error(), "function given to Prepare: no luck") {
			t.Errorf("create: %v", err)
		}
	}
	if left := databases(t, "sqlqtest_preparer"); len(left) > 0 {
		t.Errorf("a failure has left %q", left)
	}
	applied = 0
	for _, c := range []struct {
		file                   string
		wantTables, wantCalled int
	}{{one, 2, 1}, {one, 2, 1}, {two, 3, 2}, {one, 2, 2}} {
		if got := tables(openPrepared(t, url, preparing(c.file, nil))); got != c.wantTables || applied != c.wantCalled {
			t.Errorf("%d tables after %d calls, want %d and %d", got, applied, c.wantTables, c.wantCalled)
		}
	}
}
