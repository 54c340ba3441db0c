package ops_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/migrate"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// doctor examines the database, and wants every check to be made but the named ones.
func doctor(t *testing.T, o *ops.Ops, options ops.DoctorOptions, notRun ...string) *ops.Diagnosis {
	t.Helper()
	if options.WantVersion == 0 {
		options.WantVersion = migrations.Latest()
	}
	if options.Within == 0 {
		options.Within = time.Minute // the machine may be busy
	}
	d, err := o.Doctor.Examine(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range d.Checks {
		expected := false
		for _, name := range notRun {
			expected = expected || c.Name == name
		}
		if (c.NotRun != "") != expected {
			t.Errorf("%s: not run: %q", c.Name, c.NotRun)
		}
	}
	declared(t, d)
	return d
}

// findings returns what a diagnosis found, a line each.
func findings(d *ops.Diagnosis) string {
	var b strings.Builder
	for _, c := range d.Checks {
		for _, f := range c.Findings {
			fmt.Fprintf(&b, "%s %s: %s | %s | %s\n", f.Severity, c.Name, f.What, f.Why, f.Fix)
		}
	}
	return b.String()
}

// found wants one finding of a check with a severity and each of the texts in it.
func found(t *testing.T, d *ops.Diagnosis, check string, severity ops.Severity, texts ...string) {
	t.Helper()
	for line := range strings.Lines(findings(d)) {
		has := strings.HasPrefix(line, string(severity)+" "+check+": ")
		for _, text := range texts {
			has = has && strings.Contains(line, text)
		}
		if has {
			return
		}
	}
	t.Errorf("no %s of %q with %q in\n%s", severity, check, texts, findings(d))
}

// shrink gives the space of a table that is empty back. A snapshot from before the rows were deleted, such as an autovacuum
// worker's, keeps them, and VACUUM FULL copies them; so it is run until they are gone.
func (d database) shrink(table string) {
	d.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		d.exec(`VACUUM FULL ` + table)
		size := d.number(`SELECT pg_relation_size($1::regclass)`, table)
		if size == 0 {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("after VACUUM FULL %s still takes %d bytes", table, size)
		}
	}
}

// until examines the database again and again until the check finds something: statistics come late.
func until(t *testing.T, o *ops.Ops, options ops.DoctorOptions, check string) *ops.Diagnosis {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		d := doctor(t, o, options)
		for _, c := range d.Checks {
			if c.Name == check && len(c.Findings) > 0 || time.Now().After(deadline) {
				return d
			}
		}
	}
}

func TestDoctorHealthy(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`SELECT sqlq.create_queue('sales')`)
	d.exec(`SELECT sqlq.send('sales', 'T', '1'), sqlq.send('sales', 'T', '1', delay => '1 hour')`)
	if diagnosis := doctor(t, d.Ops, ops.DoctorOptions{Late: time.Hour}); diagnosis.Count(ops.SeverityProblem)+diagnosis.Count(ops.SeverityWarning) > 0 {
		t.Errorf("found\n%s", findings(diagnosis))
	}
	for _, kind := range ops.RoleKinds {
		for _, queues := range [][]string{nil, {"sales"}} {
			role := d.role(kind)
			if err := d.Roles.Grant(t.Context(), ops.Grant{Role: role, Kind: kind, Queues: queues}); err != nil {
				t.Fatal(err)
			}
			notRun := []string{"inbox"} // only the owner may read it
			switch kind {
			case "producer":
				notRun = []string{"instances", "leases", "delayed", "backlog", "inbox", "paused", "errors"}
			case "consumer":
				notRun = []string{"delayed", "inbox", "errors"} // it has no table of them to read
			}
			for _, options := range []ops.DoctorOptions{{}, {Kind: kind, Queues: queues}} {
				diagnosis := doctor(t, d.loginAs(role), options, notRun...)
				if diagnosis.Count(ops.SeverityProblem)+diagnosis.Count(ops.SeverityWarning) > 0 {
					t.Errorf("as a %s of %v it found\n%s", kind, queues, findings(diagnosis))
				}
			}
		}
	}
}

func TestDoctorFindsHolders(t *testing.T) {
	t.Parallel()
	d, ctx := open(t), t.Context()
	for _, begin := range []string{
		`BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'the  long report'`, // a snapshot
		`BEGIN; SELECT 'a forgotten console'`,
		`BEGIN; CREATE TABLE public.x (); PREPARE TRANSACTION 'it''s forgotten'`,
	} {
		conn, err := pgx.ConnectConfig(ctx, d.pool.Config().ConnConfig)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		if _, err := conn.PgConn().Exec(ctx, begin).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	if n := doctor(t, d.Ops, ops.DoctorOptions{}).Count(ops.SeverityWarning); n > 0 {
		t.Errorf("%d findings of transactions that began just now", n)
	}
	diagnosis := doctor(t, d.Ops, ops.DoctorOptions{Long: time.Nanosecond})
	found(t, diagnosis, "transactions", ops.SeverityProblem, "open for ", "idle in transaction: ", "the long report", "SELECT pg_terminate_backend(")
	found(t, diagnosis, "transactions", ops.SeverityWarning, "a forgotten console", "holds nothing back at this moment")
	found(t, diagnosis, "transactions", ops.SeverityProblem, `prepared transaction "it's forgotten"`, "ROLLBACK PREPARED 'it''s forgotten'")

	viewer := d.role("viewer")
	if err := d.Roles.Grant(ctx, ops.Grant{Role: viewer, Kind: "viewer"}); err != nil {
		t.Fatal(err)
	}
	found(t, doctor(t, d.loginAs(viewer), ops.DoctorOptions{}, "inbox"), "transactions", ops.SeverityNote, "sees only its own sessions", "GRANT pg_read_all_stats TO viewer_")
}

func TestDoctorFindsMissingGrants(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`SELECT sqlq.create_queue('mine'), sqlq.create_queue('other')`)
	grant := func(kind string, queues ...string) string {
		t.Helper()
		role := d.role(kind)
		if err := d.Roles.Grant(t.Context(), ops.Grant{Role: role, Kind: kind, Queues: queues}); err != nil {
			t.Fatal(err)
		}
		return role
	}
	quoted := func(role string) string { return pgx.Identifier{role}.Sanitize() }

	nobody := d.role("nobody")
	found(t, doctor(t, d.loginAs(nobody), ops.DoctorOptions{}, "migrations", "instances", "leases", "delayed", "inbox", "paused", "errors", "backlog"),
		"grants", ops.SeverityProblem, "has no part in schema", "sqlq grant "+nobody)

	consumer := grant("consumer")
	d.exec(`REVOKE DELETE ON sqlq.q_mine FROM ` + quoted(consumer))
	d.exec(`REVOKE EXECUTE ON FUNCTION sqlq.move_due FROM ` + quoted(consumer))
	found(t, doctor(t, d.loginAs(consumer), ops.DoctorOptions{}, "delayed", "inbox", "errors"), "grants", ops.SeverityProblem,
		"lacks what a consumer needs: ", "EXECUTE on function move_due", "DELETE on table q_mine", "sqlq grant "+consumer+" consumer")

	operator := grant("operator", "mine")
	d.exec(`REVOKE SELECT ON SEQUENCE sqlq.s_mine FROM ` + quoted(operator))
	found(t, doctor(t, d.loginAs(operator), ops.DoctorOptions{}, "inbox"), "grants", ops.SeverityProblem,
		"lacks what an operator needs: SELECT on sequence s_mine |", "sqlq grant "+operator+" operator --queue mine")
	found(t, doctor(t, d.loginAs(operator), ops.DoctorOptions{Kind: "operator"}, "inbox"), "grants", ops.SeverityNote, "is an operator of 1 of 2 queues: mine")

	producer := grant("producer", "mine")
	found(t, doctor(t, d.loginAs(producer), ops.DoctorOptions{Kind: "producer", Queues: []string{"other"}}, "instances", "leases", "delayed", "backlog", "inbox", "paused", "errors"),
		"grants", ops.SeverityProblem, "INSERT (body) on table q_other", "--queue other")
	found(t, doctor(t, d.loginAs(producer), ops.DoctorOptions{Kind: "viewer"}, "instances", "leases", "delayed", "backlog", "inbox", "paused", "errors"),
		"grants", ops.SeverityProblem, "lacks what a viewer needs")
}

// Through a transaction pooler everything else is checked too.
func TestDoctorFindsPooler(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	b := bouncer.Start(t, url, bouncer.Options{})
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), b.URL(config.ConnConfig.Database, "default_query_exec_mode=exec"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	o := ops.New(pool, "sqlq")
	diagnosis := doctor(t, o, ops.DoctorOptions{}, "listen")
	found(t, diagnosis, "pooler", ops.SeverityWarning, "PgBouncer", "Config.ListenURL")
	if n := diagnosis.Count(ops.SeverityProblem) + diagnosis.Count(ops.SeverityWarning); n != 1 {
		t.Errorf("%d findings:\n%s", n, findings(diagnosis))
	}
	if pooled, err := o.Pooled(t.Context()); !pooled || err != nil {
		t.Errorf("Pooled: %v, %v", pooled, err)
	}

	// Where it is known it is a note; whether notifications arrive past it is looked at.
	clean := func(diagnosis *ops.Diagnosis) {
		t.Helper()
		found(t, diagnosis, "pooler", ops.SeverityNote, "PgBouncer")
		if n := diagnosis.Count(ops.SeverityProblem) + diagnosis.Count(ops.SeverityWarning); n != 0 {
			t.Errorf("%d findings:\n%s", n, findings(diagnosis))
		}
	}
	clean(doctor(t, o, ops.DoctorOptions{Known: []string{"pooler"}}, "listen"))
	clean(doctor(t, o, ops.DoctorOptions{ListenURL: url}))
	short := ops.DoctorOptions{ListenURL: b.URL(config.ConnConfig.Database, "default_query_exec_mode=exec"), Within: 3 * time.Second}
	found(t, doctor(t, o, short), "listen", ops.SeverityProblem, "did not arrive within 3s", "lead to the same database, and not through a pooler")
	found(t, doctor(t, o, ops.DoctorOptions{ListenURL: "postgres://ann:secret@127.0.0.1:1/x"}), "listen", ops.SeverityProblem, "no connection to listen on: ", "refused", "correct the URL")
	if _, err := o.Doctor.Examine(t.Context(), ops.DoctorOptions{Known: []string{"poler"}}); err == nil || !strings.Contains(err.Error(), `there is no check "poler": there are "server", "pooler", `) {
		t.Errorf("an unknown check: %v", err)
	}
}

func TestDoctorFindsBloat(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`SELECT sqlq.create_queue('sales')`)
	d.exec(`ALTER TABLE sqlq.q_sales SET (autovacuum_enabled = false)`)
	// In one transaction, because the server takes in the statistics of each session when it likes, in any order.
	d.exec(`INSERT INTO sqlq.q_sales (id, type, body) SELECT gen_random_uuid(), 'T', convert_to(repeat('x', 200), 'UTF8') FROM generate_series(1, 20000);
		DELETE FROM sqlq.q_sales`, pgx.QueryExecModeSimpleProtocol)
	options := ops.DoctorOptions{Bloat: 1 << 20, Dead: 1000}
	diagnosis := until(t, d.Ops, options, "dead rows")
	found(t, diagnosis, "dead rows", ops.SeverityWarning, `queue "sales" has 20000 dead rows`, "it was never vacuumed", `VACUUM (VERBOSE) "sqlq"."q_sales"`)
	found(t, diagnosis, "bloat", ops.SeverityWarning, `queue "sales" takes `, "for about 0 rows", `VACUUM (FULL) "sqlq"."q_sales"`)
	found(t, diagnosis, "autovacuum", ops.SeverityWarning, `queue "sales" has lost settings for autovacuum: autovacuum_enabled=true |`)
	d.shrink(`sqlq.q_sales`)
	d.exec(`ALTER TABLE sqlq.q_sales RESET (autovacuum_enabled)`)
	if diagnosis := doctor(t, d.Ops, ops.DoctorOptions{Bloat: 1 << 20}); diagnosis.Count(ops.SeverityWarning) > 0 {
		t.Errorf("after VACUUM FULL:\n%s", findings(diagnosis))
	}
}

// What a crashed instance and a missing leader leave undone is found, and Fix does it.
func TestDoctorFixes(t *testing.T) {
	t.Parallel()
	d, ctx := open(t), t.Context()
	d.exec(`SELECT sqlq.create_queue('sales')`)
	d.exec(`INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, heartbeat_at)
		VALUES ('sales', 'web-1', 4711, 'v1', 1, false, '15 s', now() - interval '3 min')`)
	d.exec(`INSERT INTO sqlq.leased (instance, queue, seq, leased_at, id, sent_at, attempt, type, body)
		SELECT i, 'sales', 1, now() - interval '4 min', gen_random_uuid(), now(), 0, 'T', '1' FROM unnest(ARRAY[(SELECT id FROM sqlq.instance), -1]) i`)
	d.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) SELECT now() - interval '1 hour', gen_random_uuid(), 'delay', q, 'T', '1'
		FROM unnest(ARRAY['sales', 'sales', 'gone']) q`)
	d.exec(`ALTER TABLE sqlq.q_sales RESET (vacuum_truncate)`)
	operator := d.role("operator")
	if err := d.Roles.Grant(ctx, ops.Grant{Role: operator, Kind: "operator"}); err != nil {
		t.Fatal(err)
	}
	// The operator may fix all but the table, which is the owner's.
	for _, who := range []*ops.Ops{d.loginAs(operator), d.Ops} {
		var notRun []string
		if who != d.Ops {
			notRun = []string{"inbox"}
		}
		diagnosis := doctor(t, who, ops.DoctorOptions{}, notRun...)
		if who != d.Ops {
			found(t, diagnosis, "instances", ops.SeverityProblem, `of endpoint "sales" on web-1 (pid 4711) has crashed, or is cut off: it last said 3m`, "sqlq doctor --fix")
			found(t, diagnosis, "leases", ops.SeverityProblem, `queue "sales": 1 leased message without a running instance, the oldest for 4m`)
			found(t, diagnosis, "delayed", ops.SeverityProblem, `queue "sales": 2 delayed messages overdue, the first for 1h0m`)
			found(t, diagnosis, "delayed", ops.SeverityProblem, `queue "gone": 1 delayed message overdue`)
		}
		found(t, diagnosis, "autovacuum", ops.SeverityWarning, "vacuum_truncate=false", `ALTER TABLE "sqlq"."q_sales" SET (vacuum_truncate=false)`)
		err := who.Doctor.Fix(ctx, diagnosis)
		if err != nil {
			t.Errorf("Fix: %v", err)
		}
		if left := len(diagnosis.Fixable()); left > 0 {
			t.Errorf("%d findings are left to fix", left)
		}
	}
	if n := d.number(`SELECT count(*) FROM sqlq.q_sales`); n != 4 {
		t.Errorf("%d messages are ready, want the 2 that were leased and the 2 that were due", n)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE queue = 'gone'`); n != 1 {
		t.Errorf("%d messages of the queue that is gone are in the error table, want 1", n)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.operation WHERE kind = 'fix' AND status = 'done'`); n != 3 {
		t.Errorf("%d operations are written down, want 3", n)
	}
	diagnosis := doctor(t, d.Ops, ops.DoctorOptions{})
	found(t, diagnosis, "instances", ops.SeverityWarning, `1 instance of endpoint "sales" crashed within a day: instance 1 on web-1 (pid 4711) `)
	if n := diagnosis.Count(ops.SeverityProblem); n > 0 {
		t.Errorf("after Fix:\n%s", findings(diagnosis))
	}
}

func TestDoctorFindsMore(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`SELECT sqlq.create_queue('sales'), sqlq.create_queue('Old')`)
	d.exec(`UPDATE sqlq.queue SET paused_at = now(), paused_by = 'ann: audit' WHERE name = 'sales'`)
	d.exec(`INSERT INTO sqlq.q_sales (id, sent_at, type, body) VALUES (gen_random_uuid(), now() - interval '1 hour', 'T', '1')`)
	d.exec(`INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (-1, 'gone', 1, gen_random_uuid(), now(), 0, 'T', '1')`)
	d.exec(`INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time)
		SELECT 'Old', 'h', 1, v, 1, false, '15 s' FROM unnest(ARRAY['v1', 'v2']) v`)
	d.exec(`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		SELECT gen_random_uuid(), 'sales', 'sales', 'h', 'T', '{}', 1, now(), now(), 'e', 'm', 'g' FROM generate_series(1, 11)`)
	d.exec(`ALTER TABLE sqlq.delayed DISABLE ROW LEVEL SECURITY`)
	d.exec(`ALTER TABLE sqlq.error FORCE ROW LEVEL SECURITY`)
	d.exec(`ALTER TABLE sqlq."q_Old" OWNER TO pg_database_owner`)
	d.exec(`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'sqlq.error_status_type'::regclass`)
	d.exec(`ALTER SEQUENCE sqlq.s_sales RESTART WITH 8000000000000000000`)
	d.exec(`SELECT nextval('sqlq.s_sales')`)
	diagnosis := doctor(t, d.Ops, ops.DoctorOptions{Failures: 10})
	found(t, diagnosis, "paused", ops.SeverityWarning, `queue "sales": paused by ann: audit since `, "sqlq queue resume sales")
	found(t, diagnosis, "backlog", ops.SeverityWarning, `queue "sales": messages wait, the first for 1h0m`)
	found(t, diagnosis, "leases", ops.SeverityProblem, `queue "gone": 1 leased message without`, "the queue is gone", "sqlq queue create gone")
	found(t, diagnosis, "instances", ops.SeverityNote, `endpoint "Old" runs in 2 versions: v1, v2`)
	found(t, diagnosis, "errors", ops.SeverityWarning, "more than 10 messages failed within an hour", "sqlq error groups --since 1h")
	found(t, diagnosis, "row security", ops.SeverityProblem, "row security of table delayed is off", `ALTER TABLE "sqlq"."delayed" ENABLE ROW LEVEL SECURITY`)
	found(t, diagnosis, "row security", ops.SeverityProblem, "row security of table error binds its owner too")
	found(t, diagnosis, "row security", ops.SeverityProblem, `table q_Old belongs to "pg_database_owner"`, `ALTER TABLE "sqlq"."q_Old" OWNER TO`)
	found(t, diagnosis, "indexes", ops.SeverityProblem, "index error_status_type of table error is not valid", `REINDEX INDEX CONCURRENTLY "sqlq"."error_status_type"`)
	found(t, diagnosis, "wraparound", ops.SeverityProblem, "sequence s_sales has given out 8000000000000000000 of 9223372036854775807 numbers")
	if fixable := diagnosis.Fixable(); len(fixable) > 0 {
		t.Errorf("it would fix %s", fixable[0].What)
	}
}

// An inbox that is never emptied is named, with who keeps it from being. One that nobody writes to need not be.
func TestDoctorFindsStuckInbox(t *testing.T) {
	t.Parallel()
	d, ctx := open(t), t.Context()
	d.exec(`UPDATE sqlq.inbox SET rotated_at = now() - 3 * keeps - interval '1 s'`)
	d.exec(`INSERT INTO sqlq.inbox_hours_a (id, queue) VALUES (gen_random_uuid(), 'sales')`)
	if n := doctor(t, d.Ops, ops.DoctorOptions{}).Count(ops.SeverityWarning); n > 0 {
		t.Errorf("%d findings of an inbox that was not written to until just now", n)
	}
	d.exec(`INSERT INTO sqlq.inbox_minutes_b (at, id, queue) VALUES (now() - interval '11 min', gen_random_uuid(), 'sales')`)
	viewer := d.role("viewer")
	if err := d.Roles.Grant(ctx, ops.Grant{Role: viewer, Kind: "viewer"}); err != nil {
		t.Fatal(err)
	}
	doctor(t, d.loginAs(viewer), ops.DoctorOptions{}, "inbox") // it may not look
	d.exec(`UPDATE sqlq.inbox SET rotated_at = now() - 3 * keeps - interval '1 s'`)
	found(t, doctor(t, d.Ops, ops.DoctorOptions{}), "inbox", ops.SeverityWarning, `inbox "minutes" keeps ids of handled messages for 10m0s, and has forgotten none for 30m`,
		"start an endpoint", "sqlq grant ROLE consumer")

	conn, err := pgx.ConnectConfig(ctx, d.pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	hold := func(sql string) {
		t.Helper()
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	hold(`BEGIN; SELECT 'the  dump' FROM sqlq.inbox_minutes_a`)
	found(t, doctor(t, d.Ops, ops.DoctorOptions{Late: time.Hour}), "inbox", ops.SeverityWarning, "start an endpoint") // not for long
	found(t, doctor(t, d.Ops, ops.DoctorOptions{Late: time.Nanosecond}), "inbox", ops.SeverityWarning,
		fmt.Sprintf(`: backend %d of "postgres" has its tables, in a transaction that has been open for `, conn.PgConn().PID()), "SELECT 'the dump'", "SELECT pg_terminate_backend(")
	hold(`PREPARE TRANSACTION 'forgotten'`)
	found(t, doctor(t, d.Ops, ops.DoctorOptions{Late: time.Nanosecond}), "inbox", ops.SeverityWarning, `: prepared transaction "forgotten" of "postgres" has its tables`, "ROLLBACK PREPARED 'forgotten'")
	hold(`ROLLBACK PREPARED 'forgotten'`)
	d.exec(`SELECT sqlq.rotate_inbox()`)
	if diagnosis := doctor(t, d.Ops, ops.DoctorOptions{}); diagnosis.Count(ops.SeverityWarning) > 0 {
		t.Errorf("after it was emptied:\n%s", findings(diagnosis))
	}
}

// Without the schema, or with another one, what can be checked is.
func TestDoctorWithoutSchema(t *testing.T) {
	t.Parallel()
	empty := openSchema(t, pgtest.Empty(t), "my schema")
	ofVersion := []string{"grants", "instances", "leases", "delayed", "backlog", "inbox", "paused", "errors"}
	ofTables := append([]string{"locks", "row security", "dead rows", "bloat", "wraparound", "sequences", "indexes"}, ofVersion...)
	found(t, doctor(t, empty.Ops, ops.DoctorOptions{}, ofTables...), "migrations", ops.SeverityProblem, `schema "my schema" has no sqlq tables`, "sqlq migrate up --schema 'my schema'")
	empty.exec(`CREATE SCHEMA "my schema"`)
	found(t, doctor(t, empty.Ops, ops.DoctorOptions{}, ofTables...), "migrations", ops.SeverityProblem, `schema "my schema" has no sqlq tables`)
	d := open(t)
	found(t, doctor(t, d.Ops, ops.DoctorOptions{WantVersion: migrations.Latest() + 1}, ofVersion...), "migrations", ops.SeverityProblem, "this program needs", "sqlq migrate up")
	found(t, doctor(t, d.Ops, ops.DoctorOptions{WantVersion: 1}, ofVersion...), "migrations", ops.SeverityProblem, "this program knows 1", "use a newer release of sqlq")
	if _, err := d.Doctor.Examine(t.Context(), ops.DoctorOptions{Kind: "king"}); err == nil {
		t.Error("an unknown kind of role was taken")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Doctor.Examine(ended, ops.DoctorOptions{}); err == nil {
		t.Error("a context that has ended was no error")
	}
	diagnosis, err := d.Doctor.Examine(t.Context(), ops.DoctorOptions{Within: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range diagnosis.Checks {
		if c.Name == "listen" && c.NotRun != "not done within 1ns" {
			t.Errorf("a check without time: %q", c.NotRun)
		}
	}
}

// What concerns the whole server is found on a server of its own.
func TestDoctorFindsServer(t *testing.T) {
	t.Parallel()
	options, err := devpg.TestOptions()
	if err != nil {
		t.Fatal(err)
	}
	options.Settings = map[string]string{"autovacuum": "off", "max_connections": "20", "default_transaction_read_only": "on"}
	s, err := devpg.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	d := openSchema(t, s.URL(""), "sqlq")
	others, err := pgxpool.New(t.Context(), s.URL("")+"&pool_max_conns=17")
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close()
	var held []*pgxpool.Conn
	for range 17 {
		conn, err := others.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	diagnosis, err := d.Doctor.Examine(t.Context(), ops.DoctorOptions{Within: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	declared(t, diagnosis)
	found(t, diagnosis, "server", ops.SeverityProblem, "default_transaction_read_only is on", "ALTER ROLE postgres RESET")
	few := ops.SeverityWarning
	if strings.Contains(findings(diagnosis), ": 0 of 20 connections") { // sessions that are just ending count too
		few = ops.SeverityProblem
	}
	found(t, diagnosis, "connections", few, " of 20 connections are left under max_connections", "GROUP BY")
	for _, conn := range held {
		conn.Release()
	}
	others.Close()
	if err := migrate.Up(t.Context(), s.URL("")+"&default_transaction_read_only=off", "sqlq"); err != nil {
		t.Fatal(err)
	}
	found(t, doctor(t, d.Ops, ops.DoctorOptions{}), "autovacuum", ops.SeverityProblem, "is off on the server", "ALTER SYSTEM SET autovacuum = on")

	// Its standby is no place to work, and can be examined all the same.
	standby, err := s.Standby(t.Context(), devpg.StandbyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	there := openSchema(t, standby.URL(""), "sqlq")
	found(t, doctor(t, there.Ops, ops.DoctorOptions{}, "listen"), "server", ops.SeverityProblem, "the server is a standby", "target_session_attrs=read-write")
}
