package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// With the breaker off, a queue in which every message fails ends in the error table completely, whatever its retries.
func TestPoisonDrainsWhereTheBreakerIsOff(t *testing.T) {
	t.Parallel()
	short := sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}, Jitter: -1}
	for _, c := range []struct {
		name       string
		inTx, once bool
		retry      sqlq.RetryPolicy
		attempts   int
	}{{"Handle", false, false, noRetry, 1}, {"Handle, retried", false, false, short, 4}, {"HandleTx", true, false, noRetry, 1},
		{"HandleTx, retried", true, false, short, 4}, {"at most once", false, true, sqlq.RetryPolicy{}, 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			const n = 500
			execSQL(t, pool, `SELECT sqlq.create_queue('house'), sqlq.send_many('house', 'house.Chore', array_fill('{}'::json, ARRAY[$1::int]))`, n)
			handler := sqlq.Handle(func(context.Context, *sqlq.Delivery[chore]) error { return errors.New("no water") })
			if c.inTx {
				handler = sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, _ *sqlq.Delivery[chore]) error {
					_, err := tx.Exec(ctx, `SELECT 1`)
					return errors.Join(err, errors.New("no water"))
				})
			}
			var said logged
			run(t, open(t, pool, sqlq.Config{Logger: said.logger()}), sqlq.Endpoint{Name: "house", Retry: c.retry, AtMostOnce: c.once, Breaker: sqlq.BreakerPolicy{Off: true}, Handlers: []sqlq.Handler{handler}})
			eventuallyCount(t, pool, n, `SELECT count(*) FROM sqlq.error WHERE attempts = $1`, c.attempts)
			if left := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`); left != 0 {
				t.Errorf("%d are left", left)
			}
		})
	}
}

// Messages that are each at fault in their own way say nothing about the service that their handler needs: neither they nor the good
// ones of their type behind them are slowed down, and neither are those that say themselves that no retry can help.
func TestPoisonOfManyKindsSlowsNothing(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(n int) error{
		"many texts":    func(n int) error { return fmt.Errorf("no customer %s", words(n)) },
		"unrecoverable": func(int) error { return sqlq.Unrecoverable(errors.New("no customer")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
			var said logged
			client := open(t, pool, sqlq.Config{Routes: choreRoute, Logger: said.logger()})
			var ms []sqlq.Message
			for n := range 1_200 {
				ms = append(ms, chore{N: n})
			}
			if err := client.SendMany(t.Context(), ms); err != nil {
				t.Fatal(err)
			}
			run(t, client, sqlq.Endpoint{Name: "house", Concurrency: 4, Retry: noRetry, Handlers: chores(func(_ context.Context, d *sqlq.Delivery[chore]) error {
				if d.Message.N < 1_000 {
					return fails(d.Message.N)
				}
				return nil
			})})
			eventuallyCount(t, pool, 1_000, `SELECT count(*) FROM sqlq.error`)
			eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
			if n := strings.Count(said.all(), "slowing it"); n != 0 {
				t.Errorf("it was slowed down %d times", n)
			}
		})
	}
}

// words writes a number in letters, so that no two texts are in one group.
func words(n int) string {
	text := ""
	for ; n > 0; n /= 10 {
		text += string(rune('a'+n%10)) + "x"
	}
	return text
}

// Good messages behind bad ones that fail in one way look like those of a broken service at first. A probe soon finds the good ones,
// and then all are worked through: 500 bad ones took minutes when each of them was a probe.
func TestGoodMessagesBehindPoisonOfOneKind(t *testing.T) {
	t.Parallel()
	for _, inTx := range []bool{false, true} {
		t.Run(fmt.Sprint("HandleTx ", inTx), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
			client := open(t, pool, sqlq.Config{Routes: choreRoute})
			var ms []sqlq.Message
			for n := range 700 {
				ms = append(ms, chore{N: n})
			}
			if err := client.SendMany(t.Context(), ms); err != nil {
				t.Fatal(err)
			}
			var handled atomic.Int32
			do := func(n int) error {
				if n < 500 {
					return errors.New("no customer")
				}
				handled.Add(1)
				return nil
			}
			handler := sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[chore]) error { return do(d.Message.N) })
			if inTx {
				handler = sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[chore]) error { return do(d.Message.N) })
			}
			began := time.Now()
			run(t, client, sqlq.Endpoint{Name: "house", Concurrency: 4, Retry: noRetry, Handlers: []sqlq.Handler{handler}})
			eventually(t, "the good ones", func() (bool, string) {
				failed := count(t, pool, `SELECT count(*) FROM sqlq.error`)
				return handled.Load() == 200 && failed == 500, fmt.Sprint(handled.Load(), " handled, ", failed, " failed")
			})
			t.Logf("all done in %v", time.Since(began))
		})
	}
}

// A policy of its own decides by the error, and is not relied on.
func TestRetryPolicyDecide(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	var said logged
	client := open(t, pool, sqlq.Config{Routes: choreRoute, Logger: said.logger()})
	busy, gone, odd := errors.New("busy"), errors.New("gone"), errors.New("odd")
	var busyFor atomic.Int32
	run(t, client, sqlq.Endpoint{Name: "house", Breaker: sqlq.BreakerPolicy{Off: true},
		Retry: sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{}, Decide: func(attempt int, err error) sqlq.Decision {
			switch {
			case errors.Is(err, busy) && attempt < 4:
				return sqlq.Decision{Outcome: sqlq.OutcomeRetry, Delay: time.Millisecond}
			case errors.Is(err, busy):
				return sqlq.Decision{Outcome: sqlq.OutcomeWait, Delay: time.Hour}
			case errors.Is(err, gone):
				return sqlq.Decision{Outcome: sqlq.OutcomeFail}
			case errors.Is(err, odd):
				panic("cannot decide")
			}
			return sqlq.Decision{}
		}}, Handlers: chores(func(_ context.Context, d *sqlq.Delivery[chore]) error {
			switch d.Message.Do {
			case "busy":
				busyFor.Add(1)
				return busy
			case "gone":
				return gone
			}
			return odd
		})})
	for _, do := range []string{"busy", "gone", "odd"} {
		if err := client.Send(t.Context(), chore{Do: do}); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.delayed WHERE attempt = 3 AND error = 'busy' AND due_at > now() + interval '59 minutes'`)
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.error WHERE attempts = 1 AND message IN ('gone', 'odd')`)
	if n := busyFor.Load(); n != 4 || strings.Count(said.all(), "made no valid decision") != 1 || strings.Count(said.all(), "cannot decide") != 1 {
		t.Errorf("%d attempts; the log: %s", n, said.all())
	}
}

// Without end a message is retried although its attempts cannot be counted any further, and handled in the end.
func TestRetryWithoutEnd(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house'); INSERT INTO sqlq.q_house (id, attempt, type, body) VALUES (sqlq.uuid_v7(), 32765, 'house.Chore', '{}')`)
	var calls atomic.Int32
	run(t, open(t, pool, sqlq.Config{}), sqlq.Endpoint{Name: "house", Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Hour, time.Millisecond}, Unlimited: true},
		Handlers: chores(func(_ context.Context, d *sqlq.Delivery[chore]) error {
			if n := calls.Add(1); n < 20 {
				return errors.New("not yet")
			}
			return nil
		})})
	eventually(t, "it is handled", func() (bool, string) { return calls.Load() == 20, fmt.Sprint(calls.Load(), " calls") })
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.error)`)
}
