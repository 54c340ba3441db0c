package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/linediff"
)

// onlyLooks are the commands that change nothing in the database. Every other one is held to have --yes and --dry-run.
var onlyLooks = strings.Split(`queue ls, queue show, queue peek, queue tail, queue export, error ls, error count, error groups, error show, error export, `+
	`delayed ls, delayed show, lease ls, find, subscription ls, route explain, instance ls, operation ls, operation show, top, `+
	`migrate status, migrate sql, migrate validate, config show, completion, man, version, help`, ", ")

// changesElsewhere are commands that change something else than what operators look after.
var changesElsewhere = map[string]string{
	"demo":  "works on a throw-away server",
	"dev":   "works on a throw-away server",
	"bench": "works in a schema of its own, and asks for --force where that is there already",
}

// try is a command line that changes something, and what it takes for that.
type try struct {
	scene string // SQL
	args  string
}

// changing are command lines for each command that changes something, in an order in which each has something to change.
var changing = []try{
	{"", "queue create billing"},
	{"", "queue pause sales"},
	{"", "queue resume sales"},
	{"", "subscription add sales.OrderPlaced sales"},
	{"", "send sales sales.PlaceOrder {}"},
	{"", "publish sales.OrderPlaced {}"},
	{"", "subscription rm sales.OrderPlaced sales"},
	{"", "queue import sales FILE"},
	{"", "queue move sales billing --limit 1"},
	{"", "queue purge sales"},
	{"", "error edit 1 --set-header tenant=north"},
	{"", "error archive --all"},
	{"", "error unarchive --all"},
	{"", "error replay --all --limit 1"},
	{"", "error delete --all --limit 1"},
	{`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) SELECT now() + interval '1 day', gen_random_uuid(), 'delay', 'sales', 'T', '{}' FROM generate_series(1, 2)`,
		"delayed reschedule --all --in 36h"},
	{"", "delayed now --all --limit 1"},
	{"", "delayed cancel --all --limit 1"},
	{`INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time) VALUES ('sales', 'h', 1, '', 1, false, '1 day');
		INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) SELECT id, 'sales', 1, gen_random_uuid(), now(), 0, 'T', '{}' FROM sqlq.instance`,
		"lease release --all"},
	{`INSERT INTO sqlq.operation (id, kind, status, filter, up_to) OVERRIDING SYSTEM VALUE
		SELECT n, 'archive', 'interrupted', '{"all":true}', 1000 FROM unnest(ARRAY[1001, 1002]) n`,
		"operation cancel 1001"},
	{"", "operation resume 1002"},
	{"", "grant ROLE viewer"},
	{"", "revoke ROLE"},
	{`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES (now() - interval '1 day', gen_random_uuid(), 'delay', 'sales', 'T', '{}')`,
		// On a busy machine messages wait for longer than a minute by now, checks take long, and other tests have the connections.
		"doctor --fix --late 1h --within 5m --known connections"},
	{"", "queue drop billing --force"},
	{"", "migrate down"},
	{"", "migrate up"},
}

// Each command that changes something has --yes and --dry-run, says in its help what they do, and is tried below.
func TestEveryChangeCanBeTried(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	for _, c := range changing {
		found, _, err := tree().Find(strings.Fields(c.args))
		if err != nil {
			t.Fatal(err)
		}
		tried[below(found)] = true
	}
	leaves(tree(), func(c *cobra.Command) {
		first, _, _ := strings.Cut(below(c), " ")
		if changesElsewhere[first] != "" {
			return
		}
		yes, dryRun := c.Flag("yes"), c.Flag("dry-run")
		if slices.Contains(onlyLooks, below(c)) {
			if yes != nil || dryRun != nil || c.Annotations[asks] != "" || tried[below(c)] {
				t.Errorf("%s only looks, and is marked as one that changes something", c.CommandPath())
			}
			return
		}
		if yes == nil || dryRun == nil || yes.Shorthand != "y" || c.Annotations[asks] == "" {
			t.Errorf("%s changes something: it lacks --yes or --dry-run (see change.flags)", c.CommandPath())
		}
		if !tried[below(c)] {
			t.Errorf("%s is not tried: no test says that its --dry-run changes nothing", c.CommandPath())
		}
	})
}

// --dry-run of every command changes nothing and says what would be done, as data too. Who says no on a terminal, or nothing
// elsewhere, has changed nothing; --yes asks nothing. And each of these command lines does change something.
func TestDryRunAndYes(t *testing.T) {
	t.Parallel()
	f := fail(t, 3)
	role := "changes_" + f.text(`SELECT current_database()`)
	f.exec(fmt.Sprintf(`CREATE ROLE %q`, role))
	t.Cleanup(func() {
		for _, sql := range []string{`DROP OWNED BY %q`, `DROP ROLE %q`} {
			if _, err := f.conn.Exec(context.WithoutCancel(t.Context()), fmt.Sprintf(sql, role)); err != nil {
				t.Error(err)
			}
		}
	})
	file := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(file, []byte(`{"type":"T","body":{}}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range changing {
		if c.scene != "" {
			f.exec(c.scene)
		}
		args := append(strings.Fields(strings.NewReplacer("FILE", file, "ROLE", role).Replace(c.args)), "--database-url", f.url)
		before := f.dump()
		unchanged := func(how string) {
			t.Helper()
			if now := f.dump(); now != before {
				t.Errorf("%s: %s has changed something:\n%s", c.args, how, linediff.Between(before, now))
				before = now
			}
		}
		call := func(answer string, more ...string) (code int, out, said string) {
			return command(t, answer, append(slices.Clone(args), more...)...)
		}

		code, out, said := call("", "--dry-run")
		unchanged("--dry-run")
		if code != 0 && code != exitFindings || !strings.Contains(strings.ToLower(out+said), "would") && !strings.HasPrefix(out, "SELECT ") {
			t.Errorf("%s --dry-run: exit code %d\n%s%s", c.args, code, out, said)
		}
		code, out, said = call("", "--dry-run", "-o", "json")
		unchanged("--dry-run -o json")
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(out)); err != nil {
			t.Errorf("%s --dry-run -o json: exit code %d, %v\n%s%s", c.args, code, err, out, said)
		} else if !strings.Contains(compact.String(), `"dry_run":true`) && !strings.Contains(compact.String(), `"would_fix":true`) {
			t.Errorf("%s --dry-run -o json does not say that it was one:\n%s", c.args, out)
		}

		found, _, _ := tree().Find(strings.Fields(c.args))
		when := found.Annotations[asks]
		if when == asksAlways {
			code, _, said = call("")
			unchanged("off a terminal without --yes it")
			if code != exitUsage || !strings.Contains(said, "add --yes") {
				t.Errorf("%s, off a terminal: exit code %d\n%s", c.args, code, said)
			}
		}
		yes := []string{}
		if when != asksNever {
			code, _, said = call("n\n")
			unchanged("who was asked and said no")
			if code != exitError || !strings.Contains(said, "This will ") || !strings.Contains(said, "nothing was done") {
				t.Errorf("%s, refused: exit code %d\n%s", c.args, code, said)
			}
			yes = []string{"--yes"}
		}
		code, _, said = call("n\n", yes...)
		if code != 0 || strings.Contains(said, "This will ") {
			t.Errorf("%s %s: exit code %d\n%s", c.args, yes, code, said)
		}
		if f.dump() == before {
			t.Errorf("%s changes nothing: %s", c.args, said)
		}
	}
}

func (f failures) text(sql string, args ...any) (text string) {
	f.t.Helper()
	if err := f.conn.QueryRow(f.t.Context(), sql, args...).Scan(&text); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// dump returns all that is in the schema: the rows of its tables, the tables, functions and who may use them.
func (f failures) dump() string {
	f.t.Helper()
	rows, err := f.conn.Query(f.t.Context(), `SELECT oid::regclass::text FROM pg_class WHERE relnamespace = to_regnamespace('sqlq') AND relkind = 'r' ORDER BY 1`)
	if err != nil {
		f.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		f.t.Fatal(err)
	}
	all := f.text(`SELECT coalesce(string_agg(line, E'\n' ORDER BY line), '') FROM (
		SELECT format('schema %s', nspacl) FROM pg_namespace WHERE nspname = 'sqlq'
		UNION ALL SELECT format('%s %s %s', relname, relacl, reloptions) FROM pg_class WHERE relnamespace = to_regnamespace('sqlq')
		UNION ALL SELECT format('%s %s', oid::regprocedure, proacl) FROM pg_proc WHERE pronamespace = to_regnamespace('sqlq')
		UNION ALL SELECT format('%s.%s %s', attrelid::regclass, attname, attacl) FROM pg_attribute WHERE attacl IS NOT NULL) AS l (line)`)
	for _, table := range tables {
		all += "\n" + table + "\n" + f.text(`SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '') FROM `+table+` t`)
	}
	return all
}
