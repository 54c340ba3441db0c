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

// A message that its handler gives back waits among the delayed with the reason, and no attempt is counted; what its handler did
// is undone. When its time has come it is handled as for the first time.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                string
		inTx, slow, byLease bool
		window              time.Duration
	}{
		{name: "Handle"}, {name: "HandleTx", inTx: true}, {name: "leased while it runs", slow: true}, {name: "by lease", byLease: true},
		{name: "HandleTx, by lease", inTx: true, byLease: true}, {name: "deduplicates", window: time.Hour}, {name: "HandleTx, deduplicates", inTx: true, window: time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q; CREATE TABLE done (n int)`)
			if c.byLease {
				crashLately(t, pool, "house")
			}
			client := open(t, pool, sqlq.Config{Routes: choreRoute, HoldLimit: 20 * time.Millisecond})
			var isOpen atomic.Bool
			var attempt atomic.Int32
			work := func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[chore]) error {
				attempt.Store(int32(d.Attempt))
				if err := d.Send(entry{}); err != nil {
					return err
				}
				if tx != nil {
					if _, err := tx.Exec(ctx, `INSERT INTO public.done VALUES (1)`); err != nil {
						return err
					}
				}
				if isOpen.Load() {
					return nil
				}
				if c.slow { // until it is leased
					eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased`)
				}
				return fmt.Errorf("visit: %w", sqlq.GiveBack(time.Hour, "the shop is\x1b[2J\nclosed"))
			}
			handler := sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[chore]) error { return work(ctx, nil, d) })
			if c.inTx {
				handler = sqlq.HandleTx(work)
			}
			run(t, client, sqlq.Endpoint{Name: "house", Retry: noRetry, Deduplicate: c.window, Handlers: []sqlq.Handler{handler}})
			if err := client.Send(t.Context(), chore{}); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.delayed WHERE attempt = 0 AND error = 'visit: given back by its handler: the shop is [2J closed'
					AND coalesce(headers::text, '') NOT LIKE '%sqlq-%failed%' AND due_at BETWEEN now() + interval '59 minutes' AND now() + interval '1 hour'`)
				execSQL(t, pool, `UPDATE sqlq.delayed SET due_at = now()`)
				eventually(t, "it is taken up again", func() (bool, string) {
					return count(t, pool, `SELECT count(*) FROM sqlq.delayed WHERE due_at < now() + interval '1 minute'`) == 0, ""
				})
			}
			if n := count(t, pool, `SELECT (SELECT count(*) FROM done) + (SELECT count(*) FROM sqlq.q_ledger) + (SELECT count(*) FROM sqlq.error)`); n != 0 {
				t.Errorf("%d traces are left of what was undone", n)
			}
			eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.delayed WHERE due_at > now() + interval '59 minutes'`)
			isOpen.Store(true)
			execSQL(t, pool, `UPDATE sqlq.delayed SET due_at = now()`)
			eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.q_ledger`)
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.error)`)
			if n := attempt.Load(); n != 1 {
				t.Errorf("it was handled in attempt %d", n)
			}
		})
	}
}

// With a time of 0 the message is free at once, and is fetched again, but not as fast as it can be.
func TestGiveBackAtOnce(t *testing.T) {
	t.Parallel()
	for _, inTx := range []bool{false, true} {
		t.Run(fmt.Sprint("HandleTx ", inTx), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
			client := open(t, pool, sqlq.Config{Routes: choreRoute})
			var calls, others atomic.Int32
			do := func(d *sqlq.Delivery[chore]) error {
				switch {
				case d.Message.N > 0:
					others.Add(1)
					return nil
				case d.Attempt != 1:
					return sqlq.Unrecoverable(fmt.Errorf("attempt %d", d.Attempt))
				case calls.Add(1) <= 3:
					return sqlq.GiveBack(0, "not mine")
				}
				return nil
			}
			handler := sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[chore]) error { return do(d) })
			if inTx {
				handler = sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[chore]) error { return do(d) })
			}
			began := time.Now()
			run(t, client, sqlq.Endpoint{Name: "house", Retry: noRetry, Handlers: []sqlq.Handler{handler}})
			var ms []sqlq.Message
			for n := range 10 {
				ms = append(ms, chore{N: n})
			}
			if err := client.SendMany(t.Context(), ms); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is handled in the end", func() (bool, string) {
				return calls.Load() == 4 && others.Load() == 9, fmt.Sprint(calls.Load(), " calls, others ", others.Load())
			})
			if took := time.Since(began); took < 250*time.Millisecond {
				t.Errorf("it came back three times in %v: it is to be left to others for a while each time", took)
			}
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.error)`)
		})
	}
}

// In a batch of HandleTx handlers the one that gives its message back undoes its own work and nobody else's, and none runs twice.
func TestGiveBackInABatch(t *testing.T) {
	t.Parallel()
	c, _, count := ledger(t, sqlq.Config{})
	entries := numbered(50)
	send(t, c, entries...)
	var calls atomic.Int32
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			calls.Add(1)
			if err := book(ctx, tx, d); err != nil {
				return err
			}
			if d.Message.N%7 == 3 {
				return sqlq.GiveBack(time.Hour, "later")
			}
			return nil
		})}})
	eventually(t, "all settled", func() (bool, string) {
		left := count(`SELECT count(*) FROM sqlq.q_ledger`)
		return left == 0, fmt.Sprint(left, " left")
	})
	stop()
	if n := calls.Load(); n != 50 {
		t.Errorf("%d handlers were called for 50 messages", n)
	}
	for query, want := range map[string]int{
		`SELECT count(*) FROM ledger`:                                                               43,
		`SELECT count(*) FROM ledger WHERE n % 7 = 3`:                                               0,
		`SELECT count(*) FROM sqlq.q_audit`:                                                         43,
		`SELECT count(*) FROM sqlq.error`:                                                           0,
		`SELECT count(*) FROM sqlq.delayed WHERE attempt = 0 AND error <> ''`:                       7,
		`SELECT count(*) FROM sqlq.delayed WHERE error NOT LIKE 'given back by its handler: later'`: 0,
	} {
		if got := count(query); got != want {
			t.Errorf("%s: got %d, want %d", query, got, want)
		}
	}
}

// What is given back spends no attempt, and attempts that have failed stay counted, also when it is given back at once after an
// immediate retry.
func TestGiveBackSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	client := open(t, pool, sqlq.Config{Routes: choreRoute})
	fault := errors.New("no water")
	// Each call's error; a number is the attempt that it must be.
	script := []struct {
		attempt int
		err     error
	}{
		{1, sqlq.GiveBack(time.Millisecond, "")}, {1, sqlq.GiveBack(0, "")}, {1, fault}, {2, sqlq.GiveBack(0, "")}, {2, sqlq.GiveBack(time.Millisecond, "")},
		{2, fault}, {3, fault}, {4, sqlq.GiveBack(time.Millisecond, "")}, {4, fault},
	}
	var calls atomic.Int32
	run(t, client, sqlq.Endpoint{Name: "house", Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}, Jitter: -1}, Handlers: chores(func(_ context.Context, d *sqlq.Delivery[chore]) error {
		n := int(calls.Add(1)) - 1
		if n >= len(script) || script[n].attempt != d.Attempt {
			return sqlq.Unrecoverable(fmt.Errorf("call %d is attempt %d", n, d.Attempt))
		}
		return script[n].err
	})})
	if err := client.Send(t.Context(), chore{}); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error`)
	var text string
	var attempts int
	if err := pool.QueryRow(t.Context(), `SELECT message, attempts FROM sqlq.error`).Scan(&text, &attempts); err != nil || text != "no water" || attempts != 4 || int(calls.Load()) != len(script) {
		t.Errorf("%q after %d attempts and %d calls (%v)", text, attempts, calls.Load(), err)
	}
}

// In an endpoint that handles at most once nothing comes back: what is given back is in the error table, and says why.
func TestGiveBackAtMostOnce(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	client := open(t, pool, sqlq.Config{Routes: choreRoute})
	var calls atomic.Int32
	run(t, client, sqlq.Endpoint{Name: "house", AtMostOnce: true, Handlers: chores(func(_ context.Context, d *sqlq.Delivery[chore]) error {
		calls.Add(1)
		return sqlq.GiveBack(time.Duration(d.Message.N)*time.Hour, "busy")
	})})
	for n := range 2 {
		if err := client.Send(t.Context(), chore{N: n}); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.error WHERE attempts = 1 AND message LIKE 'given back by its handler: busy (its endpoint is AtMostOnce%replay%'`)
	if n := calls.Load() + int32(count(t, pool, `SELECT (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.q_house)`)); n != 2 {
		t.Errorf("%d calls and messages elsewhere", n)
	}
}

// A queue whose messages are all given back is worked through, not slowed down: it is nobody's failure.
func TestGiveBackDoesNotSlowTheEndpoint(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	const n = 500
	execSQL(t, pool, `SELECT sqlq.create_queue('house'), sqlq.send_many('house', 'house.Chore', array_fill('{}'::json, ARRAY[500]))`)
	var said logged
	client := open(t, pool, sqlq.Config{Routes: choreRoute, Logger: said.logger()})
	run(t, client, sqlq.Endpoint{Name: "house", Concurrency: 4, Handlers: chores(func(context.Context, *sqlq.Delivery[chore]) error {
		return sqlq.GiveBack(time.Hour, "maintenance")
	})})
	eventuallyCount(t, pool, n, `SELECT count(*) FROM sqlq.delayed WHERE attempt = 0`)
	if strings.Contains(said.all(), "slowing it") {
		t.Error("it was slowed down")
	}
}
