package sqlqtest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

// What a handler gives back is delayed until its time has come, and then handled as in its first attempt; given back with a time of 0
// it is handled again in the same Drain.
func TestDrainOfWhatIsGivenBack(t *testing.T) {
	t.Parallel()
	var isOpen atomic.Bool
	var once atomic.Int32
	h := sqlqtest.Open(t, sqlq.Config{}, sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[placeOrder]) error {
		switch {
		case d.Attempt != 1:
			t.Errorf("attempt %d", d.Attempt)
		case d.Message.Order == 18 && once.Add(1) < 3:
			return sqlq.GiveBack(0, "not mine")
		case d.Message.Order == 17 && !isOpen.Load():
			return sqlq.GiveBack(time.Hour, "closed")
		}
		return nil
	})}})
	h.Send(t, placeOrder{17, "1 EUR"})
	h.Send(t, placeOrder{18, "1 EUR"})
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 1, Delayed: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	isOpen.Store(true)
	h.Advance(t, time.Hour)
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 1}); got != want {
		t.Errorf("after an hour: %+v, want %+v", got, want)
	}
	sqlqtest.ExpectNoneFailed(t, h)
}

// A Drain that waits for what its handler gives back again and again says so.
func TestDrainNamesWhatIsGivenBack(t *testing.T) {
	t.Parallel()
	said := fake(t, func(t sqlqtest.TB) {
		h := sqlqtest.Open(t, sqlq.Config{}, sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[placeOrder]) error {
			return sqlq.GiveBack(0, "not mine")
		})}})
		h.Timeout = time.Second
		h.Send(t, placeOrder{17, "1 EUR"})
		h.Drain(t)
	})
	says(t, said, "not done after 1s", "attempt 1 gave it back: given back by its handler: not mine")
}

// Decide is what the library would do.
func TestDecide(t *testing.T) {
	t.Parallel()
	fault := errors.New("fault")
	retry := func(d time.Duration) sqlq.Decision { return sqlq.Decision{Outcome: sqlq.OutcomeRetry, Delay: d} }
	own := sqlq.RetryPolicy{Decide: func(attempt int, err error) sqlq.Decision {
		if errors.Is(err, context.DeadlineExceeded) {
			return sqlq.Decision{Outcome: sqlq.OutcomeWait, Delay: time.Minute}
		}
		return sqlq.Decision{}
	}}
	for _, c := range []struct {
		policy  sqlq.RetryPolicy
		attempt int
		err     error
		want    sqlq.Decision
	}{
		{sqlq.RetryPolicy{}, 1, nil, sqlq.Decision{Outcome: sqlq.OutcomeComplete}},
		{sqlq.RetryPolicy{}, 1, fault, retry(0)},
		{sqlq.RetryPolicy{}, 3, fault, retry(2 * time.Second)},
		{sqlq.RetryPolicy{}, 15, fault, sqlq.Decision{Outcome: sqlq.OutcomeFail}},
		{sqlq.RetryPolicy{Unlimited: true}, 3_000, fault, retry(16 * time.Second)},
		{sqlq.RetryPolicy{}, 1, sqlq.Unrecoverable(fault), sqlq.Decision{Outcome: sqlq.OutcomeFail}},
		{sqlq.RetryPolicy{}, 15, sqlq.GiveBack(time.Minute, ""), sqlq.Decision{Outcome: sqlq.OutcomeWait, Delay: time.Minute}},
		{own, 15, context.DeadlineExceeded, sqlq.Decision{Outcome: sqlq.OutcomeWait, Delay: time.Minute}},
		{own, 15, fault, sqlq.Decision{Outcome: sqlq.OutcomeFail}},
	} {
		if got := sqlqtest.Decide(t, c.policy, c.attempt, c.err); got != c.want {
			t.Errorf("attempt %d, %v: %+v, want %+v", c.attempt, c.err, got, c.want)
		}
	}
	for want, policy := range map[string]sqlq.RetryPolicy{
		"RetryPolicy.Jitter is 2":       {Jitter: 2},
		"RetryPolicy.Decide: panic: oh": {Decide: func(int, error) sqlq.Decision { panic("oh") }},
		"RetryPolicy.Decide: it chose":  {Decide: func(int, error) sqlq.Decision { return sqlq.Decision{Outcome: "later"} }},
	} {
		says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.Decide(t, policy, 1, fault) }), want)
	}
}
