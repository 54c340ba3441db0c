package migrate_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// The SQL of `sqlq migrate sql`, run by somebody else's tool, makes what Up makes, and the record says the same.
func TestScriptMakesWhatUpMakes(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	for _, schema := range append([]string{"sqlq"}, oddNames...) {
		up := "up " + schema
		if len(up) > 63 {
			up = up[:63]
		}
		script, err := migrate.Script(schema)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
			t.Fatalf("%q: %v", schema, err)
		}
		if err := migrate.Up(t.Context(), url, up); err != nil {
			t.Fatal(err)
		}
		sameLines(t, describe(t, conn, schema), describe(t, conn, up), fmt.Sprintf("the script's schema %q", schema), "Up's")
		sameLines(t, bodies(t, conn, schema), bodies(t, conn, up), fmt.Sprintf("the script's functions in %q", schema), "Up's")
		record := func(schema string) string {
			return fmt.Sprint(texts(t, conn, fmt.Sprintf(`SELECT version_id || ' ' || is_applied FROM %s ORDER BY id`, qualified(schema, "sqlq_migration"))))
		}
		if got, want := record(schema), record(up); got != want {
			t.Errorf("%q: the script records %s, Up %s", schema, got, want)
		}
		// So Up has nothing left to do there.
		if steps, err := migrator(t, url, schema).Up(t.Context()); err != nil || len(steps) > 0 {
			t.Errorf("%q: Up after the script: %v, %v", schema, steps, err)
		}
	}
	if public := texts(t, conn, `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace`); len(public) > 0 {
		t.Errorf("the script put %v into public", public)
	}
	if path := texts(t, conn, `SHOW search_path`); path[0] != `"$user", public` {
		t.Errorf("the script left the session with search_path %s", path)
	}
}

// Run a statement at a time, outside of a transaction, it makes the same, and nothing anywhere else.
func TestScriptWithoutATransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	script, err := migrate.Script("sqlq")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `SET search_path = public, information_schema`)
	var statement strings.Builder
	for line := range strings.Lines(script) {
		statement.WriteString(line)
		if strings.HasSuffix(line, ";\n") && strings.Count(statement.String(), "$$")%2 == 0 {
			exec(t, conn, statement.String())
			statement.Reset()
		}
	}
	if rest := strings.TrimSpace(statement.String()); rest != "" {
		t.Errorf("no statement: %s", rest)
	}
	if err := migrate.Up(t.Context(), url, "up"); err != nil {
		t.Fatal(err)
	}
	sameLines(t, describe(t, conn, "sqlq"), describe(t, conn, "up"), "the script's schema", "Up's")
	if public := texts(t, conn, `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace`); len(public) > 0 {
		t.Errorf("the script put %v into public", public)
	}
	if path := texts(t, conn, `SHOW search_path`); path[0] != `public, information_schema` {
		t.Errorf("the script left the session with search_path %s", path)
	}
}
