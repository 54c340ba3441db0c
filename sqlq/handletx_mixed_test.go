package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// A HandleTx handler that ends or spoils the receive transaction frees the rows of plain messages of its batch. Those whose
// handlers run are leased at once, however long the batch might still be held, and are not handled by others too.
func TestHandleTxKeepsItsPlainNeighbours(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"ended": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Conn().Exec(ctx, `COMMIT`)
			return err
		},
		"aborted": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `SELECT nonsense`)
			return err
		},
		"in use": func(ctx context.Context, tx pgx.Tx) error {
			tx.Conn().PgConn().StartPipeline(ctx)
			return nil
		},
	} {
		for _, window := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprint(name, ", deduplicates ", window), func(t *testing.T) {
				t.Parallel()
				pool := newPool(t)
				config := sqlq.Config{ReceiveConnections: 1, HoldLimit: 5 * time.Second, Routes: map[string]string{"ledger.Entry": "mixed", "house.Chore": "mixed"}}
				here, there := open(t, pool, config), open(t, pool, config)
				var warm, runs atomic.Int32
				started, release := make(chan struct{}), make(chan struct{})
				e := sqlq.Endpoint{Name: "mixed", Concurrency: 4, Retry: noRetry, Deduplicate: window, Handlers: []sqlq.Handler{
					sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[chore]) error {
						if d.Message.N == 0 {
							warm.Add(1)
							return nil
						}
						if runs.Add(1) == 1 {
							close(started)
						}
						<-release
						return nil
					}),
					sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
						if d.Message.N == 0 {
							warm.Add(1)
							return nil
						}
						select {
						case <-started:
						case <-time.After(patience):
							return errors.New("its neighbour did not start")
						}
						return spoil(ctx, tx)
					})}}
				if err := here.Prepare(t.Context(), e); err != nil {
					t.Fatal(err)
				}
				stop := run(t, here, e)
				quick := make([]sqlq.Message, 0, 200)
				for range cap(quick) / 2 { // so that it is known how long handlers take
					quick = append(quick, chore{}, entry{})
				}
				if err := here.SendMany(t.Context(), quick); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the quick ones", func() (bool, string) { return int(warm.Load()) == len(quick), fmt.Sprint(warm.Load()) })
				eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_mixed`)
				if err := here.SendMany(t.Context(), []sqlq.Message{chore{N: 1}, entry{N: 1}}); err != nil {
					t.Fatal(err)
				}
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased`)
				stopThere := run(t, there, e)
				if err := there.SendMany(t.Context(), []sqlq.Message{chore{}, entry{}}); err != nil { // and wakes
					t.Fatal(err)
				}
				eventually(t, "two more", func() (bool, string) { return int(warm.Load()) == len(quick)+2, fmt.Sprint(warm.Load()) })
				close(release)
				eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_mixed) + (SELECT count(*) FROM sqlq.leased)`)
				stop()
				stopThere()
				if n := runs.Load(); n != 1 {
					t.Errorf("the neighbour was handled %d times, want once", n)
				}
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error`)
			})
		}
	}
}
