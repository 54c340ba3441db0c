package sqlq_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// A Run that has ended leaves no timer behind: not those that look again for messages whose connection was lost, which is up to 12 s
// later, nor those of what the server has refused.
func TestRunLeavesNoTimers(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{})
	refuse(t, pool, "error")
	refuse(t, pool, "delayed")
	send(t, c, numbered(2)...)
	var killed atomic.Bool
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if !killed.Swap(true) {
				_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
				return err
			}
			return errors.New("broken")
		})}})
	eventually(t, "refused", func() (bool, string) { return count(`SELECT last_value FROM public.tries_delayed`) > 1, "not yet" })
	timers := c.LifeOf()
	if timers() == 0 {
		t.Error("no timers while it runs")
	}
	stop()
	if n := timers(); n != 0 {
		t.Errorf("%d timers are left", n)
	}
}
