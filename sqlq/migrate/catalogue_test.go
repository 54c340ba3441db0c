package migrate_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// golden is what the catalogue of a migrated schema with one queue, "example", says; stored is what Validate needs of it.
const golden, stored = "../../testdata/schema.golden", "shape.jsonl"

var update = flag.Bool("update", false, "rewrite "+golden)

// describe returns the catalogue of a schema.
func describe(t *testing.T, conn *pgx.Conn, schema string) string {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `SET LOCAL search_path = `+pgx.Identifier{schema}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	return strings.Join(texts(t, tx.Conn(), `SELECT text FROM (`+migrate.Catalogue+`) c WHERE kind <> 'body' ORDER BY at COLLATE "C", text COLLATE "C"`, schema), "\n") + "\n"
}

// shapeLines returns what Validate compares of a schema, as it is stored.
func shapeLines(t *testing.T, conn *pgx.Conn, schema string) string {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `SET LOCAL search_path = `+pgx.Identifier{schema}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	rows, _ := tx.Query(t.Context(), `SELECT at::text[] || text FROM (`+migrate.Described+`) d`, schema)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, line := range lines {
		if err := e.Encode(line); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// bodies returns what the functions of a schema do.
func bodies(t *testing.T, conn *pgx.Conn, schema string) string {
	t.Helper()
	return strings.Join(texts(t, conn, `
		SELECT proname || E'\n' || prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE nspname = $1 ORDER BY proname COLLATE "C", p.oid`, schema), "\n")
}

// sameLines reports the lines that only one of two texts has.
func sameLines(t *testing.T, got, want, whatGot, whatWant string) {
	t.Helper()
	if got == want {
		return
	}
	in := func(text string) map[string]bool {
		lines := map[string]bool{}
		for line := range strings.Lines(text) {
			lines[line] = true
		}
		return lines
	}
	inGot, inWant := in(got), in(want)
	var b strings.Builder
	for line := range strings.Lines(want) {
		if !inGot[line] {
			b.WriteString("- " + line)
		}
	}
	for line := range strings.Lines(got) {
		if !inWant[line] {
			b.WriteString("+ " + line)
		}
	}
	t.Errorf("%s (+) differs from %s (-):\n%s", whatGot, whatWant, &b)
}

// Up, down and up again makes the schema that the golden file describes. After a wanted change of the schema:
//
//	go test ./sqlq/migrate -run Golden -update
func TestUpDownUpMakesTheGoldenSchema(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	m, conn := migrator(t, url, "sqlq"), connect(t, url)
	up := func() string {
		t.Helper()
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		exec(t, conn, `SELECT sqlq.create_queue('example')`)
		return describe(t, conn, "sqlq")
	}

	first := up()
	for file, is := range map[string]string{golden: first, stored: shapeLines(t, conn, "sqlq")} {
		if *update {
			if err := os.WriteFile(file, []byte(is), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sameLines(t, is, string(want), "the schema", file+" (-update rewrites it)")
	}

	if _, err := m.Down(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(describe(t, conn, "sqlq")) {
		if !strings.Contains(line, " sqlq_migration") {
			t.Errorf("left after the way down: %s", line)
		}
	}
	sameLines(t, up(), first, "the schema after up, down and up", "the schema after up")
}

// Whoever looks at the database is told what everything is for.
func TestEverythingHasAComment(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	exec(t, conn, `SELECT sqlq.create_queue('example')`)
	silent := texts(t, conn, `
		SELECT 'table ' || c.relname FROM pg_class c
		WHERE c.relnamespace = 'sqlq'::regnamespace AND c.relkind IN ('r', 'v', 'p') AND obj_description(c.oid, 'pg_class') IS NULL
			AND c.relname <> 'sqlq_migration'
		UNION ALL
		SELECT 'column ' || c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relnamespace = 'sqlq'::regnamespace AND c.relkind IN ('r', 'v', 'p') AND a.attnum > 0 AND NOT a.attisdropped
			AND c.relname <> 'sqlq_migration' AND col_description(c.oid, a.attnum) IS NULL
		UNION ALL
		SELECT 'function ' || p.oid::regprocedure FROM pg_proc p
		WHERE p.pronamespace = 'sqlq'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL`)
	if len(silent) > 0 {
		t.Errorf("no comment on\n%s", strings.Join(silent, "\n"))
	}
}

// Nobody may do anything in the schema without a grant, and nobody's search_path decides what a function does. sender_headers, which the
// tables' check asks whoever inserts, is open to all, and pinned by the names in it: TestSenderHeadersAreJudgedTheSameForAll.
func TestNothingIsOpenToPublic(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	exec(t, conn, `SELECT sqlq.create_queue('example')`)
	open := texts(t, conn, `
		SELECT o.what || ': ' || a.privilege_type FROM (
			SELECT 'schema', nspacl, 'n'::"char", nspowner FROM pg_namespace WHERE nspname = 'sqlq'
			UNION ALL SELECT relname, relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner FROM pg_class
				WHERE relnamespace = 'sqlq'::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'S')
			UNION ALL SELECT oid::regprocedure::text, proacl, 'f', proowner FROM pg_proc WHERE pronamespace = 'sqlq'::regnamespace AND proname <> 'sender_headers'
		) o (what, acl, kind, owner), aclexplode(coalesce(o.acl, acldefault(o.kind, o.owner))) a
		WHERE a.grantee = 0`)
	if len(open) > 0 {
		t.Errorf("open to PUBLIC:\n%s", strings.Join(open, "\n"))
	}
	unpinned := texts(t, conn, `
		SELECT oid::regprocedure::text FROM pg_proc
		WHERE pronamespace = 'sqlq'::regnamespace AND proname <> 'sender_headers' AND (proconfig @> ARRAY['search_path=sqlq, pg_temp']) IS NOT TRUE`)
	if len(unpinned) > 0 {
		t.Errorf("search_path is not pinned to the schema, with pg_temp last:\n%s", strings.Join(unpinned, "\n"))
	}
}
