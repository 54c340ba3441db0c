package migrate_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// What Up makes is as it should be, whatever the schema and its queues are called, at every version.
func TestValidateFindsNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	for _, schema := range append([]string{"sqlq"}, oddNames...) {
		m := migrator(t, url, schema)
		if _, err := m.Validate(t.Context()); !errors.Is(err, migrate.ErrNoSchema) {
			t.Errorf("%q: before Up: %v, want ErrNoSchema", schema, err)
		}
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, queue := range []string{"a", "Sales-2.x", "a_pkey", strings.Repeat("q", 60)} {
			exec(t, conn, fmt.Sprintf(`SELECT %s($1)`, qualified(schema, "create_queue")), queue)
		}
		for version := migrations.Latest(); version >= migrations.First(); version-- {
			if different, err := m.Validate(t.Context()); err != nil || len(different) > 0 {
				t.Errorf("%q at version %d: %v, %+v", schema, version, err, different)
			}
			if schema != "sqlq" {
				break
			}
			if _, err := m.Down(t.Context(), before(version)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left := texts(t, conn, `SELECT nspname FROM pg_namespace WHERE nspname LIKE 'sqlq\_validate%'`); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestValidateFindsDifferences(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn, m := connect(t, url), migrator(t, url, "sqlq")
	exec(t, conn, `SELECT sqlq.create_queue('Sales')`)
	for _, change := range []struct{ sql, want, have string }{
		{`ALTER TABLE sqlq.error ADD mine int`, "", "table error column mine integer"},
		{`ALTER TABLE sqlq.error ALTER host DROP NOT NULL`, "table error column host text NOT NULL", "table error column host text"},
		{`ALTER TABLE sqlq.leased RENAME attempt TO attempts`, "table leased column attempt smallint NOT NULL", ""},
		{`ALTER TABLE sqlq."q_Sales" RESET (vacuum_truncate)`, "vacuum_truncate=false) TOAST", "table q_Sales WITH"},
		{`ALTER TABLE sqlq."q_Sales" ALTER attempt TYPE int`, "table q_Sales column attempt smallint", "table q_Sales column attempt integer"},
		{`ALTER TABLE sqlq."q_Sales" DROP CONSTRAINT "k_Sales"`, "table q_Sales constraint k_Sales PRIMARY KEY (seq)", ""},
		{`DROP INDEX sqlq.error_id`, "CREATE INDEX error_id ON error", ""},
		{`ALTER FUNCTION sqlq.uuid_v7() RESET search_path`, "SET search_path=<schema>, pg_temp", "function uuid_v7() RETURNS uuid"},
		{`CREATE OR REPLACE FUNCTION sqlq.uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS 'SELECT gen_random_uuid()'`, "function uuid_v7() body ", "function uuid_v7() body "},
		{`GRANT SELECT ON sqlq.error TO PUBLIC`, "", "table error PUBLIC may SELECT"},
		{`DROP TRIGGER grant_new_queue ON sqlq.queue`, "table queue trigger CREATE TRIGGER grant_new_queue", ""},
		{`ALTER TABLE sqlq.delayed DISABLE ROW LEVEL SECURITY`, "table delayed policy readable FOR r", ""},
		{`ALTER TABLE sqlq."q_Sales" ENABLE ROW LEVEL SECURITY`, "table q_Sales WITH", "table q_Sales ROW SECURITY WITH"},
		{`ALTER TABLE sqlq.operation ENABLE ROW LEVEL SECURITY`, "table operation WITH", "table operation ROW SECURITY WITH"},
		{`ALTER TABLE sqlq.error FORCE ROW LEVEL SECURITY`, "table error ROW SECURITY", "table error ROW SECURITY FORCED"},
		{`CREATE FUNCTION sqlq.own() RETURNS int LANGUAGE sql AS 'SELECT 1'`, "", "function own() RETURNS integer"},
		{`DROP TABLE sqlq.traffic`, "table traffic column queue text", ""},
	} {
		exec(t, conn, change.sql)
		different, err := m.Validate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(different, func(d migrate.Difference) bool {
			return strings.Contains(d.Want, change.want) && strings.Contains(d.Have, change.have) &&
				(change.want == "") == (d.Want == "") && (change.have == "") == (d.Have == "")
		}) {
			t.Errorf("%s: want %q for %q among\n%+v", change.sql, change.have, change.want, different)
		}
	}
	exec(t, conn, `INSERT INTO sqlq.sqlq_migration (version_id, is_applied) VALUES (9999, true)`)
	if _, err := m.Validate(t.Context()); !errors.Is(err, migrate.ErrNewerSchema) {
		t.Errorf("a newer schema: %v, want ErrNewerSchema", err)
	}
}

// before returns the version before one: 0 before the first.
func before(version int64) int64 {
	if version == migrations.First() {
		return 0
	}
	return version - 1
}

// In steps, and back again, it makes what Up makes at once; one that does not fit changes nothing.
func TestScriptBetween(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	run := func(from, to int64) error {
		t.Helper()
		script, err := migrate.ScriptBetween("sqlq", from, to)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.PgConn().Exec(t.Context(), "BEGIN;"+script+";COMMIT").ReadAll()
		if err != nil {
			exec(t, conn, `ROLLBACK`)
		}
		return err
	}
	m, latest := migrator(t, url, "sqlq"), migrations.Latest()
	for range 2 {
		for v := migrations.First(); v <= latest; v++ {
			if err := run(before(v), v); err != nil {
				t.Fatalf("up to %d: %v", v, err)
			}
			if different, err := m.Validate(t.Context()); err != nil || len(different) > 0 {
				t.Errorf("at version %d: %v, %+v", v, err, different)
			}
			if err := run(before(v), v); err == nil {
				t.Errorf("to %d twice", v)
			}
		}
		if steps, err := m.Up(t.Context()); err != nil || len(steps) > 0 {
			t.Errorf("Up after it: %v, %v", steps, err)
		}
		if err := run(latest, 0); err != nil {
			t.Fatalf("down: %v", err)
		}
	}
	for _, wrong := range [][2]int64{{-1, latest}, {0, latest + 1}, {latest + 1, 0}, {0, 1}, {10, latest}} {
		if _, err := migrate.ScriptBetween("sqlq", wrong[0], wrong[1]); err == nil {
			t.Errorf("from %d to %d was made", wrong[0], wrong[1])
		}
	}
}
