package sqlq_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

func TestHandleTxKeepsTheServersPlannerSettings(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{})
	send(t, c, numbered(3)...)
	var mu sync.Mutex
	var seen []string
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			var s string
			err := tx.QueryRow(ctx, `SELECT current_setting('enable_seqscan') || current_setting('enable_sort') || current_setting('plan_cache_mode')`).Scan(&s)
			mu.Lock()
			seen = append(seen, s)
			mu.Unlock()
			return err
		})}})
	eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	for _, s := range seen {
		if s != "ononauto" {
			t.Errorf("a handler saw planner settings %q", s)
		}
	}
}

// A handler that leaves its transaction idle is kept alive: the server would end it, since a frozen process must not hold
// rows for ever.
func TestHandleTxSlowHandlerIsKeptAlive(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{})
	send(t, c, entry{N: 1})
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if err := book(ctx, tx, d); err != nil {
				return err
			}
			eventuallyCount(t, pool, 1, `SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query = 'SELECT 1'`, tx.Conn().PgConn().PID())
			return nil
		})}})
	eventually(t, "settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	if rows, failed := count(`SELECT count(*) FROM ledger`), count(`SELECT count(*) FROM sqlq.error`); rows != 1 || failed != 0 {
		t.Errorf("%d rows, %d failed; want 1, 0", rows, failed)
	}
}

// A connection that dies under a handler takes the whole batch's work with it: nothing of it may be settled elsewhere.
func TestHandleTxLostConnectionIsNobodysFailure(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
	entries := numbered(6)
	entries[3].Fail = "kill"
	send(t, c, entries...)
	var killed atomic.Bool
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if err := book(ctx, tx, d); err != nil {
				return err
			}
			if d.Message.Fail != "" && !killed.Swap(true) {
				_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
				return err
			}
			return nil
		})}})
	eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()
	rows, sent, failed := count(`SELECT count(DISTINCT n) FROM ledger`), count(`SELECT count(*) FROM sqlq.q_audit`), count(`SELECT count(*) FROM sqlq.error`)
	if rows != 6 || count(`SELECT count(*) FROM ledger`) != 6 || sent != 6 || failed != 0 {
		t.Errorf("%d entries booked, %d sent, %d failed; want 6, 6, 0", rows, sent, failed)
	}
}

// A handler under which the connection dies every time does not come back for ever.
func TestHandleTxThatAlwaysLosesItsConnectionFails(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{})
	send(t, c, numbered(1)...)
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return err
		})}})
	eventually(t, "failed", func() (bool, string) {
		return count(`SELECT count(*) FROM sqlq.error WHERE message LIKE '%connection was lost%'`) == 1, "not yet"
	})
	stop()
}
