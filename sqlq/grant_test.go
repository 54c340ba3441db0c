package sqlq_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// A viewer counts and lists what there is, and sees no header and no body unless that is granted.
func TestViewer(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	role, pool := newRole(t, url, "viewer_")
	execSQL(t, admin, `SELECT sqlq.grant_role($1, 'viewer')`, role)
	for _, sql := range []string{
		`SELECT sqlq.create_queue('new')`, // after the grant
		`SELECT sqlq.send(q, 'post.Letter', '{"secret": 1}', '{"secret": "1"}') FROM unnest(ARRAY['mine', 'theirs', 'new']) q`,
		`SELECT sqlq.send('new', 'post.Letter', '{"secret": 1}', delay => '1 hour')`,
		`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint, stack)
			VALUES (sqlq.uuid_v7(), 'new', 'new', 'h', 't', 'secret', 1, now(), now(), 'T', 'out of stock', 'f', 'stack')`,
		`INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (1, 'new', 1, sqlq.uuid_v7(), now(), 0, 't', 'secret')`,
	} {
		execSQL(t, admin, sql)
	}
	o, ctx := ops.New(pool, "sqlq"), t.Context()
	queues, err := o.Queues.List(ctx)
	if err != nil || len(queues) != 3 || queues[1].Name != "new" || queues[1].Ready.N != 1 || queues[1].Delayed.N != 1 || queues[1].Leased.N != 1 || queues[1].Failed.N != 1 {
		t.Errorf("Queues.List: %+v, %v", queues, err)
	}
	if d, err := o.Queues.Show(ctx, "mine"); err != nil || len(d.Subscribed) != 1 {
		t.Errorf("Queues.Show: %+v, %v", d, err)
	}
	failed, err := o.Failed.List(ctx, ops.Filter{Queue: "new"})
	if err != nil || len(failed) != 1 || failed[0].Error != "out of stock" {
		t.Fatalf("Failed.List: %+v, %v", failed, err)
	}
	if _, err := o.Ready.List(ctx, "mine", ops.Filter{Limit: 1}, ops.Looking{}); sqlStateOf(err) != "42501" {
		t.Errorf("Peek: %v, want that the privilege lacks", err)
	}
	if _, err := o.Failed.Show(ctx, fmt.Sprint(failed[0].Number)); sqlStateOf(err) != "42501" {
		t.Errorf("Failed.Show: %v, want that the privilege lacks", err)
	}
	for what, err := range map[string]error{
		"Purge": func() error { _, err := o.Ready.Purge(ctx, "mine", ops.Filter{}, ops.PurgeOptions{}); return err }(), "Queues.Drop": func() error { _, err := o.Queues.Drop(ctx, "mine", true); return err }(),
		"Replay": func() error {
			_, err := o.Failed.Replay(ctx, ops.Filter{Queue: "new"}, ops.ReplayOptions{})
			return err
		}(),
		"Send": open(t, pool, sqlq.Config{}).Send(ctx, letter{}, sqlq.To("mine")),
	} {
		if sqlStateOf(err) != "42501" {
			t.Errorf("%s: %v, want that the privilege lacks", what, err)
		}
	}
	bodies := []string{`SELECT body FROM sqlq.q_new`, `SELECT headers FROM sqlq.q_new`, `SELECT body FROM sqlq.delayed`, `SELECT headers FROM sqlq.delayed`, `SELECT body FROM sqlq.leased`,
		`SELECT body FROM sqlq.error`, `SELECT stack FROM sqlq.error`, `SELECT q FROM sqlq.q_mine q`, `SELECT to_jsonb(e) FROM sqlq.error e`, `COPY sqlq.q_new TO STDOUT`}
	refused(t, pool, bodies...)
	change := []string{`DELETE FROM sqlq.q_new`, `SELECT 1 FROM sqlq.q_new FOR UPDATE`, `DELETE FROM sqlq.error`, `UPDATE sqlq.error SET status = 'archived'`, `DELETE FROM sqlq.leased`,
		`UPDATE sqlq.instance SET drained_at = now()`, `UPDATE sqlq.queue SET low = 1`, `SELECT sqlq.create_queue('x')`, `SELECT sqlq.move_due(now(), 1)`}
	refused(t, pool, change...)

	execSQL(t, admin, `SELECT sqlq.grant_role($1, 'viewer', bodies => true)`, role)
	execSQL(t, admin, `SELECT sqlq.create_queue('newer')`)
	for _, sql := range append(bodies[:len(bodies)-1], `SELECT body FROM sqlq.q_newer`) {
		execSQL(t, pool, sql)
	}
	refused(t, pool, change...)
	if _, err := o.Failed.Show(ctx, fmt.Sprint(failed[0].Number)); err != nil {
		t.Errorf("Failed.Show, with bodies: %v", err)
	}
}

// What was granted is taken back, of some queues or altogether: the role can then be dropped.
func TestRevokeRole(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	for _, kind := range []string{"producer", "consumer", "operator", "viewer"} {
		role, pool := newRole(t, url, kind)
		dependencies := func() int {
			t.Helper()
			return count(t, admin, `SELECT count(*) FROM pg_shdepend WHERE refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1)
				AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())`, role)
		}
		execSQL(t, admin, `SELECT sqlq.grant_role($1, $2)`, role, kind)
		execSQL(t, admin, `SELECT sqlq.grant_role($1, $2)`, role, kind) // twice is once
		before := dependencies()
		execSQL(t, admin, `SELECT sqlq.revoke_role($1, ARRAY['theirs'])`, role)
		if after := dependencies(); after == 0 || after >= before {
			t.Errorf("%s: %d objects depend on the role after one queue was taken from it, %d before", kind, after, before)
		}
		refused(t, pool, `SELECT body FROM sqlq.q_theirs`, `INSERT INTO sqlq.q_theirs (id, type, body) VALUES (gen_random_uuid(), 't', '')`)
		execSQL(t, admin, `SELECT sqlq.revoke_role($1)`, role)
		if n := dependencies(); n != 0 {
			t.Errorf("%s: %d objects depend on the role after everything was revoked", kind, n)
		}
		refused(t, pool, `SELECT 1 FROM sqlq.queue`)
	}
	for sql, want := range map[string]string{
		`SELECT sqlq.grant_role('nobody at all', 'producer')`:                       "42704",
		`SELECT sqlq.grant_role('public', 'producer')`:                              "42704",
		`SELECT sqlq.revoke_role('PUBLIC')`:                                         "42704",
		`SELECT sqlq.grant_role(current_user, 'god')`:                               "22023",
		`SELECT sqlq.grant_role(current_user, NULL)`:                                "22023",
		`SELECT sqlq.grant_role(NULL, 'producer')`:                                  "42704",
		`SELECT sqlq.grant_role(current_user, 'producer', bodies => true)`:          "22023",
		`SELECT sqlq.grant_role(current_user, 'producer', ARRAY['no'])`:             "42P01",
		`SELECT sqlq.grant_role(current_user, 'producer', ARRAY['"; DROP TABLE'])`:  "42P01",
		`SELECT sqlq.revoke_role(current_user, ARRAY['no'])`:                        "42P01",
		`SELECT sqlq.grant_role(current_user, 'producer', ARRAY[NULL]::text[])`:     "42P01",
		`SELECT sqlq.grant_role(current_user, 'producer TO PUBLIC; SELECT 1 --  ')`: "22023",
	} {
		if err := do(admin, sql); sqlStateOf(err) != want {
			t.Errorf("%s: %v, want SQLSTATE %s", sql, err, want)
		}
	}
}

// Schemas and roles of any name are granted and work, and their names stay names.
func TestHostileRolesAndSchemas(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	for _, name := range []string{`we"ird; drop`, `it's`, `a b`, `"; DROP SCHEMA sqlq CASCADE; --`, `$$`, `E'\'`, `%I %s`, `current_user`, "új\n"} {
		if err := migrate.Up(t.Context(), url, name); err != nil {
			t.Fatalf("schema %q: %v", name, err)
		}
		admin := poolOn(t, url)
		role, pool := newRole(t, url, name)
		in := func(object string) string { return pgx.Identifier{name, object}.Sanitize() }
		execSQL(t, admin, fmt.Sprintf(`SELECT %s('Sales')`, in("create_queue")))
		for _, kind := range []string{"producer", "consumer", "viewer"} {
			execSQL(t, admin, fmt.Sprintf(`SELECT %s($1, $2, ARRAY['Sales'])`, in("grant_role")), role, kind)
		}
		c := open(t, pool, sqlq.Config{Schema: name})
		stop := run(t, c, receiveLetters("Sales"))
		for _, options := range [][]sqlq.SendOption{{}, {sqlq.Delay(1)}} {
			if err := c.Send(t.Context(), letter{}, append(options, sqlq.To("Sales"))...); err != nil {
				t.Fatalf("schema %q: %v", name, err)
			}
		}
		eventuallyCount(t, admin, 0, fmt.Sprintf(`SELECT (SELECT count(*) FROM %s) + (SELECT count(*) FROM %s)`, in("q_Sales"), in("delayed")))
		stop()
		execSQL(t, admin, fmt.Sprintf(`SELECT %s($1)`, in("revoke_role")), role)
		if _, err := sqlq.Open(t.Context(), pool, sqlq.Config{Schema: name}); sqlStateOf(err) != "42501" {
			t.Errorf("schema %q: Open after everything was revoked: %v", name, err)
		}
	}
	if n := count(t, poolOn(t, url), `SELECT count(*) FROM sqlq.queue`); n != 0 {
		t.Errorf("schema sqlq has %d queues", n)
	}
}

// What runs as the owner calls nothing that the caller has put in its way, neither by search_path nor in temporary tables.
func TestOwnersFunctionsAmongHostileObjects(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	execSimple(t, admin, hostile)
	execSQL(t, admin, `GRANT USAGE ON SCHEMA hostile TO PUBLIC`)
	role, _ := newRole(t, url, `mal"lory `)
	for _, kind := range []string{"producer", "consumer", "operator"} {
		execSQL(t, admin, `SELECT sqlq.grant_role($1, $2)`, role, kind)
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, sql := range []string{
		`SET ROLE ` + pgx.Identifier{role}.Sanitize(),
		`CREATE TEMP TABLE subscription (type text, queue text)`,
		`CREATE TEMP TABLE queue (name text)`,
		`CREATE TEMP TABLE delayed (name text)`,
		`CREATE TEMP TABLE leased (name text)`,
		`CREATE TEMP TABLE instance (name text)`,
		`CREATE TEMP TABLE ready (name text)`,
		`CREATE TEMP TABLE q_mine (name text)`,
		`SET search_path = hostile, pg_temp, public, pg_catalog`,
		`SET TimeZone = 'Asia/Kathmandu'`,
		`SET DateStyle = 'German, DMY'`,
		`SET IntervalStyle = 'sql_standard'`,
		`SELECT sqlq.create_queue('new')`,
		`SELECT sqlq.publish('post.Posted', '{"N": 1}')`,
		`SELECT sqlq.publish('post.Posted', '{"N": 1}', delay => '1 hour')`,
		`SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[NULL::pg_catalog.text], ARRAY['1'::pg_catalog.bytea], ARRAY[NULL::pg_catalog.interval])`,
		`SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[NULL], ARRAY['1'::bytea], NULL, due_at => ARRAY[pg_catalog.now()])`,
		`SELECT sqlq.send('mine', 'post.Letter', '1', delay => '1 hour')`,
		`SELECT sqlq.next_due('-infinity')`,
		`SELECT sqlq.move_due('-infinity', 100)`,
		`SELECT sqlq.recover_leased()`,
		`SELECT sqlq.sweep_expired('mine', 0, 100)`,
		`SELECT sqlq.drop_queue('new')`,
		`RESET ROLE`,
		`SELECT sqlq.grant_role(` + quoteLiteral(role) + `, 'viewer')`,
		`SELECT sqlq.revoke_role(` + quoteLiteral(role) + `)`,
	} {
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if n := count(t, admin, `SELECT count(*) FROM sqlq.q_mine`); n != 3 {
		t.Errorf("%d messages in the queue, want 3", n)
	}
	if n := count(t, admin, `SELECT count(*) FROM sqlq.delayed`); n != 3 {
		t.Errorf("%d delayed messages, want 3", n)
	}
}

func quoteLiteral(s string) string {
	return "convert_from('\\x" + fmt.Sprintf("%x", s) + "', 'UTF8')::name"
}
