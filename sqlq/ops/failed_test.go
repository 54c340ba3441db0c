package ops_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestListFailed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("sales", "g1", 3)
	d.fail("billing", "g2", 2)
	d.exec(`UPDATE sqlq.error SET type = 'sales.Cancel' WHERE seq = 2`)
	d.exec(`UPDATE sqlq.error SET status = 'archived', archived_at = now() WHERE seq = 3`)
	id := d.text(`SELECT id::text FROM sqlq.error WHERE seq = 5`)
	for _, c := range []struct {
		filter ops.Filter
		want   string
	}{
		{ops.Filter{}, "5 4 2 1"},
		{ops.Filter{Limit: 2}, "5 4"},
		{ops.Filter{Status: ops.StatusArchived}, "3"},
		{ops.Filter{Status: ops.StatusAny}, "5 4 3 2 1"},
		{ops.Filter{Queue: "sales"}, "2 1"},
		{ops.Filter{Type: "sales.Cancel"}, "2"},
		{ops.Filter{Group: "g2"}, "5 4"},
		{ops.Filter{Group: "g2", Queue: "sales"}, ""},
		{ops.Filter{Names: []string{"1", id, "99"}}, "5 1"},
		{ops.Filter{Names: []string{"1", "2"}, Type: "sales.Cancel"}, "2"},
	} {
		failed, err := d.ListFailed(t.Context(), c.filter)
		var got []string
		for _, m := range failed {
			got = append(got, fmt.Sprint(m.Number))
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %v, err %v, want %s", c.filter, got, err, c.want)
		}
	}
	if _, err := d.ListFailed(t.Context(), ops.Filter{Names: []string{"twelve"}}); err == nil || !strings.Contains(err.Error(), `"twelve"`) {
		t.Errorf("a name that is none: err %v", err)
	}
	if _, err := d.ListFailed(t.Context(), ops.Filter{Status: "lost"}); err == nil || !strings.Contains(err.Error(), `"lost"`) {
		t.Errorf("a status that is none: err %v", err)
	}
}

func TestShowFailed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`INSERT INTO sqlq.error (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at,
			first_failed_at, failed_at, error_type, message, chain, stack, fingerprint)
		VALUES ('0198c0de-0000-7000-8000-000000000001', 'sales', 'sales-v2', 'h1', 'sales.PlaceOrder', '{"tenant":"north"}', '{"order":1}',
			7, 2, '2026-01-01T10:00:00Z', '2026-01-02T10:00:00Z', '2026-01-01T10:00:01Z', '2026-01-01T10:05:00Z',
			'*pq.Error', 'card refused', '{"*fmt.wrapError: charge: card refused","*pq.Error: card refused"}', 'goroutine 1', 'g1')`)
	for _, name := range []string{"1", "0198c0de-0000-7000-8000-000000000001", "0198C0DE00007000" + "8000000000000001"} {
		m, err := d.ShowFailed(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(m.Number, m.ID, m.Status, m.Queue, m.Endpoint, m.Host, m.Type, string(m.Headers), string(m.Body), m.Attempts, m.Replays,
			m.SentAt.UTC(), m.ExpiresAt.UTC(), m.FirstFailedAt.UTC(), m.FailedAt.UTC(), m.ArchivedAt, m.ErrorType, m.Error, len(m.Chain), m.Stack, m.Group)
		day := func(s string) time.Time { at, _ := time.Parse(time.RFC3339, s); return at.UTC() }
		want := fmt.Sprint(int64(1), "0198c0de-0000-7000-8000-000000000001", ops.StatusFailed, "sales", "sales-v2", "h1", "sales.PlaceOrder", `{"tenant":"north"}`, `{"order":1}`, 7, 2,
			day("2026-01-01T10:00:00Z"), day("2026-01-02T10:00:00Z"), day("2026-01-01T10:00:01Z"), day("2026-01-01T10:05:00Z"), (*time.Time)(nil), "*pq.Error", "card refused", 2, "goroutine 1", "g1")
		if got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
	var none *ops.NoFailedError
	if _, err := d.ShowFailed(t.Context(), "2"); !errors.As(err, &none) {
		t.Errorf("one that is not there: err %v", err)
	}
	d.exec(`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		VALUES ('0198c0de-0000-7000-8000-000000000001', 'billing', 'billing', 'h', 'T', '', 1, now(), now(), 'e', 'm', 'g')`)
	if _, err := d.ShowFailed(t.Context(), "0198c0de-0000-7000-8000-000000000001"); err == nil || !strings.Contains(err.Error(), "1 (sales)") || !strings.Contains(err.Error(), "2 (billing)") {
		t.Errorf("an id of two: err %v", err)
	}
}

// A replayed message is the message that failed: id, time, type, body and its own headers. It begins again, and how it
// fared before goes along.
func TestReplayKeepsMessage(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	const kept = `"sqlq-first-failed-at":"2026-01-01T10:00:01.000002Z","sqlq-replays":"3"}`
	cases := []struct{ headers, want string }{
		{`{"tenant":"north"}`, `{"tenant":"north",` + kept},
		{`{}`, `{` + kept},
		{" { } ", `{` + kept},
		{"{\n  \"a\": \"b\"\n}\n", "{\n  \"a\": \"b\"," + kept},
		{`{"nul":"\u0000","half":"\ud800"}`, `{"nul":"\u0000","half":"\ud800",` + kept}, // json takes them, jsonb does not
		{`{"brace":"} "}`, `{"brace":"} ",` + kept},
		{`[1]`, `[1]`}, // not what sqlq stores; it must not hold up the others
		{`null`, `null`},
	}
	insert := `INSERT INTO sqlq.error (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at,
			first_failed_at, error_type, message, fingerprint)
		VALUES (gen_random_uuid(), 'sales', 'sales', 'h', 'sales.PlaceOrder', $1::text::json, '\x00ff7b', 7, 2, '2026-01-01T10:00:00Z', $2,
			'2026-01-01T10:00:01.000002Z', 'e', 'm', 'g')`
	for _, c := range cases {
		d.exec(insert, c.headers, nil)
	}
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	d.exec(insert, nil, past)
	d.exec(insert, nil, future)
	d.exec(`CREATE TABLE before AS SELECT * FROM sqlq.error`)

	n, err := d.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{})
	if err != nil || n != int64(len(cases)+2) {
		t.Fatalf("replayed %d, err %v", n, err)
	}
	same := `SELECT count(*) FROM sqlq.q_sales q JOIN before b USING (id, type, body, sent_at) WHERE q.attempt = 0 AND q.seq = b.seq`
	if got := d.number(same); got != n {
		t.Errorf("%d messages are as they were and in their order, want %d", got, n)
	}
	for i, c := range cases {
		if got := d.text(`SELECT headers::text FROM sqlq.q_sales WHERE seq = $1`, i+1); got != c.want {
			t.Errorf("headers %q: got %q, want %q", c.headers, got, c.want)
		}
	}
	if got := d.text(`SELECT headers::text FROM sqlq.q_sales WHERE seq = $1`, len(cases)+1); got != "{"+kept {
		t.Errorf("no headers: got %q", got)
	}
	if got := d.number(`SELECT count(*) FROM sqlq.q_sales WHERE expires_at IS NOT NULL`); got != 1 {
		t.Errorf("%d messages have a time to live, want the 1 whose has not passed", got)
	}
	if got := d.number(`SELECT count(*) FROM sqlq.error`); got != 0 {
		t.Errorf("%d messages are left in the error table", got)
	}
}

func TestReplayFilter(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	left := func() string {
		return d.text(`SELECT coalesce(string_agg(seq::text, ' ' ORDER BY seq), '') FROM sqlq.error`)
	}
	d.fail("sales", "g1", 3)
	d.fail("billing", "g2", 3)
	d.fail("sales", "g2", 3)
	d.exec(`UPDATE sqlq.error SET type = 'sales.Cancel' WHERE seq = 9`)
	d.exec(`UPDATE sqlq.error SET status = 'archived' WHERE seq = 1`)
	id := d.text(`SELECT id::text FROM sqlq.error WHERE seq = 8`)
	for _, c := range []struct {
		filter ops.Filter
		n      int64
		left   string
	}{
		{ops.Filter{Type: "sales.Cancel"}, 1, "1 2 3 4 5 6 7 8"},
		{ops.Filter{Names: []string{"3", id}}, 2, "1 2 4 5 6 7"},
		{ops.Filter{Group: "g2", Limit: 1}, 1, "1 2 5 6 7"}, // the first queue by name, the oldest of it
		{ops.Filter{Group: "g2", Queue: "sales"}, 1, "1 2 5 6"},
		{ops.Filter{Queue: "sales"}, 1, "1 5 6"},
		{ops.Filter{Group: "none such"}, 0, "1 5 6"},
		{ops.Filter{All: true}, 2, "1"},
		{ops.Filter{All: true}, 0, "1"},
	} {
		n, err := d.Replay(t.Context(), c.filter, ops.ReplayOptions{})
		if err != nil || n != c.n || left() != c.left {
			t.Fatalf("%+v: replayed %d, left %s, err %v; want %d, left %s", c.filter, n, left(), err, c.n, c.left)
		}
	}
	for _, f := range []ops.Filter{{}, {Names: []string{}}, {Limit: 1}} {
		if _, err := d.Replay(t.Context(), f, ops.ReplayOptions{}); !errors.Is(err, ops.ErrFilterEmpty) {
			t.Errorf("%+v: err %v, want ErrFilterEmpty", f, err)
		}
		if _, err := d.Archive(t.Context(), f); !errors.Is(err, ops.ErrFilterEmpty) {
			t.Errorf("archive %+v: err %v, want ErrFilterEmpty", f, err)
		}
	}
	if _, err := d.Replay(t.Context(), ops.Filter{Status: ops.StatusArchived, All: true}, ops.ReplayOptions{}); err == nil || left() != "1" {
		t.Errorf("archived ones: err %v", err)
	}
}

func TestReplayNames(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 3)
	d.exec(`UPDATE sqlq.error SET status = 'archived' WHERE seq = 2`)
	n, err := d.Replay(t.Context(), ops.Filter{Names: []string{"1", "2", "17", "0198c0de-0000-7000-8000-000000000001"}}, ops.ReplayOptions{})
	var none *ops.NoFailedError
	if n != 1 || !errors.As(err, &none) || fmt.Sprint(none.Missing, none.Archived) != "[17 0198c0de-0000-7000-8000-000000000001] [2]" {
		t.Errorf("replayed %d, err %v", n, err)
	}
}

// Two that run at once share the messages: each is replayed once, and none is lost.
func TestReplayTwoAtOnce(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	const total = 20_000
	d.fail("sales", "g1", total)
	type outcome struct {
		n   int64
		err error
	}
	outcomes := make(chan outcome)
	for range 2 {
		go func() {
			n, err := d.Replay(context.WithoutCancel(t.Context()), ops.Filter{Queue: "sales"}, ops.ReplayOptions{})
			outcomes <- outcome{n, err}
		}()
	}
	a, b := <-outcomes, <-outcomes
	if a.err != nil || b.err != nil || a.n+b.n != total {
		t.Errorf("replayed %d and %d, err %v, %v; want %d together", a.n, b.n, a.err, b.err, total)
	}
	if n := d.number(`SELECT count(DISTINCT id) FROM sqlq.q_sales`); n != total || d.number(`SELECT count(*) FROM sqlq.q_sales`) != total {
		t.Errorf("%d different messages are in the queue, want %d", n, total)
	}
}

// A replay that is interrupted has replayed whole batches and can be made again; what fails meanwhile is left alone.
func TestReplayInterruptedAndLaterArrivals(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 2500)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := d.Replay(ctx, ops.Filter{Queue: "sales"}, ops.ReplayOptions{Progress: func(int64) { cancel() }})
	if n != 1000 || !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: replayed %d, err %v", n, err)
	}
	if q, e := d.number(`SELECT count(*) FROM sqlq.q_sales`), d.number(`SELECT count(*) FROM sqlq.error`); q != 1000 || e != 1500 {
		t.Errorf("interrupted: %d in the queue, %d in the error table", q, e)
	}
	var told []int64
	n, err = d.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{Progress: func(n int64) {
		told = append(told, n)
		d.fail("sales", "g1", 1)
	}})
	if n != 1500 || err != nil || fmt.Sprint(told) != "[1000 1500]" {
		t.Errorf("again: replayed %d, err %v, progress %v", n, err, told)
	}
	if e := d.number(`SELECT count(*) FROM sqlq.error`); e != 2 {
		t.Errorf("%d messages in the error table, want the 2 that failed meanwhile", e)
	}
}

// Messages that somebody else works on are passed over, not waited for.
func TestReplayPassesOverLocked(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 5)
	tx, err := d.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `UPDATE sqlq.error SET status = 'archived' WHERE seq = 3`); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{}); n != 4 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{}); n != 0 || err != nil {
		t.Errorf("archived meanwhile: replayed %d, err %v", n, err)
	}
}

// The messages of a queue that is gone stay, the error names it, and the others go.
func TestReplayQueueGone(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("billing", "sales", "shipping")
	d.fail("billing", "g1", 2)
	d.fail("sales", "g1", 2)
	d.fail("shipping", "g1", 2)
	if _, err := d.DropQueue(t.Context(), "sales", false); err != nil {
		t.Fatal(err)
	}
	n, err := d.Replay(t.Context(), ops.Filter{Group: "g1"}, ops.ReplayOptions{})
	var gone *ops.QueueGoneError
	if n != 4 || !errors.As(err, &gone) || fmt.Sprint(gone.Queues) != "[sales]" {
		t.Errorf("replayed %d, err %v", n, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE queue = 'sales'`); n != 2 {
		t.Errorf("%d messages of the missing queue are left, want 2", n)
	}
	if n, err := d.Replay(t.Context(), ops.Filter{Queue: "billing"}, ops.ReplayOptions{}); n != 0 || err != nil {
		t.Errorf("another queue: replayed %d, err %v", n, err)
	}
	d.create("sales")
	if n, err := d.Replay(t.Context(), ops.Filter{Group: "g1"}, ops.ReplayOptions{}); n != 2 || err != nil {
		t.Errorf("made again: replayed %d, err %v", n, err)
	}
}

// A receiver that sleeps is woken, as by a sender.
func TestReplayWakes(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 1)
	conn, err := pgx.ConnectConfig(t.Context(), d.pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	// What a sleeping receiver does.
	oid := d.number(`SELECT 'sqlq.q_sales'::regclass::oid::bigint`)
	if _, err := conn.Exec(t.Context(), fmt.Sprintf(`LISTEN sqlq_%d`, oid)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock_shared(1936813169, sqlq.queue_lock_key('sqlq.q_sales'))`); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{}); n != 1 || err != nil {
		t.Fatalf("replayed %d, err %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := conn.WaitForNotification(ctx); err != nil {
		t.Errorf("not woken: %v", err)
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("sales", "g1", 2500)
	d.fail("billing", "g2", 3)
	if n, err := d.Archive(t.Context(), ops.Filter{Group: "g1", Limit: 1200}); n != 1200 || err != nil {
		t.Errorf("limited: archived %d, err %v", n, err)
	}
	if n, err := d.Archive(t.Context(), ops.Filter{Group: "g1"}); n != 1300 || err != nil {
		t.Errorf("the rest: archived %d, err %v", n, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE status = 'archived' AND archived_at IS NOT NULL AND fingerprint = 'g1'`); n != 2500 {
		t.Errorf("%d are archived, want 2500", n)
	}
	n, err := d.Archive(t.Context(), ops.Filter{Names: []string{"1", "2501", "9999"}})
	var none *ops.NoFailedError
	if n != 1 || !errors.As(err, &none) || fmt.Sprint(none.Missing, none.Archived) != "[9999] [1]" {
		t.Errorf("by name: archived %d, err %v", n, err)
	}
	if n, err := d.Archive(t.Context(), ops.Filter{All: true}); n != 2 || err != nil {
		t.Errorf("all: archived %d, err %v", n, err)
	}
}

// Names that need quoting, of schema and queue, reach every statement.
func TestOddNames(t *testing.T) {
	t.Parallel()
	const schema = `My "odd" schéma'\`
	d := openOdd(t, schema)
	queue := "A.b-C_" + strings.Repeat("x", 54)
	d.create(queue)
	ids, err := d.Send(t.Context(), queue, ops.Outgoing{Type: "T"}, []byte(`{}`))
	if err != nil || len(ids) != 1 {
		t.Fatalf("sent %v, err %v", ids, err)
	}
	d.exec(fmt.Sprintf(`INSERT INTO %s (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		VALUES (gen_random_uuid(), $1, $1, 'h', 'T', '{}', 1, now(), now(), 'e', 'm', 'g')`, pgx.Identifier{schema, "error"}.Sanitize()), queue)
	if n, err := d.Replay(t.Context(), ops.Filter{All: true}, ops.ReplayOptions{}); n != 1 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	q, err := d.ShowQueue(t.Context(), queue)
	if err != nil || q.Ready.N != 2 {
		t.Errorf("show: %+v, err %v", q, err)
	}
	if m, err := d.Peek(t.Context(), queue, ops.Filter{Limit: 10}, ops.Looking{}); err != nil || len(m) != 2 {
		t.Errorf("peek: %v, err %v", m, err)
	}
	if p, err := d.Purge(t.Context(), queue, ops.Filter{}, ops.PurgeOptions{Delayed: true}); err != nil || p.Ready != 2 {
		t.Errorf("purge: %v, err %v", p, err)
	}
	if _, err := d.DropQueue(t.Context(), queue, false); err != nil {
		t.Errorf("drop: %v", err)
	}
}
