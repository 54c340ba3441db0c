package ops_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestCreateQueue(t *testing.T) {
	t.Parallel()
	d := open(t)
	if made, err := d.Queues.Create(t.Context(), "sales"); err != nil || !made {
		t.Errorf("first: made %v, err %v", made, err)
	}
	if made, err := d.Queues.Create(t.Context(), "sales"); err != nil || made {
		t.Errorf("second: made %v, err %v", made, err)
	}
	_, err := d.Queues.Create(t.Context(), "no spaces")
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Hint == "" {
		t.Errorf("a name that is not allowed: err %v", err)
	}
}

func TestListQueuesCounts(t *testing.T) {
	t.Parallel()
	d := open(t)
	if queues, err := d.Queues.List(t.Context()); err != nil || len(queues) != 0 {
		t.Errorf("empty: %v, err %v", queues, err)
	}
	d.create("sales", "billing", "Odd.name-1_2")
	d.exec(`SELECT sqlq.send('sales', 'sales.PlaceOrder', '{}') FROM generate_series(1, 3)`)
	d.exec(`UPDATE sqlq.q_sales SET sent_at = now() - interval '2 hours' WHERE seq = 2`)
	d.exec(`SELECT sqlq.send('billing', 'billing.Charge', '{}', delay => '1 hour') FROM generate_series(1, 4)`)
	d.exec(`INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body)
		VALUES (1, 'billing', 1, gen_random_uuid(), now(), 1, 'billing.Charge', '{}')`)
	d.fail("billing", "g1", 5)
	d.exec(`UPDATE sqlq.error SET status = 'archived' WHERE seq = 1`)

	queues, err := d.Queues.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range queues {
		age := "none"
		if q.OldestAge != nil {
			age = q.OldestAge.Round(time.Hour).String()
		}
		got = append(got, fmt.Sprintf("%s ready %v delayed %v leased %v failed %v oldest %s", q.Name, q.Ready, q.Delayed, q.Leased, q.Failed, age))
	}
	want := `Odd.name-1_2 ready {0 false} delayed {0 false} leased {0 false} failed {0 false} oldest none
billing ready {0 false} delayed {4 false} leased {1 false} failed {4 false} oldest none
sales ready {3 false} delayed {0 false} leased {0 false} failed {0 false} oldest 2h0m0s`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

// Above the limit every count is an estimate that is near, and never below the limit that was counted.
func TestListQueuesEstimates(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	const n = 60_000
	d.exec(`INSERT INTO sqlq.q_sales (id, type, body) SELECT gen_random_uuid(), 'T', convert_to(repeat('x', 200), 'UTF8') FROM generate_series(1, $1)`, n)
	d.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body)
		SELECT now(), gen_random_uuid(), 'delay', CASE WHEN i % 4 = 0 THEN 'sales' ELSE 'billing' END, 'T', '{}' FROM generate_series(1, $1) i`, n)
	d.fail("billing", "g1", n)
	queues, err := d.Queues.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	billing, sales := queues[0], queues[1]
	for _, c := range []struct {
		what string
		got  ops.Count
		want int64
	}{
		{"ready of sales", sales.Ready, n},
		{"delayed of sales", sales.Delayed, n / 4},
		{"delayed of billing", billing.Delayed, n * 3 / 4},
		{"failed of billing", billing.Failed, n},
	} {
		if !c.got.Estimated || c.got.N < c.want*8/10 || c.got.N > c.want*12/10 {
			t.Errorf("%s: %v, want about %d, estimated", c.what, c.got, c.want)
		}
	}
	if billing.Ready != (ops.Count{}) || sales.Failed != (ops.Count{}) {
		t.Errorf("empty ones: ready of billing %v, failed of sales %v", billing.Ready, sales.Failed)
	}
	if sales.OldestAge == nil {
		t.Error("the oldest age of sales is unknown")
	}
}

// A count that takes too long, here because the table is locked, is given up and estimated; the others are still exact.
func TestListQueuesGivesUp(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("billing", "g1", 2)
	d.exec(`SELECT sqlq.send('billing', 'billing.Charge', '{}')`)
	tx, err := d.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `LOCK TABLE sqlq.error IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		queues []ops.Queue
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		queues, err := d.Queues.List(t.Context())
		done <- outcome{queues, err}
	}()
	// The estimate needs the table as well, and waits for it: once it does, the count has been given up.
	for d.number(`SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%TABLESAMPLE%'`) == 0 {
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	if got := fmt.Sprint(o.queues[0].Ready, o.queues[0].Failed, o.queues[1].Failed); got != "{1 false} {2 true} {0 true}" {
		t.Errorf("ready and failed of billing, failed of sales: %s", got)
	}
}

func TestShowQueue(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("billing", "sales")
	d.exec(`INSERT INTO sqlq.subscription (type, queue) VALUES ('sales.OrderPlaced', 'billing'), ('sales.OrderCancelled', 'billing')`)
	d.exec(`INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, drained_at, crashed_at)
		VALUES ('billing', 'h', 1, 'v', 1, true, '15 s', NULL, NULL), ('billing', 'h', 2, 'v', 1, true, '15 s', now(), NULL),
			('billing', 'h', 3, 'v', 1, true, '15 s', NULL, now()), ('sales', 'h', 4, 'v', 1, true, '15 s', NULL, NULL)`)
	d.exec(`SELECT sqlq.send('billing', 'billing.Charge', '{}')`)
	q, err := d.Queues.Show(t.Context(), "billing")
	if err != nil {
		t.Fatal(err)
	}
	if q.Name != "billing" || q.Ready.N != 1 || q.Instances != 1 || strings.Join(q.Subscribed, " ") != "sales.OrderCancelled sales.OrderPlaced" || q.CreatedAt.IsZero() {
		t.Errorf("got %+v", q)
	}
}

func TestUnknownQueue(t *testing.T) {
	t.Parallel()
	d := open(t)
	check := func(what string, err error, near string) {
		t.Helper()
		var no *ops.NoQueueError
		if !errors.As(err, &no) || !errors.Is(err, sqlq.ErrNoQueue) || strings.Join(no.Near, " ") != near {
			t.Errorf("%s: err %v, want a NoQueueError near %q", what, err, near)
		}
	}
	_, err := d.Queues.Show(t.Context(), "sales")
	check("show where there are none", err, "")
	d.create("sales", "shipping", "billing")
	_, err = d.Queues.Show(t.Context(), "slaes")
	check("show", err, "sales")
	_, err = d.Ready.List(t.Context(), "SALES", ops.Filter{Limit: 1}, ops.Looking{})
	check("peek", err, "sales")
	_, err = d.Ready.Purge(t.Context(), "bill", ops.Filter{}, ops.PurgeOptions{Delayed: true})
	check("purge", err, "billing")
	_, err = d.Queues.Drop(t.Context(), "warehouse", true)
	check("drop", err, "billing sales shipping")
	_, err = d.Send(t.Context(), "salesx", ops.Outgoing{Type: "T"}, []byte(`{}`))
	check("send", err, "sales")
	_, err = d.Failed.List(t.Context(), ops.Filter{Queue: "slaes"})
	check("list failed", err, "sales")
	_, err = d.Failed.Replay(t.Context(), ops.Filter{Queue: "slaes"}, ops.ReplayOptions{})
	check("replay", err, "sales")
	_, err = d.Failed.Archive(t.Context(), ops.Filter{Queue: "slaes"}, ops.ChangeOptions{})
	check("archive", err, "sales")
}

func TestPeek(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.exec(`SELECT sqlq.send('sales', 'sales.PlaceOrder', format('{"n":%s}', i)::json, '{"tenant":"north"}') FROM generate_series(1, 5) i`)
	// Those that a receiver holds are seen too, and peeking does not wait for them.
	tx, err := d.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `SELECT FROM sqlq.q_sales WHERE seq = 1 FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	messages, err := d.Ready.List(t.Context(), "sales", ops.Filter{Limit: 2}, ops.Looking{})
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) != 2 || string(messages[0].Body) != `{"n":1}` || string(messages[1].Body) != `{"n":2}` ||
		string(messages[0].Headers) != `{"tenant":"north"}` || messages[0].Type != "sales.PlaceOrder" || len(messages[0].ID) != 36 {
		t.Errorf("got %+v", messages)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.q_sales`); n != 5 {
		t.Errorf("%d messages are left, want all 5", n)
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.exec(`INSERT INTO sqlq.q_sales (id, type, body) SELECT gen_random_uuid(), 'T', '{}' FROM generate_series(1, 2500)`)
	d.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body)
		SELECT now() + interval '1 hour', gen_random_uuid(), 'delay', CASE WHEN i % 2 = 0 THEN 'sales' ELSE 'billing' END, 'T', '{}'
		FROM generate_series(1, 3000) i`)
	d.exec(`SELECT sqlq.send('billing', 'T', '{}')`)
	d.fail("sales", "g1", 1)
	// A receiver holds three messages.
	tx, err := d.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `SELECT FROM sqlq.q_sales WHERE seq IN (1, 1000, 2500) FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	purged, err := d.Ready.Purge(t.Context(), "sales", ops.Filter{}, ops.PurgeOptions{Delayed: true})
	if err != nil || purged != (ops.Purged{Ready: 2497, Delayed: 1500}) {
		t.Errorf("purged %+v, err %v", purged, err)
	}
	for what, want := range map[string]int64{
		`SELECT count(*) FROM sqlq.q_sales`:                         3,
		`SELECT count(*) FROM sqlq.delayed WHERE queue = 'billing'`: 1500,
		`SELECT count(*) FROM sqlq.delayed WHERE queue = 'sales'`:   0,
		`SELECT count(*) FROM sqlq.q_billing`:                       1,
		`SELECT count(*) FROM sqlq.error`:                           1,
	} {
		if n := d.number(what); n != want {
			t.Errorf("%s: %d, want %d", what, n, want)
		}
	}
}

func TestDropQueue(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.exec(`SELECT sqlq.send('sales', 'T', '{}'), sqlq.send('sales', 'T', '{}', delay => '1 hour')`)
	_, err := d.Queues.Drop(t.Context(), "sales", false)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "55000" {
		t.Errorf("a queue that holds messages: err %v", err)
	}
	if n, err := d.Queues.Drop(t.Context(), "sales", true); err != nil || n != 2 {
		t.Errorf("by force: removed %d, err %v", n, err)
	}
	if n, err := d.Queues.Drop(t.Context(), "billing", false); err != nil || n != 0 {
		t.Errorf("empty: removed %d, err %v", n, err)
	}
	if queues, err := d.Queues.List(t.Context()); err != nil || len(queues) != 0 {
		t.Errorf("left: %v, err %v", queues, err)
	}
}
