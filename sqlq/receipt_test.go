package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sqlq/sqlq/sqlq"
)

// A receipt has the id, the queue and the number of copies, in all ways of sending by itself and in transactions of both libraries,
// delayed messages included; and it is filled in before the call returns.
func TestReceipts(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['post', 'a', 'b', 'c']) q`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Ordinal1', 'a'), ('post.Ordinal3', 'a'), ('post.Ordinal3', 'b'), ('post.Ordinal3', 'c')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}})
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	inSQL := func(f func(tx sqlq.DBTX) error) error {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			return err
		}
		return errors.Join(f(sqlq.SQLTx(tx)), tx.Commit())
	}
	ways := map[string]struct {
		send, publish func(m sqlq.Message, options ...sqlq.SendOption) error
	}{
		"alone": {
			func(m sqlq.Message, o ...sqlq.SendOption) error { return c.Send(t.Context(), m, o...) },
			func(m sqlq.Message, o ...sqlq.SendOption) error { return c.Publish(t.Context(), m, o...) }},
		"tx": {
			func(m sqlq.Message, o ...sqlq.SendOption) error {
				return inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, m, o...) })
			},
			func(m sqlq.Message, o ...sqlq.SendOption) error {
				return inTx(t, pool, func(tx pgx.Tx) error { return c.PublishTx(t.Context(), tx, m, o...) })
			}},
		"database/sql": {
			func(m sqlq.Message, o ...sqlq.SendOption) error {
				return inSQL(func(tx sqlq.DBTX) error { return c.SendTx(t.Context(), tx, m, o...) })
			},
			func(m sqlq.Message, o ...sqlq.SendOption) error {
				return inSQL(func(tx sqlq.DBTX) error { return c.PublishTx(t.Context(), tx, m, o...) })
			}},
	}
	for name, way := range ways {
		for _, m := range []struct {
			message sqlq.Message
			publish bool
			queue   string
			copies  int
		}{{letter{}, false, "post", 1}, {ordinal{0, 1}, true, "", 0}, {ordinal{1, 1}, true, "", 1}, {ordinal{3, 1}, true, "", 3}} {
			for _, delay := range []time.Duration{0, time.Hour} {
				r := sqlq.Receipt{Queue: "stale", Copies: 99}
				id := sqlq.NewID()
				options := []sqlq.SendOption{sqlq.WithReceipt(&r), sqlq.WithID(id), sqlq.Delay(delay)}
				send := way.send
				if m.publish {
					send = way.publish
				}
				if err := send(m.message, options...); err != nil {
					t.Fatal(name, err)
				}
				if want := (sqlq.Receipt{ID: id, Queue: m.queue, Copies: m.copies}); r != want {
					t.Errorf("%s, %T, delay %v: %+v, want %+v", name, m.message, delay, r, want)
				}
				if n := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.delayed WHERE id = $1) + (SELECT count(*) FROM sqlq.q_post WHERE id = $1) + (SELECT count(*) FROM sqlq.q_a WHERE id = $1)
					+ (SELECT count(*) FROM sqlq.q_b WHERE id = $1) + (SELECT count(*) FROM sqlq.q_c WHERE id = $1)`, id); n != m.copies {
					t.Errorf("%s, %T, delay %v: %d are stored, want %d", name, m.message, delay, n, m.copies)
				}
			}
		}
	}
	if err := c.Send(t.Context(), letter{}, sqlq.WithReceipt(nil)); err != nil {
		t.Errorf("no receipt wanted: %v", err)
	}
	if err := c.SendMany(t.Context(), []sqlq.Message{letter{}, letter{}}, sqlq.WithReceipt(new(sqlq.Receipt))); err == nil {
		t.Error("SendMany took one receipt for two messages")
	}
}

// Events that share a transaction have each its own receipt.
func TestReceiptsOfSendsAtTheSameTime(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['a', 'b']) q`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Ordinal1', 'a'), ('post.Ordinal2', 'a'), ('post.Ordinal2', 'b')`)
	c := open(t, pool, sqlq.Config{})
	var wait sync.WaitGroup
	for g := range 60 {
		wait.Go(func() {
			for range 20 {
				var r sqlq.Receipt
				err := c.Publish(t.Context(), ordinal{g % 3, 1}, sqlq.WithReceipt(&r))
				if err != nil || r.Copies != g%3 || r.ID == (sqlq.ID{}) {
					t.Errorf("%+v, %v, want %d copies", r, err, g%3)
				}
			}
		})
	}
	wait.Wait()
}

// A receipt tells the id under which a message can be sent again when nobody knows whether it was stored, and it is not written to
// after the call has returned. What middleware drops has none, what it changes counts.
func TestReceiptOfWhatWasNotStored(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	moved := sqlq.NewID()
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "nowhere", "post.Hop": "post"}, SendMiddleware: []func(sqlq.SendFunc) sqlq.SendFunc{func(next sqlq.SendFunc) sqlq.SendFunc {
		return func(ctx context.Context, m *sqlq.Outgoing) error {
			switch m.Headers["do"] {
			case "drop":
				return nil
			case "move":
				m.ID = moved
			}
			return next(ctx, m)
		}
	}}})
	var r sqlq.Receipt
	if err := c.Send(t.Context(), letter{}, sqlq.WithReceipt(&r)); !errors.Is(err, sqlq.ErrNoQueue) || r.ID == (sqlq.ID{}) || r.Queue != "nowhere" || r.Copies != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := c.Send(t.Context(), hop{}, sqlq.WithReceipt(&r), sqlq.WithHeader("do", "drop")); err != nil || r != (sqlq.Receipt{}) {
		t.Errorf("dropped: %+v, %v", r, err)
	}
	if err := c.Send(t.Context(), hop{}, sqlq.WithReceipt(&r), sqlq.WithHeader("do", "move")); err != nil || r != (sqlq.Receipt{ID: moved, Queue: "post", Copies: 1}) {
		t.Errorf("moved: %+v, %v", r, err)
	}

	// Sends that wait behind a commit that a locked table holds up, and give up.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `LOCK TABLE sqlq.q_post`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			var r sqlq.Receipt
			if err := c.Send(ctx, hop{}, sqlq.WithReceipt(&r)); err == nil || r.ID == (sqlq.ID{}) || r.Copies != 0 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	eventually(t, "senders wait", func() (bool, string) { // gathered for the next commit, or, if all were quick, in the one that waits
		waiting := count(t, pool, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'sqlq.q_post'::regclass`)
		return waiting > 0, fmt.Sprintf("%d gathered", c.Gathered("post"))
	})
	cancel()
	wait.Wait()
}

// What a handler sends through its delivery is only gathered: its receipt has the id and the queue.
func TestReceiptInHandlers(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('next')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post", "post.Hop": "next"}})
	receipts := make(chan sqlq.Receipt, 10)
	e := sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
		var sent, published, past sqlq.Receipt
		err := errors.Join(d.Send(hop{}, sqlq.WithReceipt(&sent)), d.Publish(ordinal{1, 1}, sqlq.WithReceipt(&published)),
			c.Send(ctx, hop{}, sqlq.Immediately(), sqlq.WithReceipt(&past)))
		for _, r := range []sqlq.Receipt{sent, published, past} {
			receipts <- r
		}
		return err
	})}}
	if err := c.Prepare(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	run(t, c, e)
	if err := c.Send(t.Context(), letter{}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []sqlq.Receipt{{Queue: "next"}, {}, {Queue: "next", Copies: 1}} {
		got := <-receipts
		if got.ID == (sqlq.ID{}) {
			t.Errorf("%d has no id", i)
		}
		if want.Queue == "next" {
			eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.q_next WHERE id = $1`, got.ID)
		}
		if got.ID = (sqlq.ID{}); got != want {
			t.Errorf("%d: %+v, want %+v", i, got, want)
		}
	}
}
