package migrate_test

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// function is a function of the schema, as the catalogue has it.
type function struct {
	name, body        string
	definer, standard bool
}

func functions(t *testing.T, conn *pgx.Conn) []function {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT proname, prosrc, prosecdef, coalesce(proconfig @> ARRAY['standard_conforming_strings=on'], false)
		FROM pg_proc WHERE pronamespace = 'sqlq'::regnamespace ORDER BY proname`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f function, err error) {
		err = row.Scan(&f.name, &f.body, &f.definer, &f.standard)
		return f, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// asOwner returns the functions that run as the owner: those with SECURITY DEFINER, what they call, and the triggers of
// the schema's own tables.
func asOwner(all []function, triggers []string) []function {
	reached := map[string]bool{}
	var reach func(f function)
	reach = func(f function) {
		if reached[f.name] {
			return
		}
		reached[f.name] = true
		for _, other := range all {
			if regexp.MustCompile(`\b` + other.name + `\(`).MatchString(f.body) {
				reach(other)
			}
		}
	}
	for _, f := range all {
		if f.definer || slices.Contains(triggers, f.name) {
			reach(f)
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(f function) bool { return !reached[f.name] })
}

var (
	// literals are the strings of a function's text: 'one', with quotes doubled, or $q$one$q$.
	literals = regexp.MustCompile(`(?s)'(?:[^']|'')*'|\$q\$.*?\$q\$`)
	comments = regexp.MustCompile(`--[^\n]*`)
	// named is where an SQL statement names a table or sequence, up to the end of the name.
	named = regexp.MustCompile(`(?i)\b(?:INTO|FROM|JOIN|UPDATE|TABLE|TRUNCATE|ONLY|USING|SEQUENCE|SEQUENCE NAME|REFERENCES|ON|NULL::)\s*((?:%(?:\d\$)?[Is]|[a-z_0-9]+)(?:\.(?:%(?:\d\$)?[Is]|[a-z_0-9]+))?)`)
)

// unqualified returns the tables that the statements which a function puts together name without their schema.
func unqualified(body string, tables []string) (bad []string) {
	for _, literal := range literals.FindAllString(comments.ReplaceAllString(body, ""), -1) {
		if !regexp.MustCompile(`(?i)\b(SELECT|INSERT|UPDATE|DELETE|LOCK|TRUNCATE|CREATE|DROP|GRANT|REVOKE|COMMENT|ALTER)\b`).MatchString(literal) {
			continue
		}
		for _, m := range named.FindAllStringSubmatch(literal, -1) {
			name := m[1]
			if !strings.Contains(name, ".") && (strings.Contains(name, "%") || slices.Contains(tables, name)) {
				bad = append(bad, strings.TrimSpace(m[0]))
			}
		}
	}
	return bad
}

// A statement that a function puts together names each table with its schema. Unqualified, the name of a table that is gone,
// or has gone while the statement waited, reaches one in the caller's pg_temp, whose triggers would run as the owner. (What
// stands in a function as a statement, and not as text, names tables that only the owner can drop.)
func TestWhatRunsAsOwnerQualifiesNames(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Database(t))
	tables := texts(t, conn, `SELECT relname::text FROM pg_class WHERE relnamespace = 'sqlq'::regnamespace AND relkind = 'r'`)
	triggers := texts(t, conn, `SELECT DISTINCT p.proname::text FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_proc p ON p.oid = g.tgfoid
		WHERE c.relnamespace = 'sqlq'::regnamespace AND p.pronamespace = 'sqlq'::regnamespace`)
	found := map[string]string{}
	checked := asOwner(functions(t, conn), triggers)
	for _, f := range checked {
		if bad := unqualified(f.body, tables); len(bad) > 0 {
			found[f.name] = strings.Join(bad, ", ")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		t.Errorf("%s names tables without their schema: %s", name, found[name])
	}
	for _, must := range []string{"publish", "publish_batch", "put_message", "move_due", "fail_due", "recover_leased", "sweep_expired", "claim_messages",
		"settle_claims", "inbox_tables", "rotate_inbox", "create_queue", "drop_queue", "grant_new_queue", "read_traffic", "forget_history", "next_due"} {
		if !slices.ContainsFunc(checked, func(f function) bool { return f.name == must }) {
			t.Errorf("%s was not looked at", must)
		}
	}
}

// What the test above looks for.
func TestUnqualifiedNamesAreFound(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`EXECUTE format('INSERT INTO %I (a) VALUES (1)', tab)`:                       "INTO %I",
		`EXECUTE format('SELECT count(*) FROM %s', tab)`:                             "FROM %s",
		`EXECUTE format($q$ DELETE FROM %1$I.%2$I q USING leased l $q$, a, b)`:       "USING leased",
		`EXECUTE format('LOCK TABLE %1$s IN SHARE MODE', tab)`:                       "TABLE %1$s",
		`EXECUTE format('INSERT INTO %I.%I SELECT 1 FROM %I.delayed d', a, b, c)`:    "",
		`SELECT a FROM delayed d; RAISE EXCEPTION 'queue %s is gone from here'`:      "",
		`EXECUTE format('SELECT json_populate_recordset(NULL::%1$I, $1)', a)`:        "NULL::%1$I",
		`-- it's FROM %I` + "\n" + `EXECUTE format('TRUNCATE %I', 'inbox_' || name)`: "TRUNCATE %I",
	} {
		if got := strings.Join(unqualified(body, []string{"delayed", "leased"}), ", "); got != want {
			t.Errorf("%s: found %q, want %q", body, got, want)
		}
	}
}

// escapes are the literals in which a backslash means the same whatever standard_conforming_strings is.
var escapes = regexp.MustCompile(`\bE'(''|[^'])*'`)

// A backslash in a function's text means what it is to mean, whatever standard_conforming_strings the caller has set.
func TestFunctionsWithBackslashesSetWhatTheyMean(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Database(t))
	for _, f := range functions(t, conn) {
		if strings.Contains(escapes.ReplaceAllString(f.body, ""), `\`) && !f.standard {
			t.Errorf("%s has backslashes and does not set standard_conforming_strings", f.name)
		}
	}
}

// The check of a sender's headers has no search_path of its own, because that would cost more than its work. What a producer puts before
// pg_catalog changes nothing in it.
func TestSenderHeadersAreJudgedTheSameForAll(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Database(t))
	exec(t, conn, `SELECT sqlq.create_queue('mine')`)
	exec(t, conn, `
		CREATE SCHEMA evil;
		CREATE FUNCTION evil.strpos(pg_catalog.text, pg_catalog.text) RETURNS int LANGUAGE sql AS 'SELECT 0';
		CREATE FUNCTION evil.octet_length(pg_catalog.text) RETURNS int LANGUAGE sql AS 'SELECT 0';
		CREATE FUNCTION evil.yes(int, int) RETURNS bool LANGUAGE sql AS 'SELECT true';
		CREATE FUNCTION evil.yes(pg_catalog.text, pg_catalog.text) RETURNS bool LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR evil.= (FUNCTION = evil.yes, LEFTARG = int, RIGHTARG = int);
		CREATE OPERATOR evil.<= (FUNCTION = evil.yes, LEFTARG = int, RIGHTARG = int);
		CREATE OPERATOR evil.!~ (FUNCTION = evil.yes, LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text);
		CREATE DOMAIN evil.text AS pg_catalog.varchar(1);
		SET search_path = evil, pg_catalog, sqlq;
		SET standard_conforming_strings = off;
		SET escape_string_warning = off`)
	for headers, allowed := range map[string]bool{
		`{"a": "b"}`:                                  true,
		`{"a": "\"sqlq-crashes\":"}`:                  true,
		`{"sqlq-crashes": "3"}`:                       false,
		`{"sqlq\u002dcrashes":"3"}`:                   false,
		`{"a":"` + strings.Repeat("x", 524288) + `"}`: false,
	} {
		_, err := conn.Exec(t.Context(), `INSERT INTO sqlq.q_mine (id, type, headers, body) VALUES (sqlq.uuid_v7(), 'a.B', $1::pg_catalog.json, '{}')`, headers)
		if (err == nil) != allowed {
			t.Errorf("headers %.60s: %v", headers, err)
		}
	}
}

// Each way down leaves what was there before the way up: tables, functions and what is granted.
func TestEachWayDownRestores(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	run := func(from, to int64) {
		t.Helper()
		script, err := migrate.ScriptBetween("sqlq", from, to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), script, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("from %d to %d: %v", from, to, err)
		}
	}
	is := func() string { return describe(t, conn, "sqlq") + bodies(t, conn, "sqlq") }
	exec(t, conn, `CREATE SCHEMA sqlq`)
	run(0, migrations.First())
	for from := migrations.First(); from < migrations.Latest(); from++ {
		was := is()
		run(from, from+1)
		run(from+1, from)
		sameLines(t, is(), was, fmt.Sprintf("version %d after the way up and down", from), "before")
		run(from, from+1)
	}
}

// Whoever was granted before gets with a migration what has come since: the rows that it adds to the table of privileges, of
// the roles, kinds and queues that were granted, and of no others.
func TestMigrationGrantsAgain(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	exec(t, conn, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['mine', 'theirs', 'taken']) q`)
	role := func(name string) string {
		t.Helper()
		name = fmt.Sprintf("%s_%x", name, sqlq.NewID())
		exec(t, conn, `CREATE ROLE `+name)
		t.Cleanup(func() {
			after, err := pgx.Connect(context.Background(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer after.Close(context.Background())
			if _, err := after.Exec(context.Background(), `DROP OWNED BY `+name+`; DROP ROLE `+name, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Error(err)
			}
		})
		return name
	}
	some, all, viewer, former, renewed := role("some"), role("all"), role("viewer"), role("former"), role("renewed")
	exec(t, conn, `SELECT sqlq.grant_role($1, 'consumer', ARRAY['mine'], events => ARRAY['a.B'])`, some)
	exec(t, conn, `SELECT sqlq.grant_role($1, 'consumer'), sqlq.revoke_role($1, ARRAY['taken'])`, all)
	exec(t, conn, `SELECT sqlq.grant_role($1, 'viewer'), sqlq.grant_role($1, 'producer', ARRAY['mine'])`, viewer)
	exec(t, conn, `SELECT sqlq.grant_role($1, 'consumer'), sqlq.revoke_role($1)`, former)
	exec(t, conn, `SELECT sqlq.grant_role($1, 'consumer')`, renewed)
	exec(t, conn, `DROP OWNED BY `+renewed)
	exec(t, conn, `DROP ROLE `+renewed)
	exec(t, conn, `CREATE ROLE `+renewed) // somebody else, of the same name
	subscribers := strings.Join(texts(t, conn, `SELECT role || queue || type FROM sqlq.subscriber ORDER BY 1`), " ")

	exec(t, conn, `SET search_path = sqlq`)
	if _, err := conn.PgConn().Exec(t.Context(), `BEGIN;
		CREATE TABLE later (n int, m int);
		CREATE FUNCTION later() RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'; -- an application's
		ALTER TABLE ready ADD extra int;
		ALTER TABLE q_mine ADD extra int;
		ALTER TABLE q_theirs ADD extra int;
		ALTER TABLE q_taken ADD extra int;
		INSERT INTO privilege (kind, privilege, sort, object, columns) VALUES ('consumer', 'UPDATE', 'table', 'later', '{n}'),
			('every', 'EXECUTE', 'function', 'later', '{}'), ('consumer', 'UPDATE', 'queue', '', '{extra}');
		CALL finish_migration('later');
		COMMIT`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	may := func(role string) string {
		return texts(t, conn, `SELECT concat_ws(' ',
			CASE WHEN has_column_privilege($1::name, 'later', 'n', 'UPDATE') THEN 'table' END,
			CASE WHEN has_column_privilege($1::name, 'later', 'm', 'UPDATE') THEN 'too much' END,
			CASE WHEN has_function_privilege($1::name, 'later()', 'EXECUTE') THEN 'function' END,
			(SELECT string_agg(q, ' ' ORDER BY q) FROM unnest(ARRAY['ready', 'q_mine', 'q_theirs', 'q_taken']) q WHERE has_column_privilege($1::name, q, 'extra', 'UPDATE')))`, role)[0]
	}
	for role, want := range map[string]string{some: "table function q_mine", all: "table function q_mine q_theirs ready", viewer: "function", former: "", renewed: ""} {
		if got := may(role); got != want {
			t.Errorf("%s may use %q, want %q", role, got, want)
		}
	}
	if open := texts(t, conn, `SELECT proname::text FROM pg_proc p WHERE proname IN ('later', 'mine') AND proconfig IS NOT NULL`); strings.Join(open, " ") != "later" {
		t.Errorf("pinned to the schema are %v, want what the migration has made", open)
	}
	if now := strings.Join(texts(t, conn, `SELECT role || queue || type FROM sqlq.subscriber ORDER BY 1`), " "); now != subscribers {
		t.Errorf("who may subscribe: %s, before %s", now, subscribers)
	}
}
