package ops_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// delay puts n delayed messages of a queue among the delayed, a second apart, the first due at a time.
func (d database) delay(queue string, n int, due string) {
	d.t.Helper()
	d.exec(`INSERT INTO sqlq.delayed (due_at, id, sent_at, attempt, why, queue, type, headers, body, error)
		SELECT $3::text::timestamptz + i * interval '1 second', gen_random_uuid(), '2026-01-01T10:00:00Z', i % 3, CASE WHEN i % 3 = 0 THEN 'delay' ELSE 'retry' END, $1,
			CASE WHEN i % 2 = 0 THEN 'sales.Remind' ELSE 'sales.Charge' END, '{"tenant":"north"}', convert_to(format('{"n":%s}', i), 'UTF8'),
			CASE WHEN i % 3 > 0 THEN 'card refused ' || i END
		FROM generate_series(0, $2 - 1) i`, queue, n, due)
}

const later = "2100-01-01T00:00:00Z"

func TestListDelayed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.delay("sales", 4, later)
	d.delay("billing", 3, "2101-01-01")
	id := d.text(`SELECT id::text FROM sqlq.delayed WHERE seq = 2`)
	at := func(text string) ops.Moment {
		m, err := ops.ParseMoment(text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one := 1
	for _, c := range []struct {
		filter ops.Filter
		want   string
	}{
		{ops.Filter{}, "1 2 3 4 5 6 7"},
		{ops.Filter{Order: ops.Newest}, "7 6 5 4 3 2 1"},
		{ops.Filter{Limit: 2}, "1 2"},
		{ops.Filter{Limit: 2, Order: ops.Newest}, "7 6"},
		{ops.Filter{Queue: "billing"}, "5 6 7"},
		{ops.Filter{Type: "sales.Charge"}, "2 4 6"},
		{ops.Filter{Names: []string{"7", id}}, "2 7"},
		{ops.Filter{Error: "refused 1"}, "2 6"},
		{ops.Filter{Error: "/refused [12]$/"}, "2 3 6 7"},
		{ops.Filter{Body: "$.n == 3"}, "4"},
		{ops.Filter{Headers: map[string]string{"tenant": "south"}}, ""},
		{ops.Filter{Attempts: ops.Range{Max: &one}, Queue: "sales"}, "1 2 4"},
		{ops.Filter{Since: at("2100-01-01T00:00:01Z"), Until: at("2100-01-01T00:00:03Z")}, "2 3"},
		{ops.Filter{Until: at("+1h")}, ""},
	} {
		list, err := d.Delayed.List(t.Context(), c.filter)
		if got := delayedNumbers(list); err != nil || got != c.want {
			t.Errorf("%+v: got %s, err %v, want %s", c.filter, got, err, c.want)
		}
	}
	var none *ops.NoQueueError
	if _, err := d.Delayed.List(t.Context(), ops.Filter{Queue: "sale"}); !errors.As(err, &none) || fmt.Sprint(none.Near) != "[sales]" {
		t.Errorf("a queue that is none: err %v", err)
	}
	var wrong *ops.FilterError
	if _, err := d.Delayed.List(t.Context(), ops.Filter{Error: "/(/"}); !errors.As(err, &wrong) {
		t.Errorf("a pattern that is none: err %v", err)
	}
	if _, err := d.Delayed.List(t.Context(), ops.Filter{Group: "g1"}); err == nil {
		t.Error("delayed messages have a group")
	}
}

func delayedNumbers(list []ops.DelayedMessage) string {
	var got []string
	for _, m := range list {
		got = append(got, fmt.Sprint(m.Number))
	}
	return strings.Join(got, " ")
}

// What a chunk does not hold is in the next one, in either direction, also where many are due at one time.
func TestListDelayedChunks(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body)
		SELECT timestamptz '2100-01-01' + (i / 3000) * interval '1 second', gen_random_uuid(), 'delay', 'sales', CASE WHEN i % 4000 = 0 THEN 'rare' ELSE 'T' END, '{}'
		FROM generate_series(1, 20000) i`)
	for order, want := range map[ops.Order]string{ops.Oldest: "4000 8000 12000 16000 20000", ops.Newest: "20000 16000 12000 8000 4000"} {
		if list, err := d.Delayed.List(t.Context(), ops.Filter{Type: "rare", Order: order}); err != nil || delayedNumbers(list) != want {
			t.Errorf("%s: %s, err %v", order, delayedNumbers(list), err)
		}
		if list, err := d.Delayed.List(t.Context(), ops.Filter{Type: "rare", Order: order, Limit: 2}); err != nil || !strings.HasPrefix(want, delayedNumbers(list)+" ") || len(list) != 2 {
			t.Errorf("%s, two: %s, err %v", order, delayedNumbers(list), err)
		}
		list, err := d.Delayed.List(t.Context(), ops.Filter{Order: order, Limit: 12_345})
		seen := map[int64]bool{}
		for _, m := range list {
			seen[m.Number] = true
		}
		if err != nil || len(seen) != 12_345 {
			t.Errorf("%s: %d different messages, err %v", order, len(seen), err)
		}
	}
	if n, more, first, err := d.Delayed.Count(t.Context(), ops.Filter{All: true}, 3); n != ops.CountLimit || !more || delayedNumbers(first) != "1 2 3" || err != nil {
		t.Errorf("counted %d, more %v, first %s, err %v", n, more, delayedNumbers(first), err)
	}
}

func TestShowDelayed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.delay("sales", 3, later)
	id := d.text(`SELECT id::text FROM sqlq.delayed WHERE seq = 3`)
	for _, name := range []string{"3", id} {
		m, err := d.Delayed.Show(t.Context(), name)
		if err != nil || m.Number != 3 || m.ID != id || m.Why != ops.WhyRetry || m.Error != "card refused 2" || m.Attempts != 2 || string(m.Body) != `{"n":2}` ||
			string(m.Headers) != `{"tenant":"north"}` || m.DueIn < time.Hour || m.DueAt.UTC().Format(time.RFC3339) != "2100-01-01T00:00:02Z" {
			t.Errorf("%s: %+v, err %v", name, m, err)
		}
	}
	var none *ops.NoDelayedError
	if _, err := d.Delayed.Show(t.Context(), "4"); !errors.As(err, &none) {
		t.Errorf("one that is not there: err %v", err)
	}
	d.exec(`UPDATE sqlq.delayed SET id = $1 WHERE seq = 1`, id)
	if _, err := d.Delayed.Show(t.Context(), id); err == nil || !strings.Contains(err.Error(), "1 (sales), 3 (sales)") {
		t.Errorf("an id of two: err %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.delay("sales", 2500, later)
	d.delay("billing", 3, "2099-01-01")
	by := d.By(ops.Actor{OSUser: "jo", Host: "h", Reason: "why not"})
	for _, f := range []ops.Filter{{}, {Limit: 1}} {
		if _, err := d.Delayed.Cancel(t.Context(), f, ops.ChangeOptions{}); !errors.Is(err, ops.ErrDelayedFilterEmpty) {
			t.Errorf("%+v: err %v", f, err)
		}
	}
	for _, c := range []struct {
		filter ops.Filter
		n      int64
		left   string // first, last and count
	}{
		{ops.Filter{Limit: 2, All: true}, 2, "1 2503 2501"}, // billing is due first
		{ops.Filter{Limit: 1, Order: ops.Newest, All: true}, 1, "1 2503 2500"},
		{ops.Filter{Queue: "sales", Type: "sales.Charge"}, 1249, "1 2503 1251"},
		{ops.Filter{Queue: "sales", Limit: 1100}, 1100, "2201 2503 151"},
		{ops.Filter{All: true}, 151, ""},
		{ops.Filter{All: true}, 0, ""},
	} {
		n, err := by.Delayed.Cancel(t.Context(), c.filter, ops.ChangeOptions{})
		left := d.text(`SELECT coalesce((SELECT min(seq) || ' ' || max(seq) || ' ' || count(*) FROM sqlq.delayed HAVING count(*) > 0), '')`)
		if err != nil || n != c.n || left != c.left {
			t.Errorf("%+v: cancelled %d, left %q, err %v; want %d, %q", c.filter, n, left, err, c.n, c.left)
		}
	}
	if got := d.text(`SELECT string_agg(concat_ws(' ', kind, status, done, os_user, reason), ', ' ORDER BY id) FROM sqlq.operation WHERE done > 0`); got !=
		"cancel done 2 jo why not, cancel done 1 jo why not, cancel done 1249 jo why not, cancel done 1100 jo why not, cancel done 151 jo why not" {
		t.Errorf("operations: %s", got)
	}
	if n := d.number(`SELECT count(DISTINCT message) FROM sqlq.history WHERE what = 'cancel' AND operation IS NOT NULL`); n != 2503 {
		t.Errorf("%d are in the history, want 2503", n)
	}
}

func TestCancelNames(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.delay("sales", 3, later)
	n, err := d.Delayed.Cancel(t.Context(), ops.Filter{Names: []string{"2", "9", "0198c0de-0000-7000-8000-000000000001"}}, ops.ChangeOptions{})
	var none *ops.NoDelayedError
	if n != 1 || !errors.As(err, &none) || fmt.Sprint(none.Missing) != "[9 0198c0de-0000-7000-8000-000000000001]" {
		t.Errorf("cancelled %d, err %v", n, err)
	}
}

// One that is interrupted, or whose operation somebody cancels, has done whole batches, and what comes later is left alone.
func TestCancelInterrupted(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.delay("sales", 3500, later)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := d.Delayed.Cancel(ctx, ops.Filter{Queue: "sales"}, ops.ChangeOptions{Progress: func(ops.Progress) { cancel() }})
	if n != 1000 || !errors.Is(err, context.Canceled) || d.number(`SELECT count(*) FROM sqlq.delayed`) != 2500 {
		t.Errorf("interrupted: cancelled %d, err %v", n, err)
	}
	n, err = d.Delayed.Cancel(t.Context(), ops.Filter{Queue: "sales"}, ops.ChangeOptions{Progress: func(ops.Progress) {
		d.exec(`UPDATE sqlq.operation SET status = 'cancelled' WHERE status = 'running'`)
	}})
	if n != 1000 || err == nil || d.number(`SELECT count(*) FROM sqlq.delayed`) != 1500 {
		t.Errorf("cancelled by another: cancelled %d, err %v", n, err)
	}
	n, err = d.Delayed.Cancel(t.Context(), ops.Filter{Queue: "sales"}, ops.ChangeOptions{Progress: func(ops.Progress) { d.delay("sales", 1, "2102-01-01") }})
	if n != 1500 || err != nil || d.number(`SELECT count(*) FROM sqlq.delayed`) != 2 {
		t.Errorf("again: cancelled %d, err %v", n, err)
	}
	if got := d.text(`SELECT string_agg(status || ' ' || done, ', ' ORDER BY id) FROM sqlq.operation`); got != "interrupted 1000, cancelled 1000, done 1500" {
		t.Errorf("operations: %s", got)
	}
}

// Each message is moved once, whichever way, and lands where it should: never before now.
func TestReschedule(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	at := time.Date(2100, 1, 1, 0, 20, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		filter ops.Filter
		to     ops.Due
		n      int64
		want   string // what holds for every message that was moved
		moved  string // which those are
	}{
		{"later", ops.Filter{All: true}, ops.Due{By: 5 * time.Minute}, 2500, `d.due_at = b.due_at + interval '5 minutes'`, `true`},
		{"a little later", ops.Filter{All: true}, ops.Due{By: time.Microsecond}, 2500, `d.due_at = b.due_at + interval '1 microsecond'`, `true`},
		{"earlier", ops.Filter{All: true}, ops.Due{By: -5 * time.Minute}, 2500, `d.due_at = b.due_at - interval '5 minutes'`, `true`},
		{"earlier than now", ops.Filter{All: true}, ops.Due{By: -100 * 365 * 24 * time.Hour}, 2500, `d.due_at BETWEEN now() - interval '1 minute' AND now()`, `true`},
		{"in the middle of them", ops.Filter{All: true}, ops.Due{At: at}, 2499, `d.due_at = '2100-01-01T00:20:00Z'`, `true`}, // one is due then anyway
		{"in the past", ops.Filter{All: true}, ops.Due{At: at.AddDate(-90, 0, 0)}, 2500, `d.due_at BETWEEN now() - interval '1 minute' AND now()`, `true`},
		{"in an hour", ops.Filter{All: true}, ops.Due{In: time.Hour}, 2500, `d.due_at BETWEEN now() + interval '59 minutes' AND now() + interval '1 hour'`, `true`},
		{"now", ops.Filter{All: true}, ops.Due{}, 2500, `d.due_at BETWEEN now() - interval '1 minute' AND now()`, `true`},
		{"the first, later", ops.Filter{All: true, Limit: 1500}, ops.Due{By: time.Minute}, 1500, `d.due_at = b.due_at + interval '1 minute'`, `b.seq <= 1500`},
		{"the last, later", ops.Filter{All: true, Limit: 1500, Order: ops.Newest}, ops.Due{By: time.Minute}, 1500, `d.due_at = b.due_at + interval '1 minute'`, `b.seq > 1000`},
		{"the last, earlier", ops.Filter{All: true, Limit: 1500, Order: ops.Newest}, ops.Due{By: -time.Minute}, 1500, `d.due_at = b.due_at - interval '1 minute'`, `b.seq > 1000`},
		{"some", ops.Filter{Type: "sales.Charge"}, ops.Due{By: time.Hour}, 1250, `d.due_at = b.due_at + interval '1 hour'`, `b.type = 'sales.Charge'`},
	} {
		d.exec(`TRUNCATE sqlq.delayed RESTART IDENTITY`)
		d.delay("sales", 2500, later)
		d.exec(`DROP TABLE IF EXISTS before`)
		d.exec(`CREATE TABLE before AS SELECT * FROM sqlq.delayed`)
		n, err := d.Delayed.Reschedule(t.Context(), c.filter, c.to, ops.ChangeOptions{})
		if err != nil || n != c.n {
			t.Errorf("%s: rescheduled %d, err %v, want %d", c.name, n, err, c.n)
		}
		right := d.number(`SELECT count(*) FROM sqlq.delayed d JOIN before b USING (seq, id, type, body)
			WHERE CASE WHEN ` + c.moved + ` THEN ` + c.want + ` ELSE d.due_at = b.due_at END`)
		if right != 2500 {
			t.Errorf("%s: %d are due when they should be, want 2500", c.name, right)
		}
	}
	if _, err := d.Delayed.Reschedule(t.Context(), ops.Filter{All: true}, ops.Due{In: time.Hour, By: time.Hour}, ops.ChangeOptions{}); err == nil {
		t.Error("two due times at once are taken")
	}
	if _, err := d.Delayed.Reschedule(t.Context(), ops.Filter{All: true}, ops.Due{In: -time.Hour}, ops.ChangeOptions{}); err == nil {
		t.Error("a delay into the past is taken")
	}
}

// A shift that is interrupted is resumed, and then each message has been shifted once, also those that share a time, and those
// that came to be delayed meanwhile have not.
func TestRescheduleInterrupted(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{time.Second, -time.Second} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			d := open(t)
			d.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body)
				SELECT timestamptz '2100-01-01' + (i / 700) * interval '1 second', gen_random_uuid(), 'delay', 'sales', 'T', '{}' FROM generate_series(1, 3000) i`)
			d.exec(`CREATE TABLE before AS SELECT * FROM sqlq.delayed`)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n, err := d.Delayed.Reschedule(ctx, ops.Filter{Queue: "sales", Limit: 2500}, ops.Due{By: by}, ops.ChangeOptions{Progress: func(ops.Progress) { cancel() }})
			var stopped *ops.InterruptedError
			if n != 1000 || !errors.As(err, &stopped) || stopped.Done != 1000 || !errors.Is(err, context.Canceled) {
				t.Fatalf("interrupted: rescheduled %d, err %v", n, err)
			}
			d.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body)
				SELECT timestamptz '2100-01-01' + (i / 7) * interval '1 second', gen_random_uuid(), 'delay', 'sales', 'T', '{}' FROM generate_series(1, 30) i`)
			op, err := d.Operations.Resume(t.Context(), stopped.Operation, nil)
			if err != nil || op.Status != ops.OperationDone || op.Done != 2500 {
				t.Errorf("the rest: %+v, err %v", op, err)
			}
			if n := d.number(`SELECT count(*) FROM sqlq.delayed d JOIN before b USING (seq, id)
				WHERE d.due_at = b.due_at + CASE WHEN seq <= 2500 THEN $1::bigint * interval '1 second' ELSE '0' END`, int64(by/time.Second)); n != 3000 {
				t.Errorf("%d are as they should be, want 3000", n)
			}
		})
	}
}

// While the mover runs, no message is lost or doubled: each is delayed, in its queue, or cancelled.
func TestDelayedBesideTheMover(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	const total = 20_000
	d.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body)
		SELECT now() - interval '1 minute' + (i % 120) * interval '1 second', gen_random_uuid(), 'delay', 'sales', CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END, '{}'
		FROM generate_series(1, $1) i`, total)
	d.exec(`CREATE TABLE before AS SELECT * FROM sqlq.delayed`)
	ctx := context.WithoutCancel(t.Context())
	var group sync.WaitGroup
	var cancelled int64
	work := func(f func() error) {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := f(); err != nil {
				t.Error(err)
			}
		}()
	}
	for range 2 {
		work(func() error {
			for range 60 {
				if _, err := d.pool.Exec(ctx, `SELECT sqlq.move_due('-infinity', 100)`); err != nil {
					return err
				}
			}
			return nil
		})
	}
	work(func() (err error) {
		cancelled, err = d.Delayed.Cancel(ctx, ops.Filter{Type: "even", Limit: 5000}, ops.ChangeOptions{})
		return err
	})
	for _, to := range []ops.Due{{}, {By: -20 * time.Second}, {By: time.Hour}} {
		work(func() error {
			_, err := d.Delayed.Reschedule(ctx, ops.Filter{Type: "odd"}, to, ops.ChangeOptions{})
			return err
		})
	}
	group.Wait()
	if n := d.number(`SELECT count(DISTINCT message) FROM sqlq.history WHERE what = 'cancel'`); n != cancelled || cancelled == 0 {
		t.Errorf("%d in the history, %d cancelled", n, cancelled)
	}
	everywhere := `SELECT id, type FROM sqlq.delayed UNION ALL SELECT id, type FROM sqlq.q_sales UNION ALL SELECT message, 'even' FROM sqlq.history WHERE what = 'cancel'`
	if n := d.number(`SELECT count(*) FROM (` + everywhere + `) e`); n != total {
		t.Errorf("%d messages in all, want %d", n, total)
	}
	if n := d.number(`SELECT count(*) FROM before b JOIN (` + everywhere + `) e USING (id, type)`); n != total {
		t.Errorf("%d of the messages are somewhere, want %d", n, total)
	}
}

// Who moves messages is told when one is due soon, and not otherwise.
func TestRescheduleWakesTheMover(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.delay("sales", 1, later)
	conn, err := pgx.ConnectConfig(t.Context(), d.pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, channel := range []string{"the_end", "sqlq_" + d.text(`SELECT 'sqlq.delayed'::regclass::oid::text`)} {
		if _, err := conn.Exec(t.Context(), `LISTEN `+channel); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		to   ops.Due
		told bool
	}{{ops.Due{By: time.Hour}, false}, {ops.Due{In: time.Hour}, false}, {ops.Due{In: time.Second}, true}, {ops.Due{In: time.Hour}, false}, {ops.Due{}, true}} {
		if n, err := d.Delayed.Reschedule(t.Context(), ops.Filter{All: true}, c.to, ops.ChangeOptions{}); n != 1 || err != nil {
			t.Fatalf("%+v: rescheduled %d, err %v", c.to, n, err)
		}
		d.exec(`NOTIFY the_end`)
		told := false
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			n, err := conn.WaitForNotification(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if n.Channel == "the_end" {
				break
			}
			told = true
		}
		if told != c.told {
			t.Errorf("%+v: told %v, want %v", c.to, told, c.told)
		}
	}
}
