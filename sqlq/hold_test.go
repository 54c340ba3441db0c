package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// chore is a command whose handler does as it says.
type chore struct {
	N    int
	Do   string
	Pad  string
	Slow bool
}

func (chore) MessageType() string { return "house.Chore" }

var choreRoute = map[string]string{"house.Chore": "house", "ledger.Entry": "ledger"}

func chores(do func(ctx context.Context, d *sqlq.Delivery[chore]) error) []sqlq.Handler {
	return []sqlq.Handler{sqlq.Handle(do)}
}

// A slow message is leased at the hold limit; its neighbours are settled while it runs, and it once it ends.
func TestSlowMessageIsLeasedAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	var ms []sqlq.Message
	for i := range 10 {
		ms = append(ms, chore{N: i, Slow: i == 4})
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	finish := make(chan struct{})
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 10, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		if d.Message.Slow {
			<-finish
		}
		return nil
	})})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased WHERE queue = 'house' AND attempt = 0 AND instance IN (SELECT id FROM sqlq.instance)`)
	close(finish)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.leased`)
	stop()
	if got := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL AND crashed_at IS NULL`); got != 1 {
		t.Errorf("%d instances drained in order, want 1", got)
	}
}

// With a single receive connection, held by a batch with a message that does not end, others still get their turn: of
// the same endpoint, because slots stand idle, and of another one.
func TestHeldBatchIsCutForIdleSlots(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute, ReceiveConnections: 1, HoldLimit: 5 * time.Second})
	finish := make(chan struct{})
	handled := make(chan int, 10)
	stop := run(t, c,
		sqlq.Endpoint{Name: "house", Concurrency: 3, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
			if d.Message.Slow {
				<-finish
			}
			handled <- d.Message.N
			return nil
		})},
		sqlq.Endpoint{Name: "ledger", Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[entry]) error {
			handled <- d.Message.N
			return nil
		})}})
	if err := c.Send(t.Context(), chore{N: 1, Slow: true}); err != nil {
		t.Fatal(err)
	}
	// It is held, or has been leased already, because the other endpoint asked for the connection.
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM (SELECT FROM pg_locks WHERE relation = 'sqlq.q_house'::regclass AND mode = 'RowShareLock' UNION ALL SELECT FROM sqlq.leased LIMIT 1) in_hand`)
	for n, m := range []sqlq.Message{chore{N: 0}, entry{N: 1}} {
		if err := c.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-handled:
			if got != n {
				t.Errorf("handled %d, want %d", got, n)
			}
		case <-time.After(4 * time.Second): // less than the hold limit
			t.Fatalf("message %d waits for the slow one", n)
		}
	}
	close(finish)
	<-handled
	stop()
}

// Retries: at once, then delayed with the attempt and the error written down, then the error table.
func TestRetriesThenErrorTable(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	var calls atomic.Int32
	stop := run(t, c, sqlq.Endpoint{Name: "house", Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{300 * time.Millisecond, time.Millisecond}},
		Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
			calls.Add(1)
			return fmt.Errorf("broom %d is broken", d.Attempt)
		})})
	if err := c.Send(t.Context(), chore{N: 1}, sqlq.WithHeader("room", "kitchen")); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.delayed WHERE why = 'retry' AND attempt = 2 AND error = 'broom 2 is broken'`)
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error WHERE attempts = 6 AND message = 'broom 6 is broken' AND first_failed_at < failed_at
		AND headers::text = '{"room":"kitchen"}' AND replays = 0 AND endpoint = 'house' AND queue = 'house' AND status = 'failed'`)
	stop()
	if calls.Load() != 6 {
		t.Errorf("handler was called %d times, want 6", calls.Load())
	}
}

func TestRetryAfterNamesTheTime(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	stop := run(t, c, sqlq.Endpoint{Name: "house", Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		if d.Attempt == 1 {
			return sqlq.RetryAfter(time.Hour, errors.New("shop is closed"))
		}
		return nil
	})})
	if err := c.Send(t.Context(), chore{}); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.delayed WHERE due_at BETWEEN now() + interval '59 minutes' AND now() + interval '1 hour' AND attempt = 1`)
	execSQL(t, pool, `UPDATE sqlq.delayed SET due_at = now()`)
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.error)`)
	stop()
}

// When everything fails, the endpoint does not race through its queue into the error table.
func TestFailuresInARowSlowTheEndpointDown(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	var ms []sqlq.Message
	for i := range 500 {
		ms = append(ms, chore{N: i})
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	broken.Store(true)
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 4, Retry: noRetry, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		if broken.Load() {
			return errors.New("no water")
		}
		return nil
	})})
	// 10 failures open it, 4 slots may be over the line, and the probes after it take ever longer.
	eventually(t, "some failed", func() (bool, string) {
		n := count(t, pool, `SELECT count(*) FROM sqlq.error`)
		return n >= 12, fmt.Sprint(n, " failed")
	})
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); n < 450 {
		t.Errorf("only %d messages wait, the others went to the error table although all fail", n)
	}
	broken.Store(false)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	stop()
	if n := count(t, pool, `SELECT count(*) FROM sqlq.error`); n > 50 {
		t.Errorf("%d messages failed", n)
	}
}

// Bodies beyond what a fetch carries at once are loaded one by one, and bounded together.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	sizes := []int{0, 1 << 10, 40 << 10, 300 << 10, 3 << 20, 9 << 20, 10 << 20, 1 << 10, 5 << 20, 2 << 20}
	var ms []sqlq.Message
	for i, size := range sizes {
		ms = append(ms, chore{N: i, Pad: strings.Repeat("x", size)})
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	var right atomic.Int32
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 10, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		if len(d.Message.Pad) != sizes[d.Message.N] {
			return fmt.Errorf("message %d has %d bytes, want %d", d.Message.N, len(d.Message.Pad), sizes[d.Message.N])
		}
		right.Add(1)
		return nil
	})})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	stop()
	if int(right.Load()) != len(sizes) || count(t, pool, `SELECT count(*) FROM sqlq.error`) != 0 {
		t.Errorf("%d of %d messages came whole", right.Load(), len(sizes))
	}
}

// What a handler sends to a queue that is gone fails its own message and nobody else's.
func TestSendToAMissingQueueFailsOnlyTheSender(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	var ms []sqlq.Message
	for i := range 20 {
		ms = append(ms, chore{N: i})
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	stop := run(t, c, sqlq.Endpoint{Name: "house", Retry: noRetry, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		if d.Message.N == 7 {
			return d.Send(chore{N: 100}, sqlq.To("nowhere"))
		}
		return nil
	})})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	stop()
	if got := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE message LIKE '%q_nowhere%'`); got != 1 || count(t, pool, `SELECT count(*) FROM sqlq.error`) != 1 {
		t.Errorf("%d messages failed for the missing queue, want 1, and no other", got)
	}
}

// A queue that is dropped and made again under a running endpoint is received from again.
func TestQueueDroppedAndMadeAgain(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	handled := make(chan int, 1)
	stop := run(t, c, sqlq.Endpoint{Name: "house", Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		handled <- d.Message.N
		return nil
	})})
	for n := range 3 {
		if err := c.Send(t.Context(), chore{N: n}); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-handled:
			if got != n {
				t.Fatalf("handled %d, want %d", got, n)
			}
		case <-time.After(patience):
			t.Fatalf("message %d was not handled", n)
		}
		eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
		execSQL(t, pool, `SELECT sqlq.drop_queue('house', true)`)
		execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	}
	stop()
}

// What a handler sends for later is part of its settle, like everything it sends.
func TestHandlersSendDelayedMessages(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	if err := c.SendMany(t.Context(), []sqlq.Message{chore{N: 1}, chore{N: 2, Do: "fail"}}); err != nil {
		t.Fatal(err)
	}
	stop := run(t, c, sqlq.Endpoint{Name: "house", Retry: noRetry, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		if err := d.Send(entry{N: d.Message.N}, sqlq.Delay(time.Hour)); err != nil {
			return err
		}
		if d.Message.Do == "fail" {
			return errors.New("failed after sending")
		}
		return nil
	})})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	stop()
	if got := count(t, pool, `SELECT count(*) FROM sqlq.delayed WHERE queue = 'ledger' AND why = 'delay' AND convert_from(body, 'UTF8')::jsonb->>'N' = '1' AND headers->>'sqlq-conversation-id' IS NOT NULL`); got != 1 || count(t, pool, `SELECT count(*) FROM sqlq.delayed`) != 1 {
		t.Errorf("%d delayed messages as meant, %d in all; want 1", got, count(t, pool, `SELECT count(*) FROM sqlq.delayed`))
	}
}

// Messages that nobody understands say nothing about the endpoint's health: they neither slow it down nor block others.
func TestUnknownMessagesDoNotSlowTheEndpointDown(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	execSQL(t, pool, `SELECT sqlq.send('house', 'x.Unknown', '{}') FROM generate_series(1, 300)`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 4, UnknownWait: -1, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error { return nil })})
	if err := c.Send(t.Context(), chore{}); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	eventuallyCount(t, pool, 300, `SELECT count(*) FROM sqlq.error WHERE attempts = 1`)
	stop()
}

type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

// A nil pointer in an error is an error that cannot even be printed.
func TestErrorThatCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	stop := run(t, c, sqlq.Endpoint{Name: "house", Retry: noRetry, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		var e *brokenError
		return e
	})})
	if err := c.Send(t.Context(), chore{}); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error WHERE stack LIKE '%brokenError%'`)
	stop()
}

// Prepare makes what a message needs, so that it can be sent before Run runs.
func TestPrepareBeforeRun(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	house := sqlq.Endpoint{Name: "house", Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error { return nil })}
	if err := c.Send(t.Context(), chore{}); !errors.Is(err, sqlq.ErrNoRoute) {
		t.Fatalf("before Prepare: %v", err)
	}
	if err := c.Prepare(t.Context(), house); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), chore{}); err != nil {
		t.Fatal(err)
	}
	if got := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); got != 1 {
		t.Errorf("%d messages wait, want 1", got)
	}
	if err := c.Prepare(t.Context(), sqlq.Endpoint{Name: "house"}); !errors.Is(err, sqlq.ErrInvalidEndpoint) {
		t.Errorf("an endpoint without handlers: %v", err)
	}
}

// A deferred message needs its queue like any other.
func TestDelayedToAMissingQueue(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	if err := c.Send(t.Context(), chore{}, sqlq.To("nowhere"), sqlq.Delay(time.Hour)); !errors.Is(err, sqlq.ErrNoQueue) {
		t.Errorf("got %v, want ErrNoQueue", err)
	}
}

// The key and the sequence of one queue do not take the name of another.
func TestQueueNamesDoNotCollide(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	for _, name := range []string{"x", "x_pkey", "x_seq_seq", "x_seq", "k_x", "s_x"} {
		execSQL(t, pool, `SELECT sqlq.create_queue($1)`, name)
		execSQL(t, pool, `SELECT sqlq.send($1, 'a', '{}')`, name)
	}
}

// A commit that leased a message may be lost on its way back: then the message is leased in the name of a process that
// lives and knows nothing of it.
func TestLeaseThatNobodyKnowsGoesBack(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute, LeaseTime: 3 * time.Second})
	handled := make(chan int, 10)
	stop := run(t, c, sqlq.Endpoint{Name: "house", Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		handled <- d.Message.N
		return nil
	})})
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance`)
	execSQL(t, pool, `INSERT INTO sqlq.leased (instance, queue, seq, leased_at, id, sent_at, attempt, type, body)
		SELECT id, 'house', 1, now() - interval '2 minutes', gen_random_uuid(), now(), 0, 'house.Chore', '{"N":5}' FROM sqlq.instance`)
	select {
	case n := <-handled:
		if n != 5 {
			t.Errorf("handled %d", n)
		}
	case <-time.After(patience):
		t.Fatal("the message stays leased")
	}
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.leased`)
	stop()
}
