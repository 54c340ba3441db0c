package ops_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func (d database) fill(queue string, n int) {
	d.t.Helper()
	d.exec(`INSERT INTO sqlq.q_`+queue+` (id, type, headers, body)
		SELECT sqlq.uuid_v7(), CASE WHEN i % 2 = 0 THEN 'T.Even' ELSE 'T.Odd' END, format('{"n":"%s"}', i)::json, convert_to('{"n":' || i || '}', 'UTF8')
		FROM generate_series(1, $1::int) i ORDER BY i`, n)
}

func TestMove(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "other")
	d.fill("sales", 2500)
	d.exec(`UPDATE sqlq.q_sales SET attempt = 3, expires_at = '2100-01-01Z' WHERE seq = 2`)
	tx, err := d.pool.Begin(t.Context()) // a receiver holds three
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `SELECT FROM sqlq.q_sales WHERE seq IN (4, 1000, 2500) FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	later := false
	moved, err := d.By(ops.Actor{OSUser: "ann", Reason: "split"}).Ready.Move(t.Context(), "sales", "other", ops.Filter{Type: "T.Even", Body: "$.n > 0"}, ops.ChangeOptions{
		Progress: func(ops.Progress) {
			if !later { // what arrives after it began stays
				d.exec(`SELECT sqlq.send('sales', 'T.Even', '{"n":9999}')`)
			}
			later = true
		}})
	if err != nil || moved != 1247 {
		t.Errorf("moved %d, err %v", moved, err)
	}
	for what, want := range map[string]int64{
		`SELECT count(*) FROM sqlq.q_other`:                       1247,
		`SELECT count(*) FROM sqlq.q_sales`:                       1254,
		`SELECT count(*) FROM sqlq.q_sales WHERE type = 'T.Even'`: 4,
		`SELECT count(*) FROM sqlq.q_other WHERE attempt = 3 AND expires_at = '2100-01-01Z' AND headers ->> 'n' = '2'`: 1,
		`SELECT count(*) FROM (SELECT seq, lag(convert_from(body, 'UTF8')::json ->> 'n') OVER (ORDER BY seq) AS l, convert_from(body, 'UTF8')::json ->> 'n' AS n
			FROM sqlq.q_other) o WHERE l::int >= n::int`: 0,
		`SELECT count(*) FROM sqlq.operation WHERE kind = 'move' AND status = 'done' AND done = 1247 AND queue = 'other' AND up_to = 2500
			AND os_user = 'ann' AND reason = 'split'`: 1,
	} {
		if n := d.number(what); n != want {
			t.Errorf("%s: %d, want %d", what, n, want)
		}
	}
}

// Two that move the same messages share them, one that is interrupted has moved whole batches, and one whose operation is
// cancelled ends.
func TestMoveInterrupted(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "other")
	d.fill("sales", 5000)
	ctx, cancel := context.WithCancel(t.Context())
	moved, err := d.Ready.Move(ctx, "sales", "other", ops.Filter{}, ops.ChangeOptions{Progress: func(ops.Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) || moved != 1000 || d.number(`SELECT count(*) FROM sqlq.q_other`) != 1000 {
		t.Errorf("interrupted: moved %d, err %v", moved, err)
	}
	moved, err = d.Ready.Move(t.Context(), "sales", "other", ops.Filter{}, ops.ChangeOptions{Progress: func(ops.Progress) {
		d.exec(`UPDATE sqlq.operation SET status = 'cancelled' WHERE status = 'running'`)
	}})
	if err == nil || !strings.Contains(err.Error(), "has cancelled operation 2") || moved != 1000 || d.number(`SELECT count(*) FROM sqlq.q_other`) != 2000 {
		t.Errorf("cancelled: moved %d, err %v", moved, err)
	}
	if got := d.text(`SELECT string_agg(status || ' ' || done || ' ' || after, ', ' ORDER BY id) FROM sqlq.operation`); got != "interrupted 1000 1000, cancelled 1000 2000" {
		t.Errorf("operations: %s", got)
	}
	var both [2]int64
	var wait sync.WaitGroup
	for i := range both {
		wait.Go(func() {
			n, err := d.Ready.Move(t.Context(), "sales", "other", ops.Filter{}, ops.ChangeOptions{})
			if err != nil {
				t.Error(err)
			}
			both[i] = n
		})
	}
	wait.Wait()
	if both[0]+both[1] > 3000 || d.number(`SELECT count(DISTINCT id) FROM sqlq.q_other`)+d.number(`SELECT count(*) FROM sqlq.q_sales`) != 5000 {
		t.Errorf("two moved %v", both)
	}
	if _, err := d.Ready.Move(t.Context(), "sales", "other", ops.Filter{}, ops.ChangeOptions{Rate: 1e6}); err != nil || d.number(`SELECT count(*) FROM sqlq.q_sales`) != 0 {
		t.Errorf("the rest: err %v", err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.q_other`); n != 5000 {
		t.Errorf("%d are there in the end", n)
	}
}

// An export that is imported is the same, in order, through batches and large bodies.
func TestExportImport(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "copy", "broken")
	d.fill("sales", 2500)
	d.exec(`UPDATE sqlq.q_sales SET body = convert_to(to_json(repeat('x', 5000000))::text, 'UTF8') WHERE seq IN (3, 4, 5, 1700)`)
	d.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) SELECT now() + interval '1 hour', gen_random_uuid(), 'delay', 'sales', 'T', '\x00' FROM generate_series(1, 1500)`)
	d.exec(`UPDATE sqlq.delayed SET body = convert_to(repeat('x', 5000000), 'UTF8') WHERE seq IN (1, 2, 3, 1500)`)
	var lines bytes.Buffer
	write := func(m ops.Message) error {
		line, err := ops.AppendLine(nil, m)
		lines.Write(line)
		return err
	}
	if err := d.Ready.Each(t.Context(), "sales", ops.Filter{}, ops.Looking{}, write); err != nil {
		t.Fatal(err)
	}
	if err := d.Delayed.Each(t.Context(), "sales", ops.Filter{}, ops.Looking{}, write); err != nil {
		t.Fatal(err)
	}
	done, err := d.Ready.Import(t.Context(), "copy", bytes.NewReader(lines.Bytes()), ops.ImportOptions{})
	if err != nil || done.Ready != 2500 || done.Delayed != 1500 || done.UpTo != 4000 || done.LeftOut != 0 {
		t.Errorf("imported %+v, err %v", done, err)
	}
	for what, want := range map[string]int64{
		`SELECT count(*) FROM sqlq.q_sales s JOIN sqlq.q_copy c USING (seq, id, sent_at, type, body) WHERE s.headers::text = c.headers::text AND c.expires_at IS NULL`: 2500,
		`SELECT count(*) FROM sqlq.delayed s JOIN sqlq.delayed c USING (id, due_at, sent_at, why, type, body) WHERE s.queue = 'sales' AND c.queue = 'copy'`:            1500,
		`SELECT done FROM sqlq.operation WHERE kind = 'import' AND status = 'done' AND queue = 'copy'`:                                                                 4000,
	} {
		if n := d.number(what); n != want {
			t.Errorf("%s: %d, want %d", what, n, want)
		}
	}

	// A damaged line leaves the batches before it, and Skip goes on behind them. Headers that only PostgreSQL does not take
	// are found too.
	good := `{"type":"T","body":{}}` + "\n"
	text := strings.Repeat(good, 1500) + `{"type":"T","headers":{"a":"\ud800"},"body":{}}` + "\n" + strings.Repeat(good, 10) + "{\n" + good
	var damaged *ops.LineError
	done, err = d.Ready.Import(t.Context(), "broken", strings.NewReader(text), ops.ImportOptions{})
	if !errors.As(err, &damaged) || done.UpTo != 1000 || done.Ready != 1000 || d.number(`SELECT count(*) FROM sqlq.q_broken`) != 1000 {
		t.Errorf("damaged: %+v, err %v", done, err)
	}
	done, err = d.Ready.Import(t.Context(), "broken", strings.NewReader(text), ops.ImportOptions{Skip: done.UpTo, Continue: true})
	if err != nil || done.Ready < 511 || done.LeftOut+done.Ready != 513 || d.number(`SELECT count(*) FROM sqlq.q_broken`) != 1000+done.Ready {
		t.Errorf("going on: %+v, err %v", done, err)
	}
	if last := done.Damaged[0]; last.Line != 1512 && last.Line != 1501 {
		t.Errorf("left out %v", done.Damaged)
	}
	// What nobody can read is not kept.
	long := `{"type":"T","body":"` + strings.Repeat("x", 27<<20) + `"}` + "\n" + good
	done, err = d.Ready.Import(t.Context(), "broken", strings.NewReader(long), ops.ImportOptions{Continue: true, DryRun: true})
	if err != nil || done.Ready != 1 || done.LeftOut != 1 || !strings.Contains(done.Damaged[0].Error(), "line 1: it has more than") {
		t.Errorf("a long line: %+v, err %v", done, err)
	}
}

func TestPeekFilters(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fill("sales", 2500)
	d.exec(`UPDATE sqlq.q_sales SET sent_at = now() - interval '2 hours', attempt = 2 WHERE seq <= 10`)
	d.exec(`UPDATE sqlq.q_sales SET body = 'no JSON' WHERE seq = 2400`)
	min := 1
	for _, c := range []struct {
		filter ops.Filter
		want   string
	}{
		{ops.Filter{Limit: 2}, "1 2"},
		{ops.Filter{Limit: 2, Order: ops.Newest}, "2500 2499"},
		{ops.Filter{Body: "$.n > 2498"}, "2499 2500"},
		{ops.Filter{Body: "$.n > 2496", Type: "T.Even", Order: ops.Newest}, "2500 2498"},
		{ops.Filter{Headers: map[string]string{"n": "1234"}}, "1234"},
		{ops.Filter{Names: []string{"7", "1200", "9999"}}, "7 1200"},
		{ops.Filter{Until: ops.Ago(1e12), Limit: 3}, "1 2 3"},
		{ops.Filter{Attempts: ops.Range{Min: &min}, Type: "T.Even"}, "2 4 6 8 10"},
		{ops.Filter{Type: "none"}, ""},
	} {
		messages, err := d.Ready.List(t.Context(), "sales", c.filter, ops.Looking{})
		if err != nil {
			t.Errorf("%+v: %v", c.filter, err)
		}
		var got []string
		for _, m := range messages {
			got = append(got, fmt.Sprint(m.Seq))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %v, want %s", c.filter, got, c.want)
		}
		n, err := d.Ready.Count(t.Context(), "sales", c.filter, ops.Looking{})
		if err != nil || n != (ops.Count{N: int64(len(got))}) {
			t.Errorf("%+v: counted %v, err %v", c.filter, n, err)
		}
	}
	id := d.text(`SELECT id::text FROM sqlq.q_sales WHERE seq = 2300`)
	if messages, err := d.Ready.List(t.Context(), "sales", ops.Filter{Names: []string{id}}, ops.Looking{}); err != nil || len(messages) != 1 || messages[0].Seq != 2300 {
		t.Errorf("by id: %v, err %v", messages, err)
	}
	var wrong *ops.FilterError
	if _, err := d.Ready.List(t.Context(), "sales", ops.Filter{Body: "$.n >"}, ops.Looking{}); !errors.As(err, &wrong) {
		t.Errorf("err %v", err)
	}
	if _, err := d.Ready.List(t.Context(), "sales", ops.Filter{Group: "g"}, ops.Looking{}); err == nil {
		t.Error("a message that waits has no group")
	}
}

// Names that need quoting, of schema and queues, reach every statement.
func TestOddQueueNames(t *testing.T) {
	t.Parallel()
	d := openOdd(t, `My "odd" schéma'\`)
	queue, other := "A.b-C_"+strings.Repeat("x", 54), "o.ther"
	d.create(queue, other)
	lines := `{"type":"T","body":{"n":1}}` + "\n" + `{"type":"T","body":{"n":2},"due_at":"2100-01-01T00:00:00Z"}`
	if done, err := d.Ready.Import(t.Context(), queue, strings.NewReader(lines), ops.ImportOptions{}); err != nil || done.Ready != 1 || done.Delayed != 1 {
		t.Errorf("import: %+v, err %v", done, err)
	}
	if n, err := d.Ready.Count(t.Context(), queue, ops.Filter{Body: "$.n == 1", Headers: map[string]string{}}, ops.Looking{}); err != nil || n.N != 1 {
		t.Errorf("count: %v, err %v", n, err)
	}
	if changed, err := d.Queues.Pause(t.Context(), queue); err != nil || !changed {
		t.Errorf("pause: %v", err)
	}
	q, err := d.Queues.Show(t.Context(), queue)
	if err != nil || q.In == nil && q.Ready.N != 1 || q.PausedAt == nil {
		t.Errorf("show: %+v, err %v", q, err)
	}
	if changed, err := d.Queues.Resume(t.Context(), queue); err != nil || !changed {
		t.Errorf("resume: %v", err)
	}
	if n, err := d.Ready.Move(t.Context(), queue, other, ops.Filter{}, ops.ChangeOptions{}); err != nil || n != 1 {
		t.Errorf("move: %d, err %v", n, err)
	}
	seen := 0
	see := func(ops.Message) error { seen++; return nil }
	if err := d.Ready.Each(t.Context(), other, ops.Filter{}, ops.Looking{}, see); err != nil || seen != 1 {
		t.Errorf("ready: %d, err %v", seen, err)
	}
	if err := d.Delayed.Each(t.Context(), queue, ops.Filter{}, ops.Looking{}, see); err != nil || seen != 2 {
		t.Errorf("delayed: %d, err %v", seen, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1e6)
	defer cancel()
	if err := d.Ready.Tail(ctx, other, ops.Filter{}, see); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("tail: %v", err)
	}
	if p, err := d.Ready.Purge(t.Context(), queue, ops.Filter{}, ops.PurgeOptions{Delayed: true}); err != nil || p.Delayed != 1 {
		t.Errorf("purge: %v, err %v", p, err)
	}
	if _, err := d.Queues.Drop(t.Context(), queue, false); err != nil {
		t.Errorf("drop: %v", err)
	}
}
