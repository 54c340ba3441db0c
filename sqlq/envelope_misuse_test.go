package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// SendBatch is refused where Send is, SendBatchTx where SendTx is; an empty batch is none.
func TestSendBatchMisuse(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('next')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post", "post.Hop": "next"}})
	batch := []sqlq.Envelope{{Message: hop{}, Options: []sqlq.SendOption{sqlq.Immediately()}}, {Message: hop{}}}
	if _, err := c.SendBatchTx(t.Context(), pool, batch); !errors.Is(err, sqlq.ErrNoTransaction) {
		t.Errorf("in a pool: %v", err)
	}
	if _, err := c.SendBatchTx(t.Context(), nil, batch); !errors.Is(err, sqlq.ErrNoTransaction) {
		t.Errorf("in nothing: %v", err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.SendBatchTx(t.Context(), conn, batch); !errors.Is(err, sqlq.ErrNoTransaction) {
		t.Errorf("on a connection: %v", err)
	}
	conn.Release()
	for _, none := range [][]sqlq.Envelope{nil, {}} {
		if receipts, err := c.SendBatch(t.Context(), none); err != nil || len(receipts) != 0 {
			t.Errorf("of nothing: %v, %v", receipts, err)
		}
	}
	results := make(chan error, 3)
	e := sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, _ *sqlq.Delivery[letter]) error {
		_, err := c.SendBatch(ctx, batch)
		results <- err
		_, err = c.SendBatch(ctx, batch[:1])
		results <- err
		_, err = c.SendBatchTx(ctx, tx, batch)
		results <- err
		return nil
	})}}
	if err := c.Prepare(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	stop := run(t, c, e)
	if err := c.Send(t.Context(), letter{}); err != nil {
		t.Fatal(err)
	}
	var at *sqlq.BatchError
	if err := <-results; !errors.Is(err, sqlq.ErrInHandler) || !errors.As(err, &at) || at.Index != 1 {
		t.Errorf("in a handler: %v", err)
	}
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("in a handler, immediately and in its transaction: %v", err)
		}
	}
	eventuallyCount(t, pool, 3, `SELECT count(*) FROM sqlq.q_next`)
	stop()
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SendBatch(t.Context(), batch); !errors.Is(err, sqlq.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// Middleware sees each envelope of a batch; what it drops has no receipt, what it changes is checked, and its error names the
// envelope. The observer is told of each, with the size of the batch.
func TestSendBatchThroughMiddleware(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['a', 'b']) q`)
	told := map[string]int{}
	tell := func(_ context.Context, m sqlq.ObservedSend) {
		told[fmt.Sprintln(m.Type, m.Event, m.Batch, m.Err != nil)]++
	}
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "a"}, Observer: &sqlq.Observer{Sent: tell, Published: tell}, SendMiddleware: []func(sqlq.SendFunc) sqlq.SendFunc{func(next sqlq.SendFunc) sqlq.SendFunc {
		return func(ctx context.Context, m *sqlq.Outgoing) error {
			switch m.Headers["do"] {
			case "drop":
				return nil
			case "twice":
				return errors.Join(next(ctx, m), next(ctx, m))
			case "move":
				m.Queue = "b"
			case "misname":
				m.Queue = "no queue"
			case "lose":
				m.Queue = "nowhere"
			}
			return next(ctx, m)
		}
	}}})
	do := func(what string) sqlq.Envelope {
		return sqlq.Envelope{Message: letter{}, Options: []sqlq.SendOption{sqlq.WithHeader("do", what)}}
	}
	receipts, err := c.SendBatch(t.Context(), []sqlq.Envelope{do("drop"), do("twice"), do("move"), {Message: ordinal{1, 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if receipts[0] != (sqlq.Receipt{}) || receipts[1].Queue != "a" || receipts[2].Queue != "b" || receipts[2].Copies != 1 || receipts[3].Copies != 0 {
		t.Errorf("%+v", receipts)
	}
	if n := count(t, pool, allStored); n != 3 {
		t.Errorf("%d are stored", n)
	}
	if want := map[string]int{"post.Letter false 4 false\n": 3, "post.Ordinal1 true 4 false\n": 1}; !equalCounts(told, want) {
		t.Errorf("told %v", told)
	}
	clear(told)
	var at *sqlq.BatchError
	if _, err := c.SendBatch(t.Context(), []sqlq.Envelope{do(""), do("drop"), do("misname")}); !errors.Is(err, sqlq.ErrInvalidName) || !errors.As(err, &at) || at.Index != 2 {
		t.Errorf("misnamed: %v", err)
	}
	if _, err := c.SendBatch(t.Context(), []sqlq.Envelope{do("drop"), do("twice"), do("lose")}); !errors.Is(err, sqlq.ErrNoQueue) || !errors.As(err, &at) || at.Index != 2 {
		t.Errorf("lost: %v", err)
	}
	if want := map[string]int{"post.Letter false 3 true\n": 4}; !equalCounts(told, want) {
		t.Errorf("told %v", told)
	}
	if n := count(t, pool, allStored); n != 3 {
		t.Errorf("%d are stored", n)
	}
}
