package sqlq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/migrate"
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
			n, err := ops.New(pool, "sqlq").Replay(t.Context(), ops.Filter{Queue: "go"}, ops.ReplayOptions{})
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
		`SELECT filter::jsonb ->> 'Type' FROM sqlq.operation WHERE filter::jsonb ->> 'Limit' = '1000' AND filter::jsonb ? 'Group' AND filter::jsonb ? 'Queue'`: "post.Letter",
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

// Who may call what: each role what belongs to it, on its own queues.
func TestRolesSQLAPI(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	calls := map[string]string{
		"send_many": `SELECT sqlq.send_many('mine', 't', ARRAY['1']::json[]), sqlq.send_many('mine', 't', ARRAY['1']::json[], delay => '1 s')`,
		"backlog":   `SELECT sqlq.backlog('mine')`,
		"replay":    `SELECT sqlq.replay('mine')`,
		"cancel":    `SELECT sqlq.cancel((SELECT id FROM sqlq.delayed LIMIT 1))`,
		"pause":     `SELECT sqlq.pause('mine')`,
		"resume":    `SELECT sqlq.resume('mine')`,
	}
	theirs := func(sql string) string { return strings.ReplaceAll(sql, "'mine'", "'theirs'") }
	failSQL(t, admin, "mine", 1)
	failSQL(t, admin, "theirs", 1)
	execSQL(t, admin, `SELECT sqlq.send(q, 't', '1', delay => '1 hour') FROM unnest(ARRAY['mine', 'theirs']) q`)
	for kind, may := range map[string]string{"producer": "send_many", "consumer": "backlog", "viewer": "backlog", "operator": "send_many backlog replay cancel pause resume"} {
		pool := granted(t, url, kind, "mine")
		for name, sql := range calls {
			if !strings.Contains(may, name) {
				refused(t, pool, sql)
				continue
			}
			if err := do(pool, sql); err != nil {
				t.Errorf("%s: %s: %v", kind, sql, err)
			}
			switch name {
			case "replay", "cancel": // others' messages are not there for it
				_ = do(pool, theirs(sql))
			default:
				refused(t, pool, theirs(sql))
			}
		}
		refused(t, pool, `SELECT sqlq.set_paused('theirs', true, '')`)
	}
	for sql, want := range map[string]int{
		`SELECT count(*) FROM sqlq.error WHERE queue = 'mine'`:                               0,
		`SELECT count(*) FROM sqlq.error WHERE queue = 'theirs'`:                             24,
		`SELECT count(*) FROM sqlq.delayed WHERE queue = 'theirs'`:                           1,
		`SELECT count(*) FROM sqlq.queue WHERE paused_at IS NOT NULL AND name = 'theirs'`:    0,
		`SELECT count(*) FROM sqlq.operation WHERE kind = 'replay' AND db_role LIKE 'oper%'`: 1,
	} {
		if got := count(t, admin, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
}

// What the operator's API does to delayed messages and subscriptions, each role may do to its own queues or not at all.
func TestRolesOfDelayedAndSubscriptions(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	ctx := t.Context()
	execSQL(t, admin, `SELECT sqlq.send(q, 't', '1', delay => '1 hour') FROM unnest(ARRAY['mine', 'theirs']) q, generate_series(1, 2)`)
	on := func(kind string) *ops.Ops { return ops.New(granted(t, url, kind, "mine"), "sqlq") }
	all := ops.Filter{All: true}

	events, queues, err := on("producer").Publish(ctx, ops.Outgoing{Type: "post.Posted"}, []byte(`{}`))
	if err != nil || len(events) != 1 || events[0].Copies != 2 || queues != nil {
		t.Errorf("a producer publishes: %v to %v, %v", events, queues, err)
	}

	viewer := on("viewer")
	if list, err := viewer.ListDelayed(ctx, ops.Filter{Error: "x"}); err != nil || len(list) != 0 {
		t.Errorf("a viewer looks for errors of delayed messages: %v, %v", list, err)
	}
	if list, err := viewer.ListDelayed(ctx, ops.Filter{}); err != nil || len(list) != 2 {
		t.Errorf("a viewer lists delayed messages: %v, %v", list, err)
	}
	if list, err := viewer.ListSubscriptions(ctx, "", "mine"); err != nil || len(list) != 1 {
		t.Errorf("a viewer lists subscriptions: %v, %v", list, err)
	}
	if r, err := viewer.ExplainRoute(ctx, "post.Posted"); err != nil || len(r.Subscribers) != 2 || len(r.Waiting) != 1 {
		t.Errorf("a viewer has a route explained: %+v, %v", r, err)
	}
	_, errShow := viewer.ShowDelayed(ctx, "1")
	_, errCancel := viewer.Cancel(ctx, all, ops.DelayedOptions{})
	_, errMove := viewer.Reschedule(ctx, all, ops.Due{}, ops.DelayedOptions{})
	_, errAdd := viewer.Subscribe(ctx, "t", "mine")
	for what, err := range map[string]error{"show": errShow, "cancel": errCancel, "reschedule": errMove, "subscribe": errAdd} {
		if sqlStateOf(err) != "42501" {
			t.Errorf("a viewer does: %s: %v", what, err)
		}
	}

	operator := on("operator")
	if added, err := operator.Subscribe(ctx, "t", "mine"); !added || err != nil {
		t.Errorf("an operator subscribes: %v, %v", added, err)
	}
	if removed, err := operator.Unsubscribe(ctx, "t", "mine"); !removed || err != nil {
		t.Errorf("an operator unsubscribes: %v, %v", removed, err)
	}
	if removed, _ := operator.Unsubscribe(ctx, "post.Posted", "theirs"); removed {
		t.Error("an operator unsubscribes another's queue")
	}
	if n, err := operator.Reschedule(ctx, all, ops.Due{By: time.Hour}, ops.DelayedOptions{}); n != 2 || err != nil {
		t.Errorf("an operator reschedules: %d, %v", n, err)
	}
	if n, err := operator.Cancel(ctx, all, ops.DelayedOptions{}); n != 2 || err != nil {
		t.Errorf("an operator cancels: %d, %v", n, err)
	}
	for sql, want := range map[string]int{
		`SELECT count(*) FROM sqlq.delayed WHERE queue = 'theirs' AND due_at < now() + interval '61 minutes'`: 2,
		`SELECT count(*) FROM sqlq.history WHERE queue = 'mine'`:                                              4,
		`SELECT count(*) FROM sqlq.operation WHERE status = 'done'`:                                           4,
	} {
		if got := count(t, admin, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
}

// The functions do the same whatever the caller's search_path and temporary tables, and in a schema of any name.
func TestSQLAPIAmongHostileObjects(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSimple(t, pool, hostile)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	execSQL(t, pool, `SELECT sqlq.create_queue('work')`)
	failSQL(t, pool, "work", 1)
	for _, sql := range []string{
		`SET search_path = hostile, public, pg_catalog`,
		`CREATE TEMP TABLE operation (name text)`,
		`CREATE TEMP TABLE history (name text)`,
		`CREATE TEMP TABLE queue (name text)`,
		`CREATE TEMP TABLE q_work (name text)`,
		`CREATE TEMP TABLE delayed (name text)`,
		`SET TimeZone = 'Asia/Kathmandu'`,
		`SET DateStyle = 'German, DMY'`,
		`SET IntervalStyle = 'sql_standard'`,
		`SET bytea_output = 'escape'`,
		`SET default_transaction_isolation = 'serializable'`,
		`SELECT sqlq.send_many('work', 'post.Letter', ARRAY['1', '2']::pg_catalog.json[])`,
		`SELECT sqlq.send_many('work', 'post.Letter', ARRAY['3']::pg_catalog.json[], delay => '1 hour')`,
		`SELECT sqlq.backlog('work')`,
		`SELECT sqlq.replay('work')`,
		`SELECT sqlq.cancel((SELECT id FROM sqlq.delayed))`,
		`SELECT sqlq.pause('work', 'why'), sqlq.resume('work')`,
	} {
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for sql, want := range map[string]int{
		`SELECT count(*) FROM sqlq.q_work`:    26,
		`SELECT count(*) FROM sqlq.delayed`:   0,
		`SELECT count(*) FROM sqlq.operation`: 4,
		`SELECT count(*) FROM sqlq.history`:   25,
		`SELECT count(*) FROM sqlq.q_work WHERE headers::text LIKE '%2026-01-01T10:00:01.000002Z%'`: 18,
	} {
		if got := count(t, pool, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
}

// The functions work in a schema whose name needs quoting.
func TestSQLAPIInAnOddSchema(t *testing.T) {
	t.Parallel()
	const schema = `My "odd" schéma'\`
	url := pgtest.Empty(t)
	if err := migrate.Up(t.Context(), url, schema); err != nil {
		t.Fatal(err)
	}
	pool := poolOn(t, url)
	in := func(call string) string { return `SELECT ` + pgx.Identifier{schema}.Sanitize() + `.` + call }
	for _, c := range [][2]string{
		{`create_queue('A.b-C')`, "true"}, {`send_many('A.b-C', 't', ARRAY['1', '2']::json[])`, "2"}, {`backlog('A.b-C')`, "2"},
		{`send_many('A.b-C', 't', ARRAY['1']::json[], delay => '1 hour')`, "1"}, {`replay('A.b-C')`, "0"},
		{`pause('A.b-C')`, "true"}, {`resume('A.b-C')`, "true"}, {`cancel('0198c0de-0000-7000-8000-000000000002')`, "0"},
	} {
		if got := value(t, pool, in(c[0])); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
}
