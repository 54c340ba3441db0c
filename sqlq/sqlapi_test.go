package sqlq_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// value returns the one value of a query, as text.
func value(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (text string) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT coalesce((`+sql+`)::text, 'null')`, args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// refusedWith checks that a statement ends with an error of this SQLSTATE and a hint.
func refusedWith(t *testing.T, pool *pgxpool.Pool, state, sql string) {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql)
	if sqlStateOf(err) != state || pgError(err).Hint == "" {
		t.Errorf("%s: %v, want SQLSTATE %s and a hint", sql, err, state)
	}
}

// sleeper makes a connection listen as a receiver of the queue does that sleeps, and to a channel that ends the waiting.
func sleeper(t *testing.T, pool *pgxpool.Pool, queue string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	for _, sql := range []string{
		`LISTEN sqlq_` + value(t, pool, `SELECT $1::text::regclass::oid`, "sqlq.q_"+queue),
		`LISTEN sqlq_` + value(t, pool, `SELECT 'sqlq.delayed'::regclass::oid`),
		`LISTEN sqlq_` + value(t, pool, `SELECT 'sqlq.queue'::regclass::oid`),
		`LISTEN the_end`,
		`SELECT pg_advisory_lock_shared(1936813169, sqlq.queue_lock_key('sqlq.q_` + queue + `'))`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return conn
}

// heard returns how many wake-ups came until now.
func heard(t *testing.T, pool *pgxpool.Pool, conn *pgx.Conn) (n int) {
	t.Helper()
	execSQL(t, pool, `NOTIFY the_end`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if notification.Channel == "the_end" {
			return n
		}
		n++
	}
}

func TestSendManySQL(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	ear := sleeper(t, pool, "post")
	if n := value(t, pool, `SELECT sqlq.send_many('post', 'post.Letter', ARRAY(SELECT json_build_object('N', i) FROM generate_series(1, 1000) i), '{"b": "2", "a": "1"}')`); n != "1000" {
		t.Errorf("sent %s, want 1000", n)
	}
	if n := count(t, pool, `SELECT count(DISTINCT id) FROM sqlq.q_post WHERE convert_from(body, 'UTF8')::jsonb = jsonb_build_object('N', seq) AND headers::text = '{"a":"1","b":"2"}'`); n != 1000 {
		t.Errorf("%d are in the queue, in their order, with an id of their own and the headers; want 1000", n)
	}
	if n := heard(t, pool, ear); n != 1 {
		t.Errorf("the sleeper was woken %d times, want once", n)
	}
	for sql, want := range map[string]string{
		`SELECT sqlq.send_many('post', 'post.Letter', '{}')`:                                            "0",
		`SELECT sqlq.send_many('post', 'post.Letter', ARRAY['1', '2']::json[], delay => '1 hour')`:      "2",
		`SELECT sqlq.send_many('post', 'post.Letter', ARRAY['3']::json[], delay => '1 s')`:              "1",
		`SELECT sqlq.send_many('post', 'post.Letter', ARRAY['null']::json[], expires_in => '1 minute')`: "1",
	} {
		if got := value(t, pool, sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.delayed WHERE due_at > now() + interval '59 minutes' AND queue = 'post' AND why = 'delay'`); n != 2 {
		t.Errorf("%d are delayed, want 2", n)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post WHERE expires_at < now() + interval '1 minute'`); n != 1 {
		t.Errorf("%d expire, want 1", n)
	}
	before := count(t, pool, `SELECT count(*) FROM sqlq.q_post`)
	refusedWith(t, pool, "42P01", `SELECT sqlq.send_many('nowhere', 'post.Letter', ARRAY['1']::json[])`)
	refusedWith(t, pool, "22023", `SELECT sqlq.send_many('post', 'no spaces', ARRAY['1']::json[])`)
	refusedWith(t, pool, "22004", `SELECT sqlq.send_many('post', 'post.Letter', NULL)`)
	refusedWith(t, pool, "22004", `SELECT sqlq.send_many('post', 'post.Letter', ARRAY['1', NULL]::json[])`)
	refusedWith(t, pool, "22023", `SELECT sqlq.send_many('post', 'post.Letter', ARRAY['1']::json[], '[]')`)
	refusedWith(t, pool, "22023", `SELECT sqlq.send_many('post', 'post.Letter', ARRAY['1']::json[], delay => '-1 s')`)
	refusedWith(t, pool, "22023", `SELECT sqlq.send_many('post', 'post.Letter', ARRAY['1']::json[], expires_in => '101 years')`)
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post`); n != before {
		t.Errorf("%d messages of refused calls were sent", n-before)
	}
}

// The backlog is exact where few numbers lie between low and the last, and else an estimate that is near.
func TestBacklogSQL(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['small', 'large', 'drained']) q`)
	fill := `INSERT INTO sqlq.q_%s (id, type, body) SELECT gen_random_uuid(), 'T', convert_to(repeat('x', 300), 'UTF8') FROM generate_series(1, %d)`
	between := func(queue string, from, to int) {
		t.Helper()
		if n := count(t, pool, `SELECT sqlq.backlog($1)`, queue); n < from || n > to {
			t.Errorf("backlog of %s: %d, want %d to %d", queue, n, from, to)
		}
	}
	between("small", 0, 0)
	execSQL(t, pool, fmt.Sprintf(fill, "small", 12345))
	between("small", 12345, 12345)
	execSQL(t, pool, `DELETE FROM sqlq.q_small WHERE seq <= 12000`)
	between("small", 345, 345)
	execSQL(t, pool, `UPDATE sqlq.queue SET low = 1000000 WHERE name = 'small'`) // ahead of the sequence: a failover set that back
	between("small", 345, 345)
	execSQL(t, pool, fmt.Sprintf(fill, "large", 150_000))
	between("large", 110_000, 190_000)
	// What was consumed while nobody raised low is not counted again, and the newest are never overlooked.
	execSQL(t, pool, fmt.Sprintf(fill, "drained", 100_000))
	execSQL(t, pool, `DELETE FROM sqlq.q_drained`)
	execSQL(t, pool, fmt.Sprintf(fill, "drained", 100))
	between("drained", 100, 2000)
	execSQL(t, pool, `UPDATE sqlq.queue SET low = 100000 WHERE name = 'drained'`)
	between("drained", 100, 100)
	refusedWith(t, pool, "42P01", `SELECT sqlq.backlog('nowhere')`)
}

// failSQL puts 24 × n failed messages of a queue into the error table, of n groups.
func failSQL(t *testing.T, pool *pgxpool.Pool, queue string, n int) {
	t.Helper()
	execSQL(t, pool, `INSERT INTO sqlq.error (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at, first_failed_at, failed_at,
			error_type, message, fingerprint)
		SELECT sqlq.uuid_v7(), $1, $1, 'h1', 'post.Letter', h.headers::json, '\x00ff7b', 7, 2, '2026-01-01T10:00:00Z', e.expires_at, '2026-01-01T10:00:01.000002Z',
			'2026-01-01T11:00:00Z', 'e', 'card refused', 'g' || i
		FROM generate_series(1, $2) i,
			unnest(ARRAY['{"tenant":"north"}', '{}', E' {\n } ', NULL, '{"nul":"\u0000","half":"\ud800"}', '{"brace":"} "}', '[1]', 'null']) WITH ORDINALITY h (headers, a),
			unnest(ARRAY['2020-01-01', '2100-01-01', NULL]::timestamptz[]) WITH ORDINALITY e (expires_at, b)
		ORDER BY i, a, b`, queue, n)
}

// What replay stores is what the Go library stores.
func TestReplaySQLIsReplayInGo(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	stored := map[string]string{}
	for queue, replay := range map[string]func() int64{
		"go": func() int64 {
			n, err := ops.New(pool, "sqlq").Failed.Replay(t.Context(), ops.Filter{Queue: "go"}, ops.ReplayOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return n
		},
		"sql": func() int64 { return int64(count(t, pool, `SELECT sqlq.replay('sql')`)) },
	} {
		execSQL(t, pool, `SELECT sqlq.create_queue($1)`, queue)
		failSQL(t, pool, queue, 1)
		if n := replay(); n != 24 {
			t.Errorf("%s: replayed %d, want 24", queue, n)
		}
		stored[queue] = value(t, pool, fmt.Sprintf(`SELECT string_agg(concat_ws(' ', seq, sent_at, expires_at, attempt, type, headers, body), E'\n' ORDER BY seq) FROM sqlq.q_%s`, queue))
	}
	if stored["go"] != stored["sql"] {
		t.Errorf("in Go:\n%s\nin SQL:\n%s", stored["go"], stored["sql"])
	}
}

func TestReplaySQL(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['post', 'bank']) q`)
	failSQL(t, pool, "post", 2)
	failSQL(t, pool, "bank", 1)
	failSQL(t, pool, "gone", 1)
	execSQL(t, pool, `UPDATE sqlq.error SET status = 'archived' WHERE seq = 1`)
	execSQL(t, pool, `UPDATE sqlq.error SET type = 'post.Other' WHERE seq = 2`)
	ear := sleeper(t, pool, "post")
	id := value(t, pool, `SELECT id FROM sqlq.error WHERE seq = 3`)

	refusedWith(t, pool, "22023", `SELECT sqlq.replay()`)
	refusedWith(t, pool, "22023", `SELECT sqlq.replay('post', most => 0)`)
	refusedWith(t, pool, "42P01", `SELECT sqlq.replay('gone')`)
	for _, c := range []struct{ call, want string }{
		{`replay(id => '` + id + `')`, "1"},
		{`replay(id => '` + id + `')`, "0"},
		{`replay(type => 'post.Other')`, "1"},
		{`replay('post', most => 10)`, "10"},
		{`replay('post', 'post.Letter', 'g2')`, "24"},
		{`replay(fingerprint => 'g1')`, "35"}, // of post and bank: what is left of them
		{`replay(fingerprint => 'g1')`, "0"},
		{`replay('bank')`, "0"},
	} {
		if got := value(t, pool, `SELECT sqlq.`+c.call); got != c.want {
			t.Errorf("%s: %s, want %s", c.call, got, c.want)
		}
	}
	for sql, want := range map[string]string{
		`SELECT string_agg(DISTINCT queue || ' ' || status, ', ' ORDER BY queue || ' ' || status) FROM sqlq.error`: "gone failed, post archived",
		`SELECT count(*) FROM sqlq.q_post`: "47",
		`SELECT count(*) FROM sqlq.q_bank`: "24",
		`SELECT count(*) FROM sqlq.history h JOIN sqlq.operation o ON o.id = h.operation WHERE what = 'replay' AND attempts = 7 AND failed_at = '2026-01-01T11:00:00Z'
			AND h.host = 'h1' AND h.error = 'card refused' AND o.kind = 'replay' AND o.status = 'done' AND o.done = o.wanted AND o.ended_at IS NOT NULL`: "71",
		`SELECT string_agg(done::text, ' ' ORDER BY id) FROM sqlq.operation`:                                                                                   "1 1 10 24 35", // one that did nothing is not written down
		`SELECT filter::jsonb ->> 'type' FROM sqlq.operation WHERE filter::jsonb ->> 'limit' = '1000' AND filter::jsonb ? 'group' AND filter::jsonb ? 'queue'`: "post.Letter",
	} {
		if got := value(t, pool, sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	if n := heard(t, pool, ear); n != 5 {
		t.Errorf("the sleeper was woken %d times, want 5", n)
	}
}

// Of two that replay at once neither waits for the other, and each message is replayed once.
func TestReplaySQLPassesOverLocked(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	failSQL(t, pool, "post", 1)
	err := inTx(t, pool, func(tx pgx.Tx) error {
		var first int
		if err := tx.QueryRow(t.Context(), `SELECT sqlq.replay('post', most => 10)`).Scan(&first); err != nil {
			return err
		}
		if second := count(t, pool, `SELECT sqlq.replay('post')`); first != 10 || second != 14 {
			t.Errorf("replayed %d and %d at once, want 10 and 14", first, second)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, `SELECT count(DISTINCT id) FROM sqlq.q_post`); n != 24 {
		t.Errorf("%d are in the queue, want 24", n)
	}
}

func TestCancelSQL(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['post', 'bank']) q`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'post'), ('post.Posted', 'bank')`)
	const event = "0198c0de-0000-7000-8000-000000000001"
	id := value(t, pool, `SELECT sqlq.send('post', 'post.Letter', '{}', delay => '1 hour')`)
	execSQL(t, pool, `SELECT sqlq.publish('post.Posted', '{}', delay => '1 hour', id => $1)`, event)
	for _, c := range [][2]string{{id, "1"}, {id, "0"}, {event, "2"}, {"0198c0de-0000-7000-8000-000000000002", "0"}} {
		if got := value(t, pool, `SELECT sqlq.cancel($1)`, c[0]); got != c[1] {
			t.Errorf("cancel of %s: %s, want %s", c[0], got, c[1])
		}
	}
	for sql, want := range map[string]string{
		`SELECT count(*) FROM sqlq.delayed`: "0",
		`SELECT string_agg(kind || ' ' || status || ' ' || done, ', ' ORDER BY id) FROM sqlq.operation`:                                         "cancel done 1, cancel done 2",
		`SELECT count(*) FROM sqlq.history WHERE what = 'cancel' AND operation = 2 AND queue IN ('post', 'bank') AND message = '` + event + `'`: "2",
	} {
		if got := value(t, pool, sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}

func TestPauseSQL(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	ear := sleeper(t, pool, "post")
	for _, c := range [][2]string{
		{`sqlq.resume('post')`, "false"}, {`sqlq.pause('post', 'the bank is down')`, "true"}, {`sqlq.pause('post')`, "false"},
		{`(SELECT paused_by = session_user || ': the bank is down' AND paused_at <= clock_timestamp() FROM sqlq.queue)`, "true"},
		{`sqlq.resume('post')`, "true"}, {`sqlq.resume('post')`, "false"},
		{`(SELECT paused_by IS NULL AND paused_at IS NULL FROM sqlq.queue)`, "true"},
		{`sqlq.pause('post')`, "true"}, {`(SELECT paused_by = session_user FROM sqlq.queue)`, "true"},
	} {
		if got := value(t, pool, `SELECT `+c[0]); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
	if got := value(t, pool, `SELECT string_agg(concat_ws(' ', kind, status, queue, reason), ',' ORDER BY id) FROM sqlq.operation`); got != "pause done post the bank is down,resume done post ,pause done post " {
		t.Errorf("operations: %q", got)
	}
	if n := heard(t, pool, ear); n != 3 {
		t.Errorf("endpoints were told %d times, want 3", n)
	}
	execSQL(t, pool, `SET sqlq.notify = off; SELECT sqlq.resume('post')`, pgx.QueryExecModeSimpleProtocol)
	refusedWith(t, pool, "42P01", `SELECT sqlq.pause('nowhere')`)
	refusedWith(t, pool, "42P01", `SELECT sqlq.resume('nowhere')`)
}
