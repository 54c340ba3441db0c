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

// Messages of one type that fail one after the other slow down, and hold up no others: those behind them in the queue are
// handled meanwhile. Once the fault is mended all of them are handled.
func TestPoisonHoldsUpNoOtherType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                string
		inTx, once, byLease bool
	}{{"Handle", false, false, false}, {"HandleTx", true, false, false}, {"at most once", false, true, false},
		{"by lease", false, false, true}, {"HandleTx, by lease", true, false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
			if c.byLease {
				crashLately(t, pool, "post")
			}
			const poison, good = 500, 100
			execSQL(t, pool, `SELECT sqlq.send('post', 'post.Letter', '{}') FROM generate_series(1, $1::int)`, poison)
			execSQL(t, pool, `SELECT sqlq.send('post', 'post.Hop', '{}') FROM generate_series(1, $1::int)`, good/2)
			var mended atomic.Bool
			var failed, cured, handled atomic.Int32
			letters := func() error {
				if mended.Load() {
					cured.Add(1)
					return nil
				}
				failed.Add(1)
				return errors.New("broken")
			}
			hops := func() error { handled.Add(1); return nil }
			e := sqlq.Endpoint{Name: "post", Concurrency: 4, Retry: noRetry, AtMostOnce: c.once, Handlers: []sqlq.Handler{
				sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return letters() }),
				sqlq.Handle(func(context.Context, *sqlq.Delivery[hop]) error { return hops() })}}
			if c.once {
				e.Retry = sqlq.RetryPolicy{}
			}
			if c.inTx {
				e.Handlers = []sqlq.Handler{
					sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[letter]) error { return letters() }),
					sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[hop]) error { return hops() })}
			}
			client := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Hop": "post"}})
			began := time.Now()
			run(t, client, e)
			for range good / 2 {
				if err := client.Send(t.Context(), hop{}); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the others", func() (bool, string) {
				return handled.Load() == good, fmt.Sprint(handled.Load(), " handled, ", failed.Load(), " failed")
			})
			// Some were in hand when the breaker opened; then there are ten probes a second at most.
			if n, most := failed.Load(), 150+10*int32(time.Since(began).Seconds()); n > most {
				t.Errorf("%d failed meanwhile, want %d at most", n, most)
			}
			before := failed.Load()
			eventually(t, "a probe", func() (bool, string) { return failed.Load() > before, "" })
			mended.Store(true)
			eventually(t, "the cured ones", func() (bool, string) {
				return cured.Load()+failed.Load() == poison, fmt.Sprint(cured.Load(), " cured, ", failed.Load(), " failed")
			})
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased)`)
			eventuallyCount(t, pool, int(failed.Load()), `SELECT count(*) FROM sqlq.error`)
		})
	}
}
