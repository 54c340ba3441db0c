package ops_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// whole fails the test unless so many messages were made that each is in one place, the queue or the error table, and so
// many of them are in the queue.
func (d database) whole(queue string, made, ready int64) {
	d.t.Helper()
	all, different := d.number(`SELECT (SELECT count(*) FROM sqlq.q_`+queue+`) + (SELECT count(*) FROM sqlq.error)`),
		d.number(`SELECT count(*) FROM (SELECT id FROM sqlq.q_`+queue+` UNION SELECT id FROM sqlq.error) m`)
	if all != made || different != made {
		d.t.Errorf("%d messages are there, %d different ones, want %d", all, different, made)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.q_` + queue); n != ready {
		d.t.Errorf("%d messages are in the queue, want %d", n, ready)
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

	n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{})
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
		n, err := d.Failed.Replay(t.Context(), c.filter, ops.ReplayOptions{})
		if err != nil || n != c.n || left() != c.left {
			t.Fatalf("%+v: replayed %d, left %s, err %v; want %d, left %s", c.filter, n, left(), err, c.n, c.left)
		}
	}
	for _, f := range []ops.Filter{{}, {Names: []string{}}, {Limit: 1}} {
		if _, err := d.Failed.Replay(t.Context(), f, ops.ReplayOptions{}); !errors.Is(err, ops.ErrFilterEmpty) {
			t.Errorf("%+v: err %v, want ErrFilterEmpty", f, err)
		}
		if _, err := d.Failed.Archive(t.Context(), f, ops.ChangeOptions{}); !errors.Is(err, ops.ErrFilterEmpty) {
			t.Errorf("archive %+v: err %v, want ErrFilterEmpty", f, err)
		}
	}
	if _, err := d.Failed.Replay(t.Context(), ops.Filter{Status: ops.StatusArchived, All: true}, ops.ReplayOptions{}); err == nil || left() != "1" {
		t.Errorf("archived ones: err %v", err)
	}
}

func TestReplayNames(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 3)
	d.exec(`UPDATE sqlq.error SET status = 'archived' WHERE seq = 2`)
	n, err := d.Failed.Replay(t.Context(), ops.Filter{Names: []string{"1", "2", "17", "0198c0de-0000-7000-8000-000000000001"}}, ops.ReplayOptions{})
	var none *ops.NoFailedError
	if n != 1 || !errors.As(err, &none) || fmt.Sprint(none.Missing, none.Archived) != "[17 0198c0de-0000-7000-8000-000000000001] [2]" {
		t.Errorf("replayed %d, err %v", n, err)
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
	if _, err := d.Queues.Drop(t.Context(), "sales", false); err != nil {
		t.Fatal(err)
	}
	n, err := d.Failed.Replay(t.Context(), ops.Filter{Group: "g1"}, ops.ReplayOptions{})
	var gone *ops.QueueGoneError
	if n != 4 || !errors.As(err, &gone) || fmt.Sprint(gone.Queues) != "[sales]" {
		t.Errorf("replayed %d, err %v", n, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE queue = 'sales'`); n != 2 {
		t.Errorf("%d messages of the missing queue are left, want 2", n)
	}
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "billing"}, ops.ReplayOptions{}); n != 0 || err != nil {
		t.Errorf("another queue: replayed %d, err %v", n, err)
	}
	d.create("sales")
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{Group: "g1"}, ops.ReplayOptions{}); n != 2 || err != nil {
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
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{}); n != 1 || err != nil {
		t.Fatalf("replayed %d, err %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := conn.WaitForNotification(ctx); err != nil {
		t.Errorf("not woken: %v", err)
	}
}

// Messages go to another queue where one is named, which must be there; that their own is gone does not matter.
func TestReplayTo(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("mended", "sales")
	d.fail("sales", "g1", 2)
	d.fail("gone", "g1", 2)
	var none *ops.NoQueueError
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{All: true}, ops.ReplayOptions{To: "mendet"}); n != 0 || !errors.As(err, &none) {
		t.Errorf("to a queue that is not there: replayed %d, err %v", n, err)
	}
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{All: true}, ops.ReplayOptions{To: "mended"}); n != 4 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	d.whole("mended", 4, 4)
	if got := d.text(`SELECT string_agg(queue || ' ' || n, ', ' ORDER BY queue) FROM (SELECT queue, count(*) n FROM sqlq.history GROUP BY 1) h`); got != "gone 2, sales 2" {
		t.Errorf("history: %s", got)
	}
	if got := d.text(`SELECT queue FROM sqlq.operation`); got != "mended" {
		t.Errorf("operation: to %q", got)
	}
}

// Texts, headers and bodies choose as they do in a list, however far apart the chosen messages are.
func TestReplayScans(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	const total = 25_000 // more than are looked at in one transaction
	d.fail("sales", "g1", total)
	d.exec(`UPDATE sqlq.error SET message = 'order ' || seq || ': timeout', headers = '{"tenant":"south"}', body = convert_to('{"order":' || seq || '}', 'UTF8')
		WHERE seq % 5000 = 0`)
	ready := func() string {
		return d.text(`SELECT coalesce(string_agg(convert_from(body, 'UTF8'), ' ' ORDER BY seq), '') FROM sqlq.q_sales`)
	}
	var at []int64
	n, err := d.Failed.Replay(t.Context(), ops.Filter{Error: "/order [0-9]+: time-?out$/", Headers: map[string]string{"tenant": "south"}, Body: "$.order > 5000"},
		ops.ReplayOptions{ChangeOptions: ops.ChangeOptions{Limit: 3, Progress: func(p ops.Progress) { at = append(at, p.At) }}})
	if want := `{"order":10000} {"order":15000} {"order":20000}`; n != 3 || err != nil || ready() != want {
		t.Errorf("replayed %d, err %v: %s, want %s", n, err, ready(), want)
	}
	if fmt.Sprint(at) != "[10000 20000]" {
		t.Errorf("looked up to %v", at)
	}
	if n, err := d.Failed.Delete(t.Context(), ops.Filter{Error: "timeout"}, ops.ChangeOptions{}); n != 2 || err != nil {
		t.Errorf("deleted %d, err %v", n, err)
	}
	d.whole("sales", total-2, 3)
	var wrong *ops.FilterError
	if _, err := d.Failed.Replay(t.Context(), ops.Filter{Error: "/time(/"}, ops.ReplayOptions{}); !errors.As(err, &wrong) {
		t.Errorf("a pattern that is none: err %v", err)
	}
}

// A time chooses by when messages failed, whatever their numbers.
func TestReplaySince(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 9)
	d.exec(`UPDATE sqlq.error SET failed_at = now() - interval '2 hours' WHERE seq NOT IN (4, 5, 8)`)
	f := ops.Filter{Since: ops.Ago(time.Hour)}
	if v, err := d.Failed.PreviewReplay(t.Context(), f, ops.ReplayOptions{}); err != nil || v.Messages.N != 3 || len(v.Sample) != 3 || v.Sample[0].Number != 4 {
		t.Errorf("preview %+v, err %v", v, err)
	}
	if n, err := d.Failed.Replay(t.Context(), f, ops.ReplayOptions{}); n != 3 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{Until: ops.Ago(time.Hour), Limit: 2}, ops.ReplayOptions{}); n != 2 || err != nil {
		t.Errorf("older ones: replayed %d, err %v", n, err)
	}
	if got := d.text(`SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM sqlq.error`); got != "3 6 7 9" {
		t.Errorf("left: %s", got)
	}
}

// Of the newest with a limit those are replayed, the oldest of them first.
func TestReplayNewest(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 9)
	if v, err := d.Failed.PreviewReplay(t.Context(), ops.Filter{Queue: "sales", Order: ops.Newest, Limit: 3}, ops.ReplayOptions{}); err != nil || len(v.Sample) != 3 || v.Sample[0].Number != 7 {
		t.Errorf("preview %+v, err %v", v, err)
	}
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales", Order: ops.Newest, Limit: 3}, ops.ReplayOptions{}); n != 3 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	if got := d.text(`SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM sqlq.error`); got != "1 2 3 4 5 6" {
		t.Errorf("left: %s", got)
	}
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales", Order: ops.Newest, Limit: 30}, ops.ReplayOptions{}); n != 6 || err != nil {
		t.Errorf("fewer than the limit: replayed %d, err %v", n, err)
	}
}

// An operation on the newest whose process dies right after it was written down is resumed with the newest, not with others.
func TestReplayNewestDiesAtItsBeginning(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 9)
	d.exec(`CREATE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it dies'; END $$`)
	d.exec(`CREATE TRIGGER die BEFORE UPDATE ON sqlq.operation EXECUTE FUNCTION public.die()`)
	if n, err := d.Failed.Delete(t.Context(), ops.Filter{Queue: "sales", Order: ops.Newest, Limit: 3}, ops.ChangeOptions{}); n != 0 || err == nil {
		t.Fatalf("deleted %d, err %v", n, err)
	}
	d.exec(`DROP TRIGGER die ON sqlq.operation`)
	d.exec(`UPDATE sqlq.operation SET updated_at = now() - interval '1 minute'`)
	if op, err := d.Operations.Resume(t.Context(), 1, nil); err != nil || op.Done != 3 {
		t.Errorf("resumed: %+v, err %v", op, err)
	}
	if got := d.text(`SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM sqlq.error`); got != "1 2 3 4 5 6" {
		t.Errorf("left: %s", got)
	}
}
