package sqlq_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/migrate"
	"github.com/sqlq/sqlq/sqlq/ops"
)

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
	if list, err := viewer.Delayed.List(ctx, ops.Filter{Error: "x"}); err != nil || len(list) != 0 {
		t.Errorf("a viewer looks for errors of delayed messages: %v, %v", list, err)
	}
	if list, err := viewer.Delayed.List(ctx, ops.Filter{}); err != nil || len(list) != 2 {
		t.Errorf("a viewer lists delayed messages: %v, %v", list, err)
	}
	if list, err := viewer.Routes.List(ctx, "", "mine"); err != nil || len(list) != 1 {
		t.Errorf("a viewer lists subscriptions: %v, %v", list, err)
	}
	if r, err := viewer.Routes.Explain(ctx, "post.Posted"); err != nil || len(r.Subscribers) != 2 || len(r.Waiting) != 1 {
		t.Errorf("a viewer has a route explained: %+v, %v", r, err)
	}
	_, errShow := viewer.Delayed.Show(ctx, "1")
	_, errCancel := viewer.Delayed.Cancel(ctx, all, ops.ChangeOptions{})
	_, errMove := viewer.Delayed.Reschedule(ctx, all, ops.Due{}, ops.ChangeOptions{})
	_, errAdd := viewer.Routes.Subscribe(ctx, "t", "mine")
	for what, err := range map[string]error{"show": errShow, "cancel": errCancel, "reschedule": errMove, "subscribe": errAdd} {
		if sqlStateOf(err) != "42501" {
			t.Errorf("a viewer does: %s: %v", what, err)
		}
	}

	operator := on("operator")
	if added, err := operator.Routes.Subscribe(ctx, "t", "mine"); !added || err != nil {
		t.Errorf("an operator subscribes: %v, %v", added, err)
	}
	if removed, err := operator.Routes.Unsubscribe(ctx, "t", "mine"); !removed || err != nil {
		t.Errorf("an operator unsubscribes: %v, %v", removed, err)
	}
	if removed, _ := operator.Routes.Unsubscribe(ctx, "post.Posted", "theirs"); removed {
		t.Error("an operator unsubscribes another's queue")
	}
	if n, err := operator.Delayed.Reschedule(ctx, all, ops.Due{By: time.Hour}, ops.ChangeOptions{}); n != 2 || err != nil {
		t.Errorf("an operator reschedules: %d, %v", n, err)
	}
	if n, err := operator.Delayed.Cancel(ctx, all, ops.ChangeOptions{}); n != 2 || err != nil {
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
