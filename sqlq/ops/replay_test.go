package ops_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

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
		if _, err := d.Archive(t.Context(), f, nil); !errors.Is(err, ops.ErrFilterEmpty) {
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

// A replay that is interrupted has replayed whole batches, says how many, and is resumed; what fails meanwhile is left alone.
func TestReplayInterruptedAndLaterArrivals(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 12_000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := d.Replay(ctx, ops.Filter{Queue: "sales"}, ops.ReplayOptions{Progress: func(ops.Progress) { cancel() }})
	var stopped *ops.InterruptedError
	if n != 5000 || !errors.Is(err, context.Canceled) || !errors.As(err, &stopped) || stopped.Done != 5000 || *stopped.Wanted != 12_000 {
		t.Fatalf("interrupted: replayed %d, err %v", n, err)
	}
	if want := "replay stopped after 5000 of 12000 messages\nGo on with: sqlq operation resume 1"; err.Error() != want {
		t.Errorf("interrupted: err %q, want %q", err, want)
	}
	d.whole("sales", 12_000, 5000)
	op, err := d.Operation(t.Context(), stopped.Operation)
	if err != nil || op.Status != ops.OperationInterrupted || op.Done != 5000 || op.EndedAt == nil || !op.Resumable() {
		t.Errorf("interrupted: operation %+v, err %v", op, err)
	}
	var told []int64
	op, err = d.ResumeOperation(t.Context(), stopped.Operation, func(p ops.Progress) {
		told = append(told, p.Done)
		d.fail("sales", "g1", 1)
	})
	if err != nil || op.Status != ops.OperationDone || op.Done != 12_000 || fmt.Sprint(told) != "[10000 12000]" {
		t.Errorf("resumed: %+v, err %v, progress %v", op, err, told)
	}
	d.whole("sales", 12_002, 12_000)
	if _, err := d.ResumeOperation(t.Context(), op.ID, nil); err == nil || !strings.Contains(err.Error(), "is done: there is nothing to resume") {
		t.Errorf("resumed again: err %v", err)
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

// Messages go to another queue where one is named, which must be there; that their own is gone does not matter.
func TestReplayTo(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("mended", "sales")
	d.fail("sales", "g1", 2)
	d.fail("gone", "g1", 2)
	var none *ops.NoQueueError
	if n, err := d.Replay(t.Context(), ops.Filter{All: true}, ops.ReplayOptions{To: "mendet"}); n != 0 || !errors.As(err, &none) {
		t.Errorf("to a queue that is not there: replayed %d, err %v", n, err)
	}
	if n, err := d.Replay(t.Context(), ops.Filter{All: true}, ops.ReplayOptions{To: "mended"}); n != 4 || err != nil {
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

// When the queue that all go to is dropped meanwhile the replay stops, and goes on when it is there again.
func TestReplayToQueueDroppedMeanwhile(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("mended")
	d.fail("sales", "g1", 6000)
	n, err := d.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{To: "mended", Progress: func(ops.Progress) {
		if _, err := d.DropQueue(t.Context(), "mended", true); err != nil {
			t.Error(err)
		}
	}})
	var none *ops.NoQueueError
	var stopped *ops.InterruptedError
	if n != 5000 || !errors.As(err, &none) || none.Queue != "mended" || !errors.As(err, &stopped) {
		t.Fatalf("replayed %d, err %v", n, err)
	}
	d.create("mended")
	if op, err := d.ResumeOperation(t.Context(), stopped.Operation, nil); err != nil || op.Done != 6000 {
		t.Errorf("resumed: %+v, err %v", op, err)
	}
	d.whole("mended", 1000, 1000)
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
	n, err := d.Replay(t.Context(), ops.Filter{Error: "/order [0-9]+: time-?out$/", Headers: map[string]string{"tenant": "south"}, Body: "$.order > 5000"},
		ops.ReplayOptions{Limit: 3, Progress: func(p ops.Progress) { at = append(at, p.At) }})
	if want := `{"order":10000} {"order":15000} {"order":20000}`; n != 3 || err != nil || ready() != want {
		t.Errorf("replayed %d, err %v: %s, want %s", n, err, ready(), want)
	}
	if fmt.Sprint(at) != "[10000 20000]" {
		t.Errorf("looked up to %v", at)
	}
	if n, err := d.Delete(t.Context(), ops.Filter{Error: "timeout"}, nil); n != 2 || err != nil {
		t.Errorf("deleted %d, err %v", n, err)
	}
	d.whole("sales", total-2, 3)
	var wrong *ops.FilterError
	if _, err := d.Replay(t.Context(), ops.Filter{Error: "/time(/"}, ops.ReplayOptions{}); !errors.As(err, &wrong) {
		t.Errorf("a pattern that is none: err %v", err)
	}
}

// What looks into bodies and headers works where the server would have several processes look.
func TestScanOfALargeTable(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", 20_000)
	d.exec(`ANALYZE sqlq.error`)
	config := d.pool.Config()
	for _, cost := range []string{"parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"} {
		config.ConnConfig.RuntimeParams[cost] = "0"
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	f := ops.Filter{Headers: map[string]string{"tenant": "north"}, Body: "$.order > 1"}
	if v, err := ops.New(pool, "sqlq").PreviewDelete(t.Context(), f); err != nil || v.Messages.N != 0 {
		t.Errorf("%+v, err %v", v, err)
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
	if v, err := d.PreviewReplay(t.Context(), f, ops.ReplayOptions{}); err != nil || v.Messages.N != 3 || len(v.Sample) != 3 || v.Sample[0].Number != 4 {
		t.Errorf("preview %+v, err %v", v, err)
	}
	if n, err := d.Replay(t.Context(), f, ops.ReplayOptions{}); n != 3 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	if n, err := d.Replay(t.Context(), ops.Filter{Until: ops.Ago(time.Hour), Limit: 2}, ops.ReplayOptions{}); n != 2 || err != nil {
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
	if v, err := d.PreviewReplay(t.Context(), ops.Filter{Queue: "sales", Order: ops.Newest, Limit: 3}, ops.ReplayOptions{}); err != nil || len(v.Sample) != 3 || v.Sample[0].Number != 7 {
		t.Errorf("preview %+v, err %v", v, err)
	}
	if n, err := d.Replay(t.Context(), ops.Filter{Queue: "sales", Order: ops.Newest, Limit: 3}, ops.ReplayOptions{}); n != 3 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	if got := d.text(`SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM sqlq.error`); got != "1 2 3 4 5 6" {
		t.Errorf("left: %s", got)
	}
	if n, err := d.Replay(t.Context(), ops.Filter{Queue: "sales", Order: ops.Newest, Limit: 30}, ops.ReplayOptions{}); n != 6 || err != nil {
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
	if n, err := d.Delete(t.Context(), ops.Filter{Queue: "sales", Order: ops.Newest, Limit: 3}, nil); n != 0 || err == nil {
		t.Fatalf("deleted %d, err %v", n, err)
	}
	d.exec(`DROP TRIGGER die ON sqlq.operation`)
	d.exec(`UPDATE sqlq.operation SET updated_at = now() - interval '1 minute'`)
	if op, err := d.ResumeOperation(t.Context(), 1, nil); err != nil || op.Done != 3 {
		t.Errorf("resumed: %+v, err %v", op, err)
	}
	if got := d.text(`SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM sqlq.error`); got != "1 2 3 4 5 6" {
		t.Errorf("left: %s", got)
	}
}

// A server process that dies in the middle of a batch leaves nothing half done, and the operation is resumed.
func TestReplayKilledMidBatch(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 12_000)
	// The second batch stops in front of its last message until the test lets go of a lock.
	d.exec(`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(17); RETURN NEW; END'`)
	d.exec(`CREATE TRIGGER hold BEFORE INSERT ON sqlq.q_sales FOR EACH ROW WHEN (NEW.seq = 10000) EXECUTE FUNCTION hold()`)
	holder, err := d.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Rollback(context.WithoutCancel(t.Context()))
	if _, err := holder.Exec(t.Context(), `SELECT pg_advisory_xact_lock(17)`); err != nil {
		t.Fatal(err)
	}
	outcome := make(chan error, 1)
	go func() {
		_, err := d.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{})
		outcome <- err
	}()
	d.eventually(`SELECT count(*) = 1 FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory') k`)
	var stopped *ops.InterruptedError
	if err := <-outcome; !errors.As(err, &stopped) || stopped.Done != 5000 {
		t.Fatalf("killed: err %v", err)
	}
	d.whole("sales", 12_000, 5000)
	d.exec(`DROP TRIGGER hold ON sqlq.q_sales`)
	op, err := d.ResumeOperation(t.Context(), stopped.Operation, nil)
	if err != nil || op.Done != 12_000 || op.Status != ops.OperationDone {
		t.Errorf("resumed: %+v, err %v", op, err)
	}
	d.whole("sales", 12_000, 12_000)
}

// A queue that is dropped in the middle of a replay keeps its failed messages, and does not hold up the others.
func TestReplayQueueDroppedMeanwhile(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("billing", "sales")
	d.fail("sales", "g1", 6000)
	d.fail("billing", "g1", 10)
	d.fail("sales", "g1", 10)
	n, err := d.Replay(t.Context(), ops.Filter{Group: "g1"}, ops.ReplayOptions{Progress: func(p ops.Progress) {
		if p.Done == 5000 {
			if _, err := d.DropQueue(t.Context(), "billing", true); err != nil {
				t.Error(err)
			}
		}
	}})
	var gone *ops.QueueGoneError
	if n != 6010 || !errors.As(err, &gone) || fmt.Sprint(gone.Queues) != "[billing]" {
		t.Errorf("replayed %d, err %v", n, err)
	}
	d.whole("sales", 6020, 6010)
}

// What is done to a message stays in its history, with how it had failed.
func TestHistory(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 3)
	d.exec(`CREATE TABLE before AS SELECT * FROM sqlq.error`)
	by := d.By(ops.Actor{OSUser: "ann", Host: "h7", Reason: "the card service is back"})
	one := ops.Filter{Names: []string{"1"}}
	for _, change := range []func() (int64, error){
		func() (int64, error) { return by.Archive(t.Context(), one, nil) },
		func() (int64, error) { return by.Unarchive(t.Context(), one, nil) },
		func() (int64, error) { return by.Replay(t.Context(), one, ops.ReplayOptions{}) },
		func() (int64, error) { return by.Delete(t.Context(), ops.Filter{Names: []string{"2"}}, nil) },
	} {
		if n, err := change(); n != 1 || err != nil {
			t.Fatalf("changed %d, err %v", n, err)
		}
	}
	got := d.text(`SELECT string_agg(concat_ws(' ', b.seq, h.what, h.operation), ', ' ORDER BY h.seq) FROM sqlq.history h JOIN before b
		ON b.id = h.message AND b.queue = h.queue AND b.attempts = h.attempts AND b.failed_at = h.failed_at AND b.host = h.host AND b.message = h.error`)
	if want := "1 archive 1, 1 unarchive 2, 1 replay 3, 2 delete 4"; got != want {
		t.Errorf("history %q, want %q", got, want)
	}
	operations, err := d.Operations(t.Context(), ops.OperationFilter{})
	if err != nil || len(operations) != 4 {
		t.Fatalf("operations %+v, err %v", operations, err)
	}
	for _, op := range operations {
		if op.Status != ops.OperationDone || op.Done != 1 || *op.Wanted != 1 || op.OSUser != "ann" || op.Host != "h7" || op.Reason != "the card service is back" || op.Role == "" {
			t.Errorf("operation %+v", op)
		}
	}
}

// A viewer changes nothing, and leaves no trace of having tried.
func TestViewerIsRefused(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 3)
	role := "ops_viewer_" + d.text(`SELECT current_database()`)
	d.exec(fmt.Sprintf(`CREATE ROLE %s`, role))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := d.pool.Exec(ctx, fmt.Sprintf(`DROP OWNED BY %[1]s; DROP ROLE %[1]s`, role)); err != nil {
			t.Error(err)
		}
	})
	d.exec(`SELECT sqlq.grant_role($1, 'viewer')`, role)
	config := d.pool.Config()
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SET ROLE `+role)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	viewer, all := ops.New(pool, "sqlq"), ops.Filter{All: true}
	for name, err := range map[string]error{
		"replay": second(viewer.Replay(t.Context(), all, ops.ReplayOptions{})), "archive": second(viewer.Archive(t.Context(), all, nil)),
		"delete": second(viewer.Delete(t.Context(), all, nil)),
	} {
		if err == nil || !strings.Contains(err.Error(), "permission denied for table operation") {
			t.Errorf("%s: err %v", name, err)
		}
	}
	if v, err := viewer.PreviewReplay(t.Context(), all, ops.ReplayOptions{}); err != nil || v.Messages.N != 3 {
		t.Errorf("a preview: %+v, err %v", v, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error`); n != 3 || d.number(`SELECT count(*) FROM sqlq.operation`) != 0 {
		t.Errorf("%d messages are left, want 3", n)
	}
	if _, err := viewer.Operations(t.Context(), ops.OperationFilter{}); err != nil {
		t.Errorf("operations: err %v", err)
	}
}

func second(_ int64, err error) error { return err }

func TestPreview(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 7)
	d.fail("gone", "g1", 2)
	v, err := d.PreviewReplay(t.Context(), ops.Filter{Group: "g1"}, ops.ReplayOptions{})
	if err != nil || v.Messages != (ops.Count{N: 7}) || len(v.Sample) != 5 || v.Sample[0].Number != 1 || fmt.Sprint(v.Gone) != "[gone]" {
		t.Errorf("replay: %+v, err %v", v, err)
	}
	v, err = d.PreviewDelete(t.Context(), ops.Filter{Names: []string{"1", "77"}})
	if err != nil || v.Messages.N != 1 || len(v.Sample) != 1 || v.Unnamed == nil || fmt.Sprint(v.Unnamed.Missing) != "[77]" {
		t.Errorf("delete: %+v, err %v", v, err)
	}
	if v, err := d.PreviewArchive(t.Context(), ops.Filter{All: true, Limit: 2}); err != nil || v.Messages.N != 2 || len(v.Sample) != 2 {
		t.Errorf("archive: %+v, err %v", v, err)
	}
	if v, err := d.PreviewUnarchive(t.Context(), ops.Filter{All: true}); err != nil || v.Messages != (ops.Count{}) || v.Sample != nil {
		t.Errorf("unarchive: %+v, err %v", v, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE status = 'failed'`); n != 9 || d.number(`SELECT count(*) FROM sqlq.operation`) != 0 {
		t.Errorf("a preview has changed something: %d are failed", n)
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("sales", "g1", 2500)
	d.fail("billing", "g2", 3)
	if n, err := d.Archive(t.Context(), ops.Filter{Group: "g1", Limit: 1200}, nil); n != 1200 || err != nil {
		t.Errorf("limited: archived %d, err %v", n, err)
	}
	if n, err := d.Archive(t.Context(), ops.Filter{Group: "g1"}, nil); n != 1300 || err != nil {
		t.Errorf("the rest: archived %d, err %v", n, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE status = 'archived' AND archived_at IS NOT NULL AND fingerprint = 'g1'`); n != 2500 {
		t.Errorf("%d are archived, want 2500", n)
	}
	n, err := d.Archive(t.Context(), ops.Filter{Names: []string{"1", "2501", "9999"}}, nil)
	var none *ops.NoFailedError
	if n != 1 || !errors.As(err, &none) || fmt.Sprint(none.Missing, none.Archived) != "[9999] [1]" {
		t.Errorf("by name: archived %d, err %v", n, err)
	}
	if n, err := d.Archive(t.Context(), ops.Filter{All: true}, nil); n != 2 || err != nil {
		t.Errorf("all: archived %d, err %v", n, err)
	}
}

// Where counting takes too long the number is an estimate, some messages are shown instead of the first, and a replay does
// not say how many it wants.
func TestPreviewThatTakesLong(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 10)
	d.exec(`CREATE OR REPLACE FUNCTION sqlq.header_value(headers json, name text) RETURNS text LANGUAGE sql VOLATILE
		AS $$ SELECT headers ->> name FROM pg_sleep(0.05) $$`)
	f := ops.Filter{Headers: map[string]string{"tenant": "north"}}
	v, err := d.PreviewReplay(t.Context(), f, ops.ReplayOptions{})
	if err != nil || v.Messages != (ops.Count{N: 10, Estimated: true}) || len(v.Sample) != 5 {
		t.Errorf("%+v, err %v", v, err)
	}
	n, err := d.Replay(t.Context(), f, ops.ReplayOptions{Progress: func(p ops.Progress) {
		if p.Wanted != nil {
			t.Errorf("it wants %d", *p.Wanted)
		}
	}})
	op, readErr := d.Operation(t.Context(), 1)
	if n != 10 || err != nil || readErr != nil || op.Wanted != nil || op.Done != 10 {
		t.Errorf("replayed %d, err %v; %+v, err %v", n, err, op, readErr)
	}
}

// Archived messages come back, and are deleted only where the filter says so.
func TestUnarchiveAndDelete(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 4)
	if n, err := d.Archive(t.Context(), ops.Filter{Names: []string{"1", "2", "3"}}, nil); n != 3 || err != nil {
		t.Fatalf("archived %d, err %v", n, err)
	}
	n, err := d.Unarchive(t.Context(), ops.Filter{Names: []string{"1", "4", "9"}}, nil)
	var none *ops.NoFailedError
	if n != 1 || !errors.As(err, &none) || fmt.Sprint(none.Missing, none.Failed) != "[9] [4]" {
		t.Errorf("unarchived %d, err %v", n, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE seq = 1 AND status = 'failed' AND archived_at IS NULL`); n != 1 {
		t.Error("it is not as it was")
	}
	if n, err := d.Delete(t.Context(), ops.Filter{Queue: "sales"}, nil); n != 2 || err != nil {
		t.Errorf("deleted %d, err %v", n, err)
	}
	if n, err := d.Delete(t.Context(), ops.Filter{Queue: "sales", Status: ops.StatusAny}, nil); n != 2 || err != nil {
		t.Errorf("deleted %d archived ones, err %v", n, err)
	}
	if _, err := d.Delete(t.Context(), ops.Filter{}, nil); !errors.Is(err, ops.ErrFilterEmpty) {
		t.Errorf("everything: err %v", err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error`); n != 0 {
		t.Errorf("%d are left", n)
	}
}
