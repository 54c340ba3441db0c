package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// letter is a command of these tests; posted is an event. Where says in which schema or database it was sent.
type letter struct {
	N     int
	Where string `json:",omitempty"`
}

func (letter) MessageType() string { return "post.Letter" }

type posted struct{ N int }

func (posted) MessageType() string { return "post.Posted" }
func (posted) IsEvent()            {}

// Open looks at the schema and says which command mends it.
func TestOpenChecksTheSchema(t *testing.T) {
	t.Parallel()
	record := fmt.Sprintf(`INSERT INTO %%s.sqlq_migration (version_id, is_applied) VALUES (%d, %%v)`, migrations.Latest())
	closes := fmt.Sprintf(`; CREATE OR REPLACE FUNCTION %%s.oldest_library() RETURNS bigint LANGUAGE sql AS 'SELECT %d::bigint'`, migrations.Latest()+1)
	next := strings.ReplaceAll(record, fmt.Sprint(migrations.Latest()), fmt.Sprint(migrations.Latest()+1))
	cases := []struct {
		name    string
		schema  string
		migrate bool
		sql     string
		want    error
		command string
	}{
		{"no schema", "sqlq", false, "", sqlq.ErrSchemaMissing, "sqlq migrate up --schema sqlq"},
		{"no tables", "sqlq", false, `CREATE SCHEMA sqlq`, sqlq.ErrSchemaMissing, "sqlq migrate up --schema sqlq"},
		{"tables elsewhere", "other", false, `CREATE SCHEMA sqlq`, sqlq.ErrSchemaMissing, "sqlq migrate up --schema other"},
		{"a name that a shell would split", "Weird schema", false, "", sqlq.ErrSchemaMissing, "sqlq migrate up --schema 'Weird schema'"},
		{"a name with quotes", `it's "it"`, false, "", sqlq.ErrSchemaMissing, `sqlq migrate up --schema 'it'\''s "it"'`},
		{"gone down", "sqlq", true, `INSERT INTO sqlq.sqlq_migration (version_id, is_applied) SELECT v, false FROM generate_series(11, ` + fmt.Sprint(migrations.Latest()) + `) v`, sqlq.ErrSchemaMissing, "sqlq migrate up --schema sqlq"},
		{"older", "sqlq", true, fmt.Sprintf(record, "sqlq", false) + `; INSERT INTO sqlq.sqlq_migration (version_id, is_applied)
			SELECT ` + fmt.Sprint(migrations.First()) + `, true`, sqlq.ErrSchemaOutdated, "sqlq migrate up --schema sqlq"},
		{"newer", "sqlq", true, fmt.Sprintf(next+closes, "sqlq", true, "sqlq"), sqlq.ErrSchemaNewer, "a newer release"},
		{"newer, in an odd schema", "Weird schema", true, fmt.Sprintf(next+closes, `"Weird schema"`, true, `"Weird schema"`), sqlq.ErrSchemaNewer, "a newer release"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Empty(t)
			if c.migrate {
				if err := migrate.Up(t.Context(), url, c.schema); err != nil {
					t.Fatal(err)
				}
			}
			pool := poolOn(t, url)
			if c.sql != "" {
				execSimple(t, pool, c.sql)
			}
			client, err := sqlq.Open(t.Context(), pool, sqlq.Config{Schema: c.schema, Logger: quietLog})
			if client != nil || !errors.Is(err, c.want) {
				t.Fatalf("Open: %v, want %v", err, c.want)
			}
			for _, other := range []error{sqlq.ErrSchemaMissing, sqlq.ErrSchemaOutdated, sqlq.ErrSchemaNewer} {
				if other != c.want && errors.Is(err, other) {
					t.Errorf("Open: %v is %v too", err, other)
				}
			}
			if !strings.Contains(err.Error(), c.command) {
				t.Errorf("Open: %v\ndoes not say %q", err, c.command)
			}
		})
	}
}

// A newer schema that still serves this library is as good as its own: for whoever owns it and for the least of roles.
func TestOpenOnANewerSchemaThatServesIt(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	execSQL(t, admin, `SELECT sqlq.create_queue('post')`)
	execSQL(t, admin, `INSERT INTO sqlq.sqlq_migration (version_id, is_applied) VALUES ($1, true)`, migrations.Latest()+1)
	for _, pool := range []*pgxpool.Pool{admin, granted(t, url, "producer", "post")} {
		if err := open(t, pool, sqlq.Config{}).Send(t.Context(), letter{}, sqlq.To("post")); err != nil {
			t.Error(err)
		}
	}
}

// execSimple runs statements in one simple query.
func execSimple(t testing.TB, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// asleep counts the receivers that senders to a queue would notify.
func asleep(t testing.TB, pool *pgxpool.Pool, schema, queue string) int {
	t.Helper()
	return count(t, pool, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1936813169 AND mode = 'ShareLock'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND objid = ($1::regclass::oid::bigint - 2147483648)::int::oid`, pgx.Identifier{schema, "q_" + queue}.Sanitize())
}

// Two schemas of one database, with the same queues, have nothing to do with each other: neither their messages, nor
// their subscriptions, nor their wake-ups.
func TestTwoSchemasSideBySide(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := poolOn(t, url)
	schemas := []string{"sqlq", `Weird "schema"`}
	if err := migrate.Up(t.Context(), url, schemas[1]); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got, events := map[string][]string{}, map[string]int{}
	clients := map[string]*sqlq.Client{}
	for _, schema := range schemas {
		// Only a wake-up brings a message within the hour.
		c := open(t, pool, sqlq.Config{Schema: schema, PollInterval: time.Hour, Routes: map[string]string{"post.Letter": "Sales"}})
		clients[schema] = c
		execSQL(t, pool, fmt.Sprintf(`SELECT %s('Sales')`, pgx.Identifier{schema, "create_queue"}.Sanitize()))
		run(t, c, sqlq.Endpoint{Name: "Sales", Handlers: []sqlq.Handler{
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
				mu.Lock()
				defer mu.Unlock()
				got[schema] = append(got[schema], d.Message.Where)
				return nil
			}),
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[posted]) error {
				mu.Lock()
				defer mu.Unlock()
				events[schema]++
				return nil
			}),
		}})
	}
	sleeping := func() {
		t.Helper()
		for _, schema := range schemas {
			eventually(t, "receivers of "+schema+" asleep", func() (bool, string) {
				n := asleep(t, pool, schema, "Sales")
				return n == 1, fmt.Sprint(n, " asleep")
			})
		}
	}

	// What is heard of a sender in one schema, on the channels of both.
	ear, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close(context.Background())
	channels := map[string]string{}
	for _, schema := range schemas {
		var channel string
		if err := pool.QueryRow(t.Context(), `SELECT 'sqlq_' || $1::text::regclass::oid`, pgx.Identifier{schema, "q_Sales"}.Sanitize()).Scan(&channel); err != nil {
			t.Fatal(err)
		}
		channels[schema] = channel
		if _, err := ear.Exec(t.Context(), `LISTEN `+channel); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ear.Exec(t.Context(), `LISTEN the_end`); err != nil {
		t.Fatal(err)
	}

	want, notified := map[string]int{}, map[string]int{}
	for round, schema := range []string{schemas[0], schemas[1], schemas[0], schemas[1], schemas[1]} {
		sleeping()
		if round%2 == 0 {
			execSQL(t, pool, fmt.Sprintf(`SELECT %s('Sales', 'post.Letter', $1)`, pgx.Identifier{schema, "send"}.Sanitize()), fmt.Sprintf(`{"Where": %q}`, schema))
		} else if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			return clients[schema].SendTx(t.Context(), tx, letter{Where: schema})
		}); err != nil {
			t.Fatal(err)
		}
		want[schema]++
		execSQL(t, pool, `NOTIFY the_end`)
		var heard []string
		for {
			n, err := ear.WaitForNotification(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n.Channel == "the_end" {
				break
			}
			heard = append(heard, n.Channel)
		}
		if len(heard) > 1 || len(heard) == 1 && heard[0] != channels[schema] {
			t.Errorf("round %d: a send in schema %s notified %v, want %s alone", round, schema, heard, channels[schema])
		}
		notified[schema] += len(heard) // not by each send: the receivers may have begun to look by themselves
		eventually(t, "letter handled", func() (bool, string) {
			mu.Lock()
			defer mu.Unlock()
			return len(got[schema]) == want[schema], fmt.Sprint(got)
		})
	}
	if err := clients[schemas[1]].Publish(t.Context(), posted{N: 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "event handled", func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		return events[schemas[1]] == 1, fmt.Sprint(events)
	})
	sleeping()
	mu.Lock()
	defer mu.Unlock()
	for _, schema := range schemas {
		if len(got[schema]) != want[schema] || notified[schema] == 0 {
			t.Errorf("schema %s handled %d letters and was notified of %d, want %d and some", schema, len(got[schema]), notified[schema], want[schema])
		}
		for _, where := range got[schema] {
			if where != schema {
				t.Errorf("schema %s handled a letter of schema %s", schema, where)
			}
		}
	}
	if events[schemas[0]] != 0 {
		t.Errorf("schema %s got %d events of the other", schemas[0], events[schemas[0]])
	}
}

// hostile is what else may lie in a database: objects of the names that the schema's functions and the library use, in
// a schema that the search_path names first.
const hostile = `
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.trap() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE FUNCTION hostile.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
DO $do$
DECLARE
	place text;
	name  text;
BEGIN
	FOREACH place IN ARRAY ARRAY['hostile', 'public'] LOOP
		FOREACH name IN ARRAY ARRAY['queue', 'delayed', 'leased', 'error', 'subscription', 'instance', 'q_work', 'pg_class', 'pg_locks'] LOOP
			EXECUTE format('CREATE TABLE %I.%I (name int)', place, name);
		END LOOP;
		FOREACH name IN ARRAY ARRAY['now()', 'clock_timestamp()', 'gen_random_uuid()', 'current_schema()', 'uuid_v7()', 'lower(text)',
			'format(text, text)', 'to_json(text)', 'to_regclass(text)', 'quote_ident(text)', 'pg_notify(text, text)', 'convert_to(text, text)',
			'pg_try_advisory_lock(int, int)', 'queue_lock_key(regclass)', 'queue_asleep(regclass)', 'queue_table(text)',
			'check_message(text, json, json)', 'send(text, text, json, json, interval, interval, uuid)',
			'put_message(text, uuid, text, json, bytea, interval, interval)', 'create_queue(text)'] LOOP
			EXECUTE format('CREATE FUNCTION %I.%s RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''trapped''; END $$', place, name);
		END LOOP;
		FOREACH name IN ARRAY ARRAY['=', '<>', '~', '!~', '~~'] LOOP
			EXECUTE format('CREATE OPERATOR %I.%s (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.trap)', place, name);
		END LOOP;
	END LOOP;
END $do$;`

// The schema's functions do the same whatever the caller's search_path, his temporary tables and his settings.
func TestFunctionsAmongHostileObjects(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSimple(t, pool, hostile)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{
		// Even before pg_catalog: so nothing that a function of ours calls may be looked up there.
		`SET search_path = hostile, public, pg_catalog`,
		`CREATE TEMP TABLE subscription (type text, queue text)`,
		`CREATE TEMP TABLE queue (name text)`,
		`CREATE TEMP TABLE q_work (name text)`,
		`SET DateStyle = 'German, DMY'`,
		`SET IntervalStyle = 'sql_standard'`,
		`SET TimeZone = 'Asia/Kathmandu'`,
		`SET bytea_output = 'escape'`,
		`SET xmloption = 'document'`,
		`SET default_transaction_isolation = 'serializable'`,
		`SELECT sqlq.create_queue('work')`,
		`INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'work')`,
		`SELECT sqlq.send('work', 'post.Letter', '{"N": 1}', '{"b": "2", "a": "1"}')`,
		`SELECT sqlq.send('work', 'post.Letter', '{"N": 2}', NULL, '1 hour', '2 hours')`,
		`SELECT sqlq.publish('post.Posted', '{"N": 3}')`,
		`SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[NULL::pg_catalog.text], ARRAY['{"N": 4}'::pg_catalog.bytea], ARRAY[NULL::pg_catalog.interval])`,
		`SELECT sqlq.create_queue('other')`,
		`SELECT sqlq.drop_queue('other')`,
	} {
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for sql, want := range map[string]int{
		`SELECT count(*) FROM sqlq.q_work`:       3,
		`SELECT count(*) FROM sqlq.delayed`:      1,
		`SELECT count(*) FROM sqlq.queue`:        1,
		`SELECT count(*) FROM hostile.queue`:     0,
		`SELECT count(*) FROM public.q_work`:     0,
		`SELECT count(*) FROM public.delayed`:    0,
		`SELECT count(*) FROM sqlq.subscription`: 1,
	} {
		if got := count(t, pool, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
}

// The library goes about its work among them too, on connections of any search_path and settings.
func TestLibraryAmongHostileObjects(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	execSimple(t, poolOn(t, url), hostile)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"search_path": "hostile, public", "DateStyle": "German, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kathmandu",
		"bytea_output": "escape", "default_transaction_isolation": "serializable", "standard_conforming_strings": "off",
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	plain := poolOn(t, url)
	execSQL(t, plain, `SELECT sqlq.create_queue('work')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "work"}})
	var mu sync.Mutex
	attempts := map[int]int{}
	run(t, c, sqlq.Endpoint{Name: "work", Retry: sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Millisecond}}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
			mu.Lock()
			defer mu.Unlock()
			attempts[d.Message.N]++
			if d.Message.N == 2 {
				return errors.New("never")
			}
			return d.Publish(posted{N: d.Message.N})
		}),
		sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[posted]) error {
			mu.Lock()
			defer mu.Unlock()
			attempts[100+d.Message.N]++
			return nil
		}),
	}})
	for n, options := range [][]sqlq.SendOption{{}, {sqlq.WithHeader("a", `quo'te"\`)}, {}, {sqlq.Delay(time.Millisecond), sqlq.ExpiresIn(time.Hour)}} {
		if err := c.Send(t.Context(), letter{N: n}, options...); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyCount(t, plain, 1, `SELECT count(*) FROM sqlq.error WHERE attempts = 2 AND error_type = 'errors.errorString'`)
	eventually(t, "messages handled", func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		return attempts[0] == 1 && attempts[1] == 1 && attempts[2] == 2 && attempts[3] == 1 && attempts[100] == 1 && attempts[101] == 1 && attempts[103] == 1, fmt.Sprint(attempts)
	})
	eventuallyCount(t, plain, 0, `SELECT (SELECT count(*) FROM sqlq.q_work) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)
}
