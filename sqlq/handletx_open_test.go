package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// What a handler leaves open on the receive connection is closed, or fails its message and no other.
func TestHandleTxResultsLeftOpen(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		leave func(ctx context.Context, tx pgx.Tx) error
		fails bool
	}{
		"batch": {func(ctx context.Context, tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue(`SELECT 1`)
			b.Queue(`SELECT generate_series(1, 1000)`)
			tx.SendBatch(ctx, b)
			return nil
		}, false},
		"rows of a batch": {func(ctx context.Context, tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue(`SELECT generate_series(1, 1000)`)
			b.Queue(`SELECT 1`)
			rows, err := tx.SendBatch(ctx, b).Query()
			rows.Next()
			return err
		}, false},
		"row of a batch": {func(ctx context.Context, tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue(`SELECT 1`)
			tx.SendBatch(ctx, b).QueryRow()
			return nil
		}, false},
		"batch of a nested transaction": {func(ctx context.Context, tx pgx.Tx) error {
			nested, err := tx.Begin(ctx)
			if err == nil {
				b := &pgx.Batch{}
				b.Queue(`SELECT 1`)
				nested.SendBatch(ctx, b)
			}
			return err
		}, false},
		"rows of the connection": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Conn().Query(ctx, `SELECT generate_series(1, 1000)`)
			return err
		}, true},
		"pipeline of the connection": {func(ctx context.Context, tx pgx.Tx) error {
			tx.Conn().PgConn().StartPipeline(ctx)
			return nil
		}, true},
		"batch of the connection, and an error": {func(ctx context.Context, tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue(`SELECT 1`)
			tx.Conn().SendBatch(ctx, b)
			return errors.New("and fails")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
			entries := numbered(20)
			entries[7].Fail = "leave"
			send(t, c, entries...)
			var calls, neighbours atomic.Int32
			stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
				sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
					if err := book(ctx, tx, d); err != nil {
						return err
					}
					if d.Message.Fail != "" {
						calls.Add(1)
						return tc.leave(ctx, tx)
					}
					neighbours.Add(1)
					return nil
				})}})
			eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
			stop()
			failed, want := count(`SELECT count(*) FROM sqlq.error WHERE message LIKE $1`, sqlq.ErrLeftOpen.Error()+"%"), 0
			if tc.fails {
				want = 1
			}
			if all := count(`SELECT count(*) FROM sqlq.error`); failed != want || all != want {
				t.Errorf("%d messages failed for what they left open, %d in all; want %d", failed, all, want)
			}
			if rows := count(`SELECT count(*) FROM ledger`); rows != 20-want || count(`SELECT count(DISTINCT n) FROM ledger WHERE n <> 7`) != 19 {
				t.Errorf("%d rows, want %d", rows, 20-want)
			}
			if calls.Load() > 2 || neighbours.Load() > 2*19 {
				t.Errorf("the handler ran %d times, its 19 neighbours %d times", calls.Load(), neighbours.Load())
			}
		})
	}
}

// A goroutine that a handler leaves behind reaches no later message's work, whichever way it took the transaction along.
func TestHandleTxIsOverWithItsHandler(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]func(ctx context.Context, tx pgx.Tx) func() error{
		"tx": func(ctx context.Context, tx pgx.Tx) func() error {
			return func() error { _, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES (-1)`); return err }
		},
		"query": func(ctx context.Context, tx pgx.Tx) func() error {
			return func() error {
				return tx.QueryRow(ctx, `INSERT INTO public.ledger VALUES (-1) RETURNING n`).Scan(new(int))
			}
		},
		"batch": func(ctx context.Context, tx pgx.Tx) func() error {
			return func() error {
				b := &pgx.Batch{}
				b.Queue(`INSERT INTO public.ledger VALUES (-1)`)
				return tx.SendBatch(ctx, b).Close()
			}
		},
		"copy": func(ctx context.Context, tx pgx.Tx) func() error {
			return func() error {
				_, err := tx.CopyFrom(ctx, pgx.Identifier{"public", "ledger"}, []string{"n"}, pgx.CopyFromRows([][]any{{-1}}))
				return err
			}
		},
		"nested": func(ctx context.Context, tx pgx.Tx) func() error {
			nested, err := tx.Begin(ctx)
			return func() error {
				if err != nil {
					return err
				}
				_, err := nested.Exec(ctx, `INSERT INTO public.ledger VALUES (-1)`)
				return err
			}
		},
		"nested, committed": func(ctx context.Context, tx pgx.Tx) func() error {
			nested, err := tx.Begin(ctx)
			err = errors.Join(err, nested.Commit(ctx))
			return func() error {
				_, err2 := nested.Exec(ctx, `INSERT INTO public.ledger VALUES (-1)`)
				return errors.Join(err, err2)
			}
		},
		"connection": func(ctx context.Context, tx pgx.Tx) func() error {
			conn := tx.Conn()
			return func() error {
				_, err := conn.Exec(ctx, `INSERT INTO public.ledger VALUES (-1)`)
				return err
			}
		},
	} {
		for _, fails := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, handler fails %t", name, fails), func(t *testing.T) {
				t.Parallel()
				c, _, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
				send(t, c, numbered(20)...)
				var mu sync.Mutex
				var late func() error
				stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
					sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
						if err := book(ctx, tx, d); err != nil {
							return err
						}
						mu.Lock()
						defer mu.Unlock()
						if d.Message.N == 3 {
							if late == nil {
								late = way(ctx, tx)
							}
							if fails {
								return errors.New("fails")
							}
							return nil
						}
						if late != nil && d.Message.N > 3 && late() == nil {
							t.Error("what a handler left behind still reaches the transaction")
						}
						return nil
					})}})
				eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
				stop()
				if n := count(`SELECT count(*) FROM ledger WHERE n < 0`); n != 0 {
					t.Errorf("%d rows of a handler that had ended were committed", n)
				}
				want := 0
				if fails {
					want = 1
				}
				if n := count(`SELECT count(*) FROM sqlq.error`); n != want {
					t.Errorf("%d failed, want %d", n, want)
				}
			})
		}
	}
}

// A name that one handler prepares is free for the next.
func TestHandleTxPreparedStatementsEndWithTheirHandler(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
	send(t, c, numbered(10)...)
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if _, err := tx.Prepare(ctx, "insert", fmt.Sprintf(`INSERT INTO public.ledger VALUES (%d)`, d.Message.N)); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "insert")
			return err
		})}})
	eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	if rows, failed := count(`SELECT count(DISTINCT n) FROM ledger`), count(`SELECT count(*) FROM sqlq.error`); rows != 10 || failed != 0 {
		t.Errorf("%d rows, %d failed; want 10, 0", rows, failed)
	}
}

// A statement that a handler's goroutine has under way does not hold the receiver for ever, nor does the source of a COPY that
// uses the transaction that it copies in.
func TestHandleTxDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
	entries := numbered(10)
	entries[4].Fail, entries[6].Fail = "goroutine", "copy"
	send(t, c, entries...)
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			switch d.Message.Fail {
			case "goroutine":
				go func() { _, _ = tx.Exec(ctx, `SELECT pg_sleep(3600)`) }()
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`)
				return nil
			case "copy":
				_, err := tx.CopyFrom(ctx, pgx.Identifier{"public", "ledger"}, []string{"n"}, pgx.CopyFromFunc(func() ([]any, error) {
					_, err := tx.Exec(ctx, `SELECT 1`)
					return nil, err
				}))
				return err
			}
			return book(ctx, tx, d)
		})}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_ledger`)
	stop()
	if rows, failed := count(`SELECT count(*) FROM ledger`), count(`SELECT count(*) FROM sqlq.error`); rows != 8 || failed != 2 {
		t.Errorf("%d rows, %d failed; want 8, 2", rows, failed)
	}
}
