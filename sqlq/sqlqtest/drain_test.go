package sqlqtest_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

// Drain handles what is waiting and what follows from it; endpoints that are not named keep their messages.
func TestDrain(t *testing.T) {
	t.Parallel()
	var charged sync.Map
	h := sqlqtest.Open(t, sqlq.Config{}, sales(), billing(&charged))
	if got := h.Drain(t); got != (sqlqtest.Drained{}) {
		t.Errorf("of nothing, %+v", got)
	}
	h.Send(t, placeOrder{17, "1 EUR"})
	h.Send(t, placeOrder{18, "2 EUR"})
	if got, want := h.Drain(t, "sales"), (sqlqtest.Drained{Handled: 2}); got != want {
		t.Errorf("sales alone: %+v, want %+v", got, want)
	}
	sqlqtest.ExpectSent[*charge](t, h)
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 4}); got != want {
		t.Errorf("both: %+v, want %+v", got, want)
	}
	sqlqtest.ExpectSent(t, h, &charge{18}, &charge{17})
	for _, order := range []int{17, 18} {
		if _, done := charged.Load(order); !done {
			t.Errorf("order %d was not charged for", order)
		}
	}
}

// A message that an AtMostOnce endpoint has in hand is in no table; Drain waits for it nevertheless, and for what follows from it.
func TestDrainAtMostOnce(t *testing.T) {
	t.Parallel()
	var charged sync.Map
	var h *sqlqtest.Harness
	e := sqlq.Endpoint{Name: "sales", AtMostOnce: true, Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[placeOrder]) error {
		if d.Message.Order == 17 {
			looksPast(t, h)
			return errors.New("no such order")
		}
		return d.Send(&charge{d.Message.Order})
	})}}
	h = sqlqtest.Open(t, sqlq.Config{}, e, billing(&charged))
	for order := range 20 {
		h.Send(t, placeOrder{order, "1 EUR"})
	}
	h.Send(t, placeOrder{20, "1 EUR"}, sqlq.ExpiresIn(time.Microsecond))
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 39, Failed: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// looksPast waits until Drain has seen the empty queues, twice.
func looksPast(t *testing.T, h *sqlqtest.Harness) {
	var since *time.Time
	deadline, tick := time.After(time.Minute), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for looks := 0; looks < 2; {
		var looked *time.Time
		err := h.Pool.QueryRow(context.Background(), `SELECT max(query_start) FROM pg_stat_activity, (SELECT count(*) AS n FROM sqlq.q_sales) q
			WHERE datname = current_database() AND q.n = 0 AND pid <> pg_backend_pid() AND query LIKE '%FROM sqlqtest.sent WHERE queue%'`).Scan(&looked)
		if err != nil {
			t.Error(err)
			return
		}
		if looked != nil && (since == nil || looked.After(*since)) {
			since = looked
			looks++
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Error("Drain does not look")
			return
		}
	}
}

// What an endpoint has handled within its window is not handled again until the time is advanced.
func TestAdvanceBeyondTheWindow(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	e := sqlq.Endpoint{Name: "sales", Deduplicate: time.Hour, Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[placeOrder]) error {
		calls.Add(1)
		return nil
	})}}
	h := sqlqtest.Open(t, sqlq.Config{}, e)
	id := sqlq.NewID()
	for i, step := range []struct {
		advance time.Duration
		calls   int32
	}{{0, 1}, {59 * time.Minute, 1}, {time.Minute, 2}} {
		h.Advance(t, step.advance)
		h.Send(t, placeOrder{1, "1 EUR"}, sqlq.WithID(id))
		if got := h.Drain(t); got != (sqlqtest.Drained{Handled: 1}) || calls.Load() != step.calls {
			t.Errorf("step %d: %+v, %d calls, want %d", i, got, calls.Load(), step.calls)
		}
	}
}

// Messages that are not due stay until the time is advanced.
func TestAdvance(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sales())
	h.Send(t, placeOrder{1, "1 EUR"}, sqlq.Delay(time.Hour))
	h.Send(t, placeOrder{2, "2 EUR"}, sqlq.At(time.Now().Add(3*time.Hour)))
	steps := []struct {
		advance time.Duration
		want    sqlqtest.Drained
	}{
		{0, sqlqtest.Drained{Delayed: 2}},
		{59 * time.Minute, sqlqtest.Drained{Delayed: 2}},
		{time.Minute, sqlqtest.Drained{Handled: 1, Delayed: 1}},
		{24 * time.Hour, sqlqtest.Drained{Handled: 1}},
	}
	for _, s := range steps {
		h.Advance(t, s.advance)
		if got := h.Drain(t); got != s.want {
			t.Errorf("after %v more: %+v, want %+v", s.advance, got, s.want)
		}
	}
	says(t, fake(t, func(t sqlqtest.TB) { h.Advance(t, -1) }), "time does not go back")
}

// Advance makes times to live pass, of messages waiting in a queue and of delayed ones.
func TestAdvanceExpires(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sales())
	h.Send(t, placeOrder{1, "too late"}, sqlq.ExpiresIn(time.Hour))
	h.Send(t, placeOrder{2, "too late"}, sqlq.ExpiresIn(time.Hour), sqlq.Delay(time.Minute))
	h.Send(t, placeOrder{3, "in time"}, sqlq.ExpiresIn(3*time.Hour))
	h.Advance(t, 2*time.Hour)
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 3}); got != want {
		t.Errorf("drained %+v, want %+v", got, want)
	}
	sqlqtest.ExpectPublished(t, h, orderPlaced{3, "in time"})
}

// Retries come one round after the other; DrainAll continues until the last.
func TestRetries(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sales())
	h.Send(t, placeOrder{Order: 1})
	for range 2 {
		if got, want := h.Drain(t), (sqlqtest.Drained{Delayed: 1}); got != want {
			t.Fatalf("a round of retries: %+v, want %+v", got, want)
		}
		h.Advance(t, time.Minute)
	}
	h.Send(t, placeOrder{2, "2 EUR"})
	if got, want := h.DrainAll(t), (sqlqtest.Drained{Handled: 1, Failed: 1}); got != want {
		t.Errorf("all rounds: %+v, want %+v", got, want)
	}
	failed := sqlqtest.Failed[placeOrder](t, h)
	if len(failed) != 1 || failed[0].Message.Order != 1 || failed[0].Attempts != 15 || failed[0].Error != "order 1: no total" {
		t.Errorf("failed: %+v", failed)
	}
	sqlqtest.ExpectFailed(t, h, placeOrder{Order: 1})
	sqlqtest.ExpectPublished(t, h, orderPlaced{2, "2 EUR"}) // what failed has published nothing
	if got := h.DrainAll(t); got != (sqlqtest.Drained{}) {
		t.Errorf("of nothing, %+v", got)
	}
}

// DrainAll handles what handlers send with a delay.
func TestDrainAllFollows(t *testing.T) {
	t.Parallel()
	var order []int
	steps := sqlq.Endpoint{Name: "steps", Concurrency: 1, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[*charge]) error {
			order = append(order, d.Message.Order)
			if d.Message.Order >= 3 {
				return nil
			}
			return d.Send(&charge{d.Message.Order + 1}, sqlq.Delay(24*time.Hour))
		}),
	}}
	h := sqlqtest.Open(t, sqlq.Config{}, steps)
	h.Send(t, &charge{1}, sqlq.Delay(time.Hour))
	if got, want := h.DrainAll(t), (sqlqtest.Drained{Handled: 3}); got != want || len(order) != 3 {
		t.Errorf("drained %+v, want %+v, in the order %v", got, want, order)
	}
}

// A Drain that does not finish reports what it is waiting for.
func TestDrainGivesUp(t *testing.T) {
	t.Parallel()
	const patience = 300 * time.Millisecond
	// giveUp runs an endpoint and, once its handler has made a second attempt, returns what Wait says.
	giveUp := func(t *testing.T, e sqlq.Endpoint, second <-chan struct{}) string {
		h := sqlqtest.Open(t, sqlq.Config{DrainTimeout: time.Millisecond}, e)
		h.Send(t, &charge{17})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Client.Run(ctx, e) }()
		<-second
		h.Timeout = patience
		said := fake(t, func(t sqlqtest.TB) { h.Wait(t, e.Name) })
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return said
	}
	t.Run("handler that hangs", func(t *testing.T) {
		t.Parallel()
		second := make(chan struct{})
		hangs := sqlq.Endpoint{Name: "billing", Handlers: []sqlq.Handler{
			sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[*charge]) error {
				if d.Attempt == 1 {
					return errors.New("not yet")
				}
				close(second)
				<-ctx.Done()
				return ctx.Err()
			}),
		}}
		says(t, giveUp(t, hangs, second), "not done after 300ms", `queue "billing": billing.Charge, `, "attempt 2 has been running for", "the previous one failed: not yet")
	})
	t.Run("handler that always asks for an immediate retry", func(t *testing.T) {
		t.Parallel()
		second := make(chan struct{})
		again := sqlq.Endpoint{Name: "billing", Retry: sqlq.RetryPolicy{Immediate: 5_000}, Handlers: []sqlq.Handler{
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[*charge]) error {
				if d.Attempt == 2 {
					close(second)
				}
				return sqlq.RetryAfter(0, errors.New("the bank is closed"))
			}),
		}}
		says(t, giveUp(t, again, second), "not done after 300ms", `queue "billing": billing.Charge, `, "on record", "failed: the bank is closed")
	})
	t.Run("handler that defers the message for ever", func(t *testing.T) {
		t.Parallel()
		forever := sqlq.Endpoint{Name: "billing", Handlers: []sqlq.Handler{
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[*charge]) error {
				return d.Send(&charge{d.Message.Order + 1}, sqlq.Delay(24*time.Hour))
			}),
		}}
		says(t, fake(t, func(t sqlqtest.TB) {
			h := sqlqtest.Open(t, sqlq.Config{}, forever)
			h.Timeout = patience
			h.Send(t, &charge{17})
			h.DrainAll(t)
		}), "not done after 300ms", `queue "billing": billing.Charge, `)
	})
	t.Run("queue that is paused", func(t *testing.T) {
		t.Parallel()
		said := fake(t, func(ft sqlqtest.TB) {
			h := sqlqtest.Open(ft, sqlq.Config{}, sales())
			h.Timeout = patience
			for range 12 {
				h.Send(ft, placeOrder{1, "1 EUR"})
			}
			if _, err := h.Pool.Exec(t.Context(), `SELECT sqlq.pause('sales')`); err != nil {
				t.Error(err)
			}
			h.Drain(ft)
		})
		says(t, said, `queue "sales": sales.PlaceOrder, ready, message `, "0 attempts on record; no attempt was seen\n", `queue "sales": and more`, `queue "sales" is paused`)
	})
}

// Wait waits for endpoints that the code under test runs. Drain refuses to run them twice.
func TestSettle(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sales())
	var handled atomic.Int32
	running := make(chan struct{})
	own := sqlq.Endpoint{Name: "own", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[*charge]) error {
			if handled.Add(1) == 1 {
				close(running)
			}
			return nil
		}),
	}}
	if err := h.Client.Prepare(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Client.Run(ctx, own) }()
	for order := range 20 {
		h.Send(t, &charge{order})
	}
	<-running
	if h.Wait(t); handled.Load() != 20 {
		t.Errorf("settled, with %d of 20 handled", handled.Load())
	}
	h.Send(t, placeOrder{Order: 1})
	says(t, fake(t, func(t sqlqtest.TB) { h.Drain(t) }), "already running", "use Wait")
	h.Send(t, &charge{20})
	h.Wait(t, "own")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
