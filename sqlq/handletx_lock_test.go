package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

func TestHandleTxContendingHandlersMakeProgress(t *testing.T) {
	t.Parallel()
	// A server that looks for deadlocks as soon as a handler has to wait, or was not running for a while, finds those that
	// the handlers are about to leave by themselves.
	for _, deadlockTimeout := range []string{"1s", "1ms"} {
		t.Run("deadlock_timeout="+deadlockTimeout, func(t *testing.T) {
			t.Parallel()
			contend(t, deadlockTimeout)
		})
	}
}

func contend(t *testing.T, deadlockTimeout string) {
	c, pool, count := ledger(t, sqlq.Config{})
	execSQL(t, pool, fmt.Sprintf(`ALTER DATABASE %s SET deadlock_timeout = '%s'`, pgx.Identifier{pool.Config().ConnConfig.Database}.Sanitize(), deadlockTimeout))
	// Each message takes one of a few rows: two batches that waited for one another's rows would deadlock.
	const messages, rows = 2000, 5
	execSQL(t, pool, `CREATE TABLE account AS SELECT i AS id, 0 AS total FROM generate_series(0, 4) i`)
	send(t, c, numbered(messages)...)
	handler := sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
		_, err := tx.Exec(ctx, `UPDATE public.account SET total = total + 1 WHERE id = $1`, d.Message.N*7%rows)
		if d.Attempt > 1 {
			t.Errorf("entry %d: attempt %d was counted although it only waited", d.Message.N, d.Attempt)
		}
		return err
	})
	// Two processes, so to speak.
	stop1 := run(t, c, sqlq.Endpoint{Name: "ledger", Handlers: []sqlq.Handler{handler}})
	other := open(t, pool, sqlq.Config{Routes: map[string]string{"ledger.Entry": "ledger"}})
	stop2 := run(t, other, sqlq.Endpoint{Name: "ledger", Handlers: []sqlq.Handler{handler}})
	eventually(t, "all settled", func() (bool, string) {
		left := count(`SELECT (SELECT count(*) FROM sqlq.q_ledger) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)
		return left == 0, fmt.Sprint(left, " left")
	})
	stop1()
	stop2()
	if got := count(`SELECT sum(total) FROM account`); got != messages {
		t.Errorf("accounts got %d updates, want %d", got, messages)
	}
	if got := count(`SELECT count(*) FROM sqlq.error`); got != 0 {
		t.Errorf("%d messages failed", got)
	}
}

// PostgreSQL now and then tells a statement that waited too long for a lock that a user cancelled it: when the time was up
// just as the first of two locks was granted. What interrupts a handler that is not the first of its batch is taken for that.
func TestHandleTxCancelledLaterRunsFirst(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{})
	send(t, c, numbered(100)...)
	var cancelled, again atomic.Int32
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			var limit string
			if err := tx.QueryRow(ctx, `SHOW lock_timeout`).Scan(&limit); err != nil {
				return err
			}
			if limit != "0" && cancelled.CompareAndSwap(0, int32(d.Message.N)) {
				_, err := tx.Exec(ctx, `SELECT pg_cancel_backend(pg_backend_pid())`)
				return err
			}
			if n := int32(d.Message.N); n > 0 && n == cancelled.Load() {
				again.Add(1)
			}
			return book(ctx, tx, d)
		})}})
	eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	if again.Load() != 1 || count(`SELECT count(*) FROM sqlq.error`) != 0 || count(`SELECT count(*) FROM ledger`) != 100 {
		t.Errorf("the cancelled one ran %d times again, %d failed, %d booked; want 1, 0, 100", again.Load(), count(`SELECT count(*) FROM sqlq.error`), count(`SELECT count(*) FROM ledger`))
	}
}

// The first handler of a batch waits for locks without a limit, and may do so in a circle with somebody else. Whom the
// server ends is chance, and no failure of the message.
func TestHandleTxDeadlockSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{})
	execSQL(t, pool, `CREATE TABLE account AS SELECT i AS id, 0 AS total FROM generate_series(1, 2) i`)
	// The server ends who looks for a deadlock first: the handler.
	execSQL(t, pool, fmt.Sprintf(`ALTER DATABASE %s SET deadlock_timeout = '1ms'`, pgx.Identifier{pool.Config().ConnConfig.Database}.Sanitize()))
	const update = `UPDATE public.account SET total = total + 1 WHERE id = $1`
	other, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback(context.Background())
	for _, set := range []string{`SET LOCAL deadlock_timeout = '1h'`, `UPDATE public.account SET total = total + 1 WHERE id = 2`} {
		if _, err := other.Exec(t.Context(), set); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	var calls atomic.Int32
	send(t, c, entry{N: 1})
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if _, err := tx.Exec(ctx, update, 1); err != nil {
				return err
			}
			if calls.Add(1) == 1 {
				go func() {
					_, err := other.Exec(context.Background(), update, 1)
					ended <- errors.Join(err, other.Commit(context.Background()))
				}()
				eventually(t, "the other transaction waits", func() (bool, string) {
					return count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1, "it does not"
				})
			}
			if d.Attempt != 1 {
				t.Errorf("attempt %d was counted although it only waited in a circle", d.Attempt)
			}
			_, err := tx.Exec(ctx, update, 2)
			return err
		})}})
	eventually(t, "settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n, failed, total := calls.Load(), count(`SELECT count(*) FROM sqlq.error`), count(`SELECT sum(total) FROM account`); n < 2 || failed != 0 || total != 4 { // it may have been the first at the row again
		t.Errorf("the handler ran %d times, %d messages failed, the accounts have %d; want 2 or more, 0 and 4", n, failed, total)
	}
}
