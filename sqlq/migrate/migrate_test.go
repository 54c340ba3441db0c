package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// all is how many migrations there are.
var all = int(migrations.Latest() - migrations.First() + 1)

// Any schema name will do, several schemas live in one database, each with its own tables and record, and a schema that
// goes down leaves the others alone.
func TestOddSchemaNamesSideBySide(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	for _, schema := range oddNames {
		steps, err := migrator(t, url, schema).Up(t.Context())
		if err != nil {
			t.Fatalf("%q: %v", schema, err)
		}
		if len(steps) != all {
			t.Errorf("%q: %d steps, want %d", schema, len(steps), all)
		}
	}
	if err := migrate.Up(t.Context(), url, "sqlq"); err != nil {
		t.Fatal(err)
	}
	want := describe(t, conn, "sqlq")
	for _, schema := range oddNames {
		sameLines(t, describe(t, conn, schema), want, fmt.Sprintf("schema %q", schema), "sqlq")
		var copies int
		exec(t, conn, fmt.Sprintf(`SELECT %s('Sales')`, qualified(schema, "create_queue")))
		exec(t, conn, fmt.Sprintf(`INSERT INTO %s VALUES ('happened', 'Sales')`, qualified(schema, "subscription")))
		exec(t, conn, fmt.Sprintf(`SELECT %s('Sales', 't', '1')`, qualified(schema, "send")))
		exec(t, conn, fmt.Sprintf(`SELECT %s('Sales', 't', '1', delay => '1 hour')`, qualified(schema, "send")))
		if err := conn.QueryRow(t.Context(), fmt.Sprintf(`SELECT %s('happened', '1')`, qualified(schema, "publish"))).Scan(&copies); err != nil || copies != 1 {
			t.Errorf("%q: publish made %d copies, %v", schema, copies, err)
		}
		if err := conn.QueryRow(t.Context(), fmt.Sprintf(`SELECT count(*) FROM %s`, qualified(schema, "q_Sales"))).Scan(&copies); err != nil || copies != 2 {
			t.Errorf("%q: %d messages in its queue, %v; want 2", schema, copies, err)
		}
		exec(t, conn, fmt.Sprintf(`SELECT %s('Sales', true)`, qualified(schema, "drop_queue")))
	}
	for _, schema := range oddNames {
		if _, err := migrator(t, url, schema).Down(t.Context(), 0); err != nil {
			t.Errorf("%q: %v", schema, err)
		}
	}
	sameLines(t, describe(t, conn, "sqlq"), want, "sqlq after the others went down", "sqlq before")
}

// Eight processes that start at once and all migrate do it once.
func TestManyMigrateAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	const many = 8
	var together, ended sync.WaitGroup
	together.Add(many)
	applied, errs := make([]int, many), make([]error, many)
	for i := range many {
		m := migrator(t, url, "sqlq") // its own pool and connections, as in another process
		ended.Go(func() {
			together.Done()
			together.Wait()
			steps, err := m.Up(context.Background())
			applied[i], errs[i] = len(steps), err
		})
	}
	ended.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range applied {
		total += n
	}
	if total != all {
		t.Errorf("%d migrations were applied by the %d together, want %d: %v", total, many, all, applied)
	}
	conn := connect(t, url)
	exec(t, conn, `SELECT sqlq.create_queue('example')`)
	if got := versionOf(t, conn, "sqlq.sqlq_migration"); !strings.HasPrefix(got, "0 11 12 ") || len(strings.Fields(got)) != all+1 {
		t.Errorf("the record says %s", got)
	}
}

// Status looks and does nothing else: not on an empty database, not in the middle, not at the end.
func TestStatusChangesNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	m, conn := migrator(t, url, "sqlq"), connect(t, url)
	everything := func() string {
		t.Helper()
		return strings.Join(texts(t, conn, `
			SELECT 'schema ' || nspname || ' ' || xmin FROM pg_namespace
			UNION ALL SELECT 'relation ' || oid::regclass || ' ' || xmin FROM pg_class
			UNION ALL SELECT 'function ' || oid::regprocedure || ' ' || xmin FROM pg_proc
			ORDER BY 1`), "\n") + "\n"
	}
	status := func(applied bool) {
		t.Helper()
		before := everything()
		states, err := m.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(states) != all {
			t.Errorf("%d migrations, want %d", len(states), all)
		}
		for i, s := range states {
			if s.Version != migrations.First()+int64(i) || !strings.HasSuffix(s.Name, ".sql") || s.AppliedAt.IsZero() == applied {
				t.Errorf("state %d is %+v, want it applied: %v", i, s, applied)
			}
		}
		sameLines(t, everything(), before, "the database after Status", "before")
	}
	status(false)
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	status(true)
	if _, err := m.Down(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	status(false)
}

// Whatever form the database has dates in, the record is read.
func TestStatusWithAnotherDateStyle(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	exec(t, conn, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET datestyle = ''German, DMY''', current_database()); END $$`)
	m := migrator(t, url, "sqlq")
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	states, err := m.Status(t.Context())
	if err != nil || states[0].AppliedAt.IsZero() {
		t.Errorf("Status: %+v, %v", states, err)
	}
	if different, err := m.Validate(t.Context()); err != nil || len(different) > 0 {
		t.Errorf("Validate: %+v, %v", different, err)
	}
}

// servesNewer says that the schema serves newer programs than this one only.
func servesNewer(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, fmt.Sprintf(`CREATE OR REPLACE FUNCTION sqlq.oldest_library() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT %d::bigint'`, migrations.Latest()+1))
}

func TestUpRefuses(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	newer := connect(t, url)
	exec(t, newer, `INSERT INTO sqlq.sqlq_migration (version_id, is_applied) VALUES ($1, true)`, migrations.Latest()+1)
	m := migrator(t, url, "sqlq")
	if steps, err := m.Up(t.Context()); err != nil || len(steps) > 0 {
		t.Errorf("Up on a schema of a newer release that serves this one: %v, %v; want nothing", steps, err)
	}
	if _, err := m.Down(t.Context(), 0); !errors.Is(err, migrate.ErrNewerSchema) {
		t.Errorf("Down of a schema of a newer release: %v, want ErrNewerSchema", err)
	}
	servesNewer(t, newer)
	if _, err := m.Up(t.Context()); !errors.Is(err, migrate.ErrNewerSchema) {
		t.Errorf("Up on a schema of a newer release: %v, want ErrNewerSchema", err)
	}
	// PostgreSQL would take each of them for another schema.
	for _, name := range []string{"", "$user", "pg_temp", "pg_catalog", "nul\x00", strings.Repeat("s", 64)} {
		if err := migrate.Up(t.Context(), url, name); err == nil {
			t.Errorf("Up in schema %q succeeded", name)
		}
		if _, err := migrate.Script(name); err == nil {
			t.Errorf("Script for schema %q succeeded", name)
		}
	}
	if err := migrate.Up(t.Context(), "postgres://%", "sqlq"); err == nil {
		t.Error("Up with a connection string that is none succeeded")
	}
}

// A migration that fails leaves nothing of itself, and Up can be called again once the reason is gone.
func TestFailedUpLeavesNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	m, conn := migrator(t, url, "sqlq"), connect(t, url)
	exec(t, conn, `CREATE SCHEMA sqlq`)
	exec(t, conn, `CREATE TABLE sqlq.granted (mine int)`) // among the last that the migration makes
	if steps, err := m.Up(t.Context()); err == nil || len(steps) > 0 {
		t.Fatalf("Up over a table of the same name: %v, %v", steps, err)
	}
	if left := texts(t, conn, `SELECT relname FROM pg_class WHERE relnamespace = 'sqlq'::regnamespace AND relkind = 'r' AND relname NOT IN ('granted', 'sqlq_migration')`); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	exec(t, conn, `DROP TABLE sqlq.granted`)
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}
