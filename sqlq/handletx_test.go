package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// entry is a command that HandleTx handlers of these tests book.
type entry struct {
	N    int
	Fail string
}

func (entry) MessageType() string { return "ledger.Entry" }

// booked is what they send on.
type booked struct{ N int }

func (booked) MessageType() string { return "audit.Booked" }

// ledger has a table for business rows, a queue for what handlers send, and a client that may send to both.
func ledger(t *testing.T, config sqlq.Config) (*sqlq.Client, *pgxpool.Pool, func(query string, args ...any) int) {
	t.Helper()
	pool := newPool(t)
	execSQL(t, pool, `CREATE TABLE ledger (n int NOT NULL)`)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['ledger', 'audit']) q`)
	config.Routes = map[string]string{"ledger.Entry": "ledger", "audit.Booked": "audit"}
	return open(t, pool, config), pool, func(query string, args ...any) int { return count(t, pool, query, args...) }
}

// send sends the entries in one transaction, so that they come in one batch.
func send(t *testing.T, c *sqlq.Client, entries ...entry) {
	t.Helper()
	var ms []sqlq.Message
	for _, e := range entries {
		ms = append(ms, e)
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) []entry {
	entries := make([]entry, n)
	for i := range entries {
		entries[i].N = i
	}
	return entries
}

func book(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
	if _, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, d.Message.N); err != nil {
		return err
	}
	return d.Send(booked{d.Message.N})
}

func TestHandleTxFailureUndoesOnlyItsOwnWork(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{})
	entries := numbered(50)
	for i := range entries {
		if i%7 == 3 {
			entries[i].Fail = "after"
		}
	}
	send(t, c, entries...)
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if err := book(ctx, tx, d); err != nil {
				return err
			}
			if d.Message.Fail != "" {
				return errors.New("failed after its work")
			}
			return nil
		})}})
	eventually(t, "all settled", func() (bool, string) {
		left := count(`SELECT count(*) FROM sqlq.q_ledger`)
		return left == 0, fmt.Sprint(left, " left")
	})
	stop()
	for query, want := range map[string]int{
		`SELECT count(*) FROM ledger`:                             43,
		`SELECT count(DISTINCT n) FROM ledger`:                    43,
		`SELECT count(*) FROM ledger WHERE n % 7 = 3`:             0,
		`SELECT count(*) FROM sqlq.q_audit`:                       43,
		`SELECT count(*) FROM sqlq.error`:                         7,
		`SELECT count(*) FROM sqlq.error WHERE attempts = 1`:      7,
		`SELECT count(*) FROM sqlq.delayed`:                       0,
		`SELECT count(DISTINCT fingerprint)::int FROM sqlq.error`: 1,
	} {
		if got := count(query); got != want {
			t.Errorf("%s: got %d, want %d", query, got, want)
		}
	}
}

func TestHandleTxImmediateRetryStartsFromNothing(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{})
	send(t, c, numbered(5)...)
	var calls atomic.Int32
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			calls.Add(1)
			if err := book(ctx, tx, d); err != nil {
				return err
			}
			if d.Attempt < 3 {
				return errors.New("not yet")
			}
			return nil
		})}})
	eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	// Once more where a message first failed behind others in their transaction, which spends no attempt.
	if got := calls.Load(); got < 15 || got > 20 {
		t.Errorf("handler was called %d times, want 15 to 20", got)
	}
	if rows, sent := count(`SELECT count(*) FROM ledger`), count(`SELECT count(*) FROM sqlq.q_audit`); rows != 5 || sent != 5 {
		t.Errorf("got %d business rows and %d sent messages, want 5 and 5", rows, sent)
	}
}

func TestHandleTxSwallowedSQLErrorFailsTheMessage(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{})
	send(t, c, entry{N: 0}, entry{N: 1, Fail: "swallow"}, entry{N: 2})
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if err := book(ctx, tx, d); err != nil {
				return err
			}
			if d.Message.Fail != "" {
				_, _ = tx.Exec(ctx, `INSERT INTO public.no_such_table VALUES (1)`)
			}
			return nil
		})}})
	eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	if got := count(`SELECT count(*) FROM ledger WHERE n <> 1`); got != 2 {
		t.Errorf("neighbours have %d rows, want 2", got)
	}
	if got := count(`SELECT count(*) FROM ledger WHERE n = 1`); got != 0 {
		t.Errorf("the failed message left %d rows", got)
	}
	if got := count(`SELECT count(*) FROM sqlq.error WHERE message LIKE '%no_such_table%' AND message LIKE 'handler returned nil%'`); got != 1 {
		t.Error("the error table does not say what was swallowed")
	}
}

func TestHandleTxRefusesToEndTheTransaction(t *testing.T) {
	t.Parallel()
	ways := map[string]func(ctx context.Context, tx pgx.Tx) error{
		"Commit":            func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
		"Rollback":          func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) },
		"COMMIT":            func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, ` commit;`); return err },
		"ROLLBACK":          func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, `ROLLBACK`); return err },
		"START TRANSACTION": func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Query(ctx, `start transaction`); return err },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _, count := ledger(t, sqlq.Config{})
			send(t, c, numbered(3)...)
			var refused atomic.Int32
			stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
				sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
					if err := book(ctx, tx, d); err != nil {
						return err
					}
					if errors.Is(way(ctx, tx), sqlq.ErrTransactionOwned) {
						refused.Add(1)
					}
					return nil
				})}})
			eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
			stop()
			if refused.Load() != 3 || count(`SELECT count(*) FROM ledger`) != 3 || count(`SELECT count(*) FROM sqlq.error`) != 0 {
				t.Errorf("refused %d times, %d rows, %d failed; want 3, 3, 0", refused.Load(), count(`SELECT count(*) FROM ledger`), count(`SELECT count(*) FROM sqlq.error`))
			}
		})
	}
}

func TestHandleTxCommitPastTheTxFailsOnlyItsMessage(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{})
	send(t, c, entry{N: 0}, entry{N: 1}, entry{N: 2, Fail: "rollback"}, entry{N: 3}, entry{N: 4})
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if err := book(ctx, tx, d); err != nil {
				return err
			}
			if d.Message.Fail != "" {
				_, err := tx.Conn().Exec(ctx, `ROLLBACK`)
				return err
			}
			return nil
		})}})
	eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	if got := count(`SELECT count(*) FROM ledger WHERE n <> 2`); got != 4 {
		t.Errorf("neighbours have %d rows, want 4", got)
	}
	if got := count(`SELECT count(*) FROM sqlq.error WHERE message LIKE '%receive transaction%'`); got != 1 {
		t.Errorf("%d messages failed for ending the transaction, want 1", got)
	}
}

func TestHandleTxDeferredConstraintFailsItsMessageAlone(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{})
	execSQL(t, pool, `ALTER TABLE ledger ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED`)
	entries := numbered(20)
	entries[11].N = 3 // as entry 3: the commit of the batch fails, and nothing says which message is at fault
	send(t, c, entries...)
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{}}, Handlers: []sqlq.Handler{sqlq.HandleTx(book)}})
	eventually(t, "one failed, the rest booked", func() (bool, string) {
		failed, rows, left := count(`SELECT count(*) FROM sqlq.error`), count(`SELECT count(*) FROM ledger`), count(`SELECT count(*) FROM sqlq.q_ledger`)
		return failed == 1 && rows == 19 && left == 0, fmt.Sprintf("%d failed, %d rows, %d left", failed, rows, left)
	})
	stop()
	if got := count(`SELECT count(*) FROM sqlq.q_audit`); got != 19 {
		t.Errorf("%d messages sent, want 19", got)
	}
	if got := count(`SELECT count(*) FROM sqlq.error WHERE message LIKE '%once%' AND attempts = 2`); got != 1 {
		t.Error("the error table does not name the constraint, or not both attempts")
	}
}

// Every way of talking to the transaction must be undone with a failing handler, whichever comes first.
func TestHandleTxEveryStatementIsUndone(t *testing.T) {
	t.Parallel()
	ways := map[string]func(ctx context.Context, tx pgx.Tx, n int) error{
		"Exec": func(ctx context.Context, tx pgx.Tx, n int) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, n)
			return err
		},
		"Exec simple protocol": func(ctx context.Context, tx pgx.Tx, n int) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, pgx.QueryExecModeSimpleProtocol, n)
			return err
		},
		"Exec named": func(ctx context.Context, tx pgx.Tx, n int) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES (@n)`, pgx.NamedArgs{"n": n})
			return err
		},
		"Query left open": func(ctx context.Context, tx pgx.Tx, n int) error {
			_, err := tx.Query(ctx, `INSERT INTO public.ledger SELECT $1 FROM generate_series(1, 1) RETURNING n`, n)
			return err
		},
		"QueryRow": func(ctx context.Context, tx pgx.Tx, n int) error {
			var got int
			return tx.QueryRow(ctx, `INSERT INTO public.ledger VALUES ($1) RETURNING n`, n).Scan(&got)
		},
		"SendBatch": func(ctx context.Context, tx pgx.Tx, n int) error {
			b := &pgx.Batch{}
			b.Queue(`INSERT INTO public.ledger VALUES ($1)`, n)
			return tx.SendBatch(ctx, b).Close()
		},
		"CopyFrom": func(ctx context.Context, tx pgx.Tx, n int) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"public", "ledger"}, []string{"n"}, pgx.CopyFromRows([][]any{{n}}))
			return err
		},
		"Prepare": func(ctx context.Context, tx pgx.Tx, n int) error {
			if _, err := tx.Prepare(ctx, "book", `INSERT INTO public.ledger VALUES ($1)`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "book", n)
			return err
		},
		"nested": func(ctx context.Context, tx pgx.Tx, n int) error {
			failing := errors.New("undo")
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, n+1000); err != nil {
					return err
				}
				return failing
			})
			if !errors.Is(err, failing) {
				return fmt.Errorf("nested transaction: %w", err)
			}
			return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, n)
				return err
			})
		},
		"nested after an SQL error": func(ctx context.Context, tx pgx.Tx, n int) error {
			var pg *pgconn.PgError
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `SELECT 1/0`)
				return err
			})
			if !errors.As(err, &pg) {
				return fmt.Errorf("nested transaction: %w", err)
			}
			_, err = tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, n)
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
			entries := numbered(6)
			entries[1].Fail, entries[4].Fail = "yes", "yes"
			send(t, c, entries...)
			stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
				sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
					if err := way(ctx, tx, d.Message.N); err != nil {
						return fmt.Errorf("unexpected: %w", err)
					}
					if d.Message.Fail != "" {
						return errors.New("fails")
					}
					return nil
				})}})
			eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
			stop()
			if got := count(`SELECT count(*) FROM ledger`); got != 4 {
				t.Errorf("%d rows, want 4", got)
			}
			if got := count(`SELECT count(*) FROM ledger WHERE n IN (1, 4)`); got != 0 {
				t.Errorf("failed messages left %d rows", got)
			}
			if got := count(`SELECT count(*) FROM sqlq.error WHERE message = 'fails'`); got != 2 {
				t.Errorf("%d messages failed as meant, want 2: %d in all", got, count(`SELECT count(*) FROM sqlq.error`))
			}
		})
	}
}

// A statement that does not even parse is refused before the savepoint in front of it stands. Still it fails its own
// message only.
func TestHandleTxUnparsableStatementFailsOnlyItsMessage(t *testing.T) {
	t.Parallel()
	for _, at := range []int{0, 3} {
		c, _, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
		entries := numbered(6)
		entries[at].Fail = "parse"
		send(t, c, entries...)
		stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
			sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
				if d.Message.Fail != "" {
					_, err := tx.Exec(ctx, `INSERT INTO missing VALUES (1)`)
					return err
				}
				return book(ctx, tx, d)
			})}})
		eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
		stop()
		rows, failed := count(`SELECT count(*) FROM ledger`), count(`SELECT count(*) FROM sqlq.error WHERE message LIKE '%"missing" does not exist%'`)
		if all := count(`SELECT count(*) FROM sqlq.error`); rows != 5 || failed != 1 || all != 1 {
			t.Errorf("statement of message %d: %d rows, %d failed for it, %d failed; want 5, 1, 1", at, rows, failed, all)
		}
	}
}
