package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sqlq/sqlq/sqlq"
)

// batching is a way to send a batch.
type batching func(ctx context.Context, batch []sqlq.Envelope) ([]sqlq.Receipt, error)

// waysToBatch are SendBatch and SendBatchTx in transactions of pgx and of database/sql, which are rolled back after an error.
func waysToBatch(t *testing.T, c *sqlq.Client, pool *pgxpool.Pool) map[string]batching {
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { _ = db.Close() })
	return map[string]batching{
		"alone": c.SendBatch,
		"tx": func(ctx context.Context, batch []sqlq.Envelope) (receipts []sqlq.Receipt, err error) {
			err = inTx(t, pool, func(tx pgx.Tx) (err error) {
				receipts, err = c.SendBatchTx(ctx, tx, batch)
				return err
			})
			return receipts, err
		},
		"database/sql": func(ctx context.Context, batch []sqlq.Envelope) (receipts []sqlq.Receipt, err error) {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				return nil, err
			}
			if receipts, err = c.SendBatchTx(ctx, sqlq.SQLTx(tx), batch); err != nil {
				return receipts, errors.Join(err, tx.Rollback())
			}
			return receipts, tx.Commit()
		},
	}
}

const allStored = `SELECT (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.q_a) + (SELECT count(*) FROM sqlq.q_b)`

// A batch has commands and events, each with its own options, and each arrives as if it had been sent alone; the receipts are in
// the order of the batch. Odd bytes and texts survive each driver.
func TestSendBatch(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['a', 'b']) q`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Ordinal1', 'a'), ('post.Ordinal2', 'a'), ('post.Ordinal2', 'b'), ('post.Odd', 'b')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "a"}})
	odd := []byte("\x00\xff\\\"{},' NULL\n")
	for name, send := range waysToBatch(t, c, pool) {
		id, again := sqlq.NewID(), sqlq.NewID()
		due := time.Now().Add(3 * time.Hour)
		var own sqlq.Receipt
		batch := []sqlq.Envelope{
			{Message: letter{}},
			{Message: letter{}, Options: []sqlq.SendOption{sqlq.To("b"), sqlq.WithID(id), sqlq.WithHeader("odd", `"\{},' NULL é`), sqlq.ExpiresIn(time.Hour)}},
			{Message: ordinal{2, 1}, Options: []sqlq.SendOption{sqlq.WithReceipt(&own)}},
			{Message: ordinal{1, 1}},
			{Message: ordinal{2, 2}, Options: []sqlq.SendOption{sqlq.WithCorrelationID("flow")}},
			{Message: ordinal{0, 1}},
			{Message: sqlq.Raw{Type: "post.Odd", Body: odd, ContentType: "application/x-odd"}, Publish: true},
			{Message: sqlq.Raw{Type: "post.Odd", Body: odd, ContentType: "application/x-odd"}, Options: []sqlq.SendOption{sqlq.To("a")}},
			{Message: letter{}, Options: []sqlq.SendOption{sqlq.Delay(time.Hour)}},
			{Message: letter{}, Options: []sqlq.SendOption{sqlq.At(due)}},
			{Message: ordinal{2, 3}, Options: []sqlq.SendOption{sqlq.Delay(time.Hour)}},
			{Message: letter{}, Options: []sqlq.SendOption{sqlq.WithID(again)}},
			{Message: letter{}, Options: []sqlq.SendOption{sqlq.WithID(again)}},
		}
		receipts, err := send(t.Context(), batch)
		if err != nil {
			t.Fatal(name, err)
		}
		got := ""
		for _, r := range receipts {
			got += fmt.Sprint(r.Queue, r.Copies, " ")
			if r.ID == (sqlq.ID{}) {
				t.Errorf("%s: no id", name)
			}
		}
		if want := "a1 b1 2 1 2 0 1 a1 a1 a1 2 a1 a1 "; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if receipts[1].ID != id || own != receipts[2] {
			t.Errorf("%s: %+v, %+v", name, receipts[1], own)
		}
		ids := make([]sqlq.ID, len(receipts))
		for i, r := range receipts {
			ids[i] = r.ID
		}
		rows, err := pool.Query(t.Context(), `
			SELECT format('%s %s %s %s %s', array_position($1::uuid[], id), q, type, headers::jsonb, encode(body, 'escape'))
			FROM (SELECT 'a' q, id, type, headers, body, expires_at, sent_at FROM sqlq.q_a UNION ALL SELECT 'b', id, type, headers, body, expires_at, sent_at FROM sqlq.q_b
				UNION ALL SELECT 'delayed ' || queue || (due_at > now() + '59 minutes') || (abs(extract(epoch FROM due_at - $2)) < 0.001), id, type, headers, body, expires_at, sent_at FROM sqlq.delayed) m
			WHERE id = ANY ($1) AND (expires_at IS NOT NULL AND extract(epoch FROM expires_at - sent_at) BETWEEN 3599 AND 3601) = (array_position($1::uuid[], id) = 2)
			ORDER BY array_position($1::uuid[], id), q`, ids, due)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			`1 a post.Letter  {"N":0}`,
			`2 b post.Letter {"odd": "\"\\{},' NULL é"} {"N":0}`,
			`3 a post.Ordinal2  {"N":1}`, `3 b post.Ordinal2  {"N":1}`,
			`4 a post.Ordinal1  {"N":1}`,
			`5 a post.Ordinal2 {"sqlq-correlation-id": "flow"} {"N":2}`, `5 b post.Ordinal2 {"sqlq-correlation-id": "flow"} {"N":2}`,
			`7 b post.Odd {"sqlq-content-type": "application/x-odd"} \000\377\\"{},' NULL` + "\n",
			`8 a post.Odd {"sqlq-content-type": "application/x-odd"} \000\377\\"{},' NULL` + "\n",
			`9 delayed atruefalse post.Letter  {"N":0}`,
			`10 delayed atruetrue post.Letter  {"N":0}`,
			`11 delayed atruefalse post.Ordinal2  {"N":3}`, `11 delayed btruefalse post.Ordinal2  {"N":3}`,
			`12 a post.Letter  {"N":0}`, `12 a post.Letter  {"N":0}`,
		}
		if fmt.Sprint(stored) != fmt.Sprint(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(stored, "\n"), strings.Join(want, "\n"))
		}
	}
}

// One envelope that cannot be sent refuses the whole batch, and the error says which it is, whoever refuses it: the library or the
// database, and however many messages there are beside it.
func TestSendBatchAllOrNone(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['a', 'b']) q`)
	c := open(t, pool, sqlq.Config{MaxBody: 1000, Routes: map[string]string{"post.Letter": "a"}})
	for name, send := range waysToBatch(t, c, pool) {
		for _, beside := range []int{0, 3, sqlq.CopyFrom + 100} {
			for _, tc := range []struct {
				e  sqlq.Envelope
				is error
			}{
				{sqlq.Envelope{}, nil},
				{sqlq.Envelope{Message: (*sqlq.Raw)(nil), Publish: true}, nil},
				{sqlq.Envelope{Message: hop{}}, sqlq.ErrNoRoute},
				{sqlq.Envelope{Message: letter{}, Publish: true}, sqlq.ErrNotEvent},
				{sqlq.Envelope{Message: ordinal{}, Options: []sqlq.SendOption{sqlq.To("a")}}, sqlq.ErrIsEvent},
				{sqlq.Envelope{Message: sqlq.Raw{}}, sqlq.ErrInvalidName},
				{sqlq.Envelope{Message: letter{}, Options: []sqlq.SendOption{sqlq.Delay(-1)}}, sqlq.ErrInvalidTime},
				{sqlq.Envelope{Message: sqlq.Raw{Type: "post.Letter", Body: make([]byte, 1001), ContentType: "a/b"}}, sqlq.ErrBodyTooLarge},
				{sqlq.Envelope{Message: letter{}, Options: []sqlq.SendOption{sqlq.To("nowhere")}}, sqlq.ErrNoQueue},
				{sqlq.Envelope{Message: letter{}, Options: []sqlq.SendOption{sqlq.To("nowhere"), sqlq.Delay(time.Hour)}}, sqlq.ErrNoQueue},
			} {
				batch := make([]sqlq.Envelope, beside, beside+2)
				for i := range batch {
					batch[i] = sqlq.Envelope{Message: letter{}}
					if i%3 == 1 {
						batch[i].Message = ordinal{1, 1}
					}
				}
				batch = append(batch, tc.e, sqlq.Envelope{Message: letter{}, Options: []sqlq.SendOption{sqlq.To("b")}})
				_, err := send(t.Context(), batch)
				var at *sqlq.BatchError
				if !errors.As(err, &at) || at.Index != beside || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), fmt.Sprintf("batch[%d]: ", beside)) {
					t.Errorf("%s, %+v beside %d: %v", name, tc.e, beside, err)
				}
			}
		}
	}
	if n := count(t, pool, allStored); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
}

// A batch of tens of thousands goes through, and one whose context ends on the way leaves nothing behind and breaks nothing.
func TestSendBatchLarge(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['a', 'b']) q`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Ordinal1', 'a'), ('post.Ordinal2', 'a'), ('post.Ordinal2', 'b')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "a"}})
	batch := make([]sqlq.Envelope, 30_000)
	copies := 0
	for i := range batch {
		switch e := &batch[i]; i % 5 {
		case 0, 1:
			e.Message = letter{}
			copies++
		case 2:
			e.Message, e.Options = letter{}, []sqlq.SendOption{sqlq.Delay(time.Hour), sqlq.To("b")}
			copies++
		default:
			e.Message = ordinal{i % 5 / 4, int64(i)}
			copies += i % 5 / 4
		}
	}
	for name, send := range waysToBatch(t, c, pool) {
		execSQL(t, pool, `TRUNCATE sqlq.q_a, sqlq.q_b, sqlq.delayed`)
		receipts, err := send(t.Context(), batch)
		if err != nil {
			t.Fatal(name, err)
		}
		total := 0
		for _, r := range receipts {
			total += r.Copies
		}
		if n := count(t, pool, allStored); n != copies || total != copies {
			t.Errorf("%s: %d are stored, the receipts say %d, want %d", name, n, total, copies)
		}
		if n := count(t, pool, `SELECT count(*) FROM (SELECT n <= lag(n) OVER (ORDER BY seq) AS back FROM (SELECT seq, (convert_from(body, 'UTF8')::json->>'N')::int n FROM sqlq.q_a WHERE type = 'post.Ordinal1') e) e WHERE back`); n != 0 {
			t.Errorf("%s: %d events stand before one that was before them in the batch", name, n)
		}
	}
	execSQL(t, pool, `TRUNCATE sqlq.q_a, sqlq.q_b, sqlq.delayed`)

	// The COPY stands before a table that somebody has locked.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `LOCK TABLE sqlq.q_b`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.SendBatch(ctx, append(batch[:0:0], append(batch, sqlq.Envelope{Message: letter{}, Options: []sqlq.SendOption{sqlq.To("b")}})...))
		ended <- err
	}()
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM pg_locks WHERE relation = 'sqlq.q_b'::regclass AND NOT granted`)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM pg_locks WHERE relation IN ('sqlq.q_a'::regclass, 'sqlq.q_b'::regclass) AND pid <> pg_backend_pid()`)
	if n := count(t, pool, allStored); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
	if _, err := c.SendBatch(t.Context(), batch[:10]); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
