package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// Slow HandleTx handlers of one endpoint have connections for as long as they run, and never those that another one's messages
// wait for, whether its handlers want one for themselves or not.
func TestSlowHandleTxKeepsNoOtherWaiting(t *testing.T) {
	t.Parallel()
	for name, inTx := range map[string]bool{"beside HandleTx": true, "beside Handle": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			c := open(t, pool, sqlq.Config{})
			const slowFor, messages = 5 * time.Second, 60
			var running atomic.Int64
			start(t, c, sqlq.Endpoint{Name: "slow", Handlers: []sqlq.Handler{
				sqlq.HandleRawTx("slow", func(ctx context.Context, tx pgx.Tx, _ *sqlq.Delivery[sqlq.Raw]) error {
					running.Add(1)
					defer running.Add(-1)
					if _, err := tx.Exec(ctx, `SELECT 1`); err != nil {
						return err
					}
					select {
					case <-time.After(slowFor):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})}})
			handled := make(chan int, messages)
			took := func(_ context.Context, d *sqlq.Delivery[letter]) error { handled <- d.Message.N; return nil }
			fast := sqlq.Endpoint{Name: "fast", Handlers: []sqlq.Handler{sqlq.Handle(took)}}
			if inTx {
				fast.Handlers[0] = sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[letter]) error {
					if _, err := tx.Exec(ctx, `SELECT 1`); err != nil {
						return err
					}
					return took(ctx, d)
				})
			}
			start(t, c, fast)
			slow := make([]sqlq.Message, 20)
			for i := range slow {
				slow[i] = sqlq.Raw{Type: "slow", Body: []byte("{}")}
			}
			if err := c.SendMany(t.Context(), slow, sqlq.To("slow")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "slow handlers run", func() (bool, string) { return running.Load() >= 2, fmt.Sprint(running.Load()) })
			var delays []time.Duration
			for n := range messages {
				began := time.Now()
				if err := c.Send(t.Context(), letter{N: n}); err != nil {
					t.Fatal(err)
				}
				select {
				case <-handled:
				case <-time.After(patience):
					t.Fatal("a message of the fast endpoint is not handled")
				}
				delays = append(delays, time.Since(began))
			}
			slices.Sort(delays)
			p99 := delays[len(delays)*99/100]
			t.Logf("with %d slow handlers: median %v, p99 %v", running.Load(), delays[len(delays)/2], p99)
			if p99 > 2*time.Second { // a busy machine's; it would be near 5 s
				t.Errorf("a message waits %v", p99)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = c.Close(ctx) // the slow ones are not waited for
		})
	}
}

// An endpoint that is started while another one's slow HandleTx handlers have all connections does not wait for them, and neither
// does one whose neighbour's handlers were quick until now.
func TestStartBesideSlowHandleTx(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{true, false} {
		t.Run(map[bool]string{true: "started late", false: "slow of a sudden"}[late], func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			c := open(t, pool, sqlq.Config{ReceiveConnections: 2})
			release := make(chan struct{})
			var running atomic.Int64
			slow := start(t, c, sqlq.Endpoint{Name: "slow", Handlers: []sqlq.Handler{
				sqlq.HandleRawTx("slow", func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[sqlq.Raw]) error {
					if string(d.Message.Body) == "true" {
						running.Add(1)
						<-release
					}
					return nil
				})}})
			handled := make(chan struct{}, 1)
			startFast := func() *sqlq.Running {
				return start(t, c, sqlq.Endpoint{Name: "fast", Handlers: []sqlq.Handler{
					sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[letter]) error { handled <- struct{}{}; return nil })}})
			}
			sendSlow := func(n int, slow string) {
				t.Helper()
				if err := c.SendMany(t.Context(), slices.Repeat([]sqlq.Message{sqlq.Raw{Type: "slow", Body: []byte(slow)}}, n), sqlq.To("slow")); err != nil {
					t.Fatal(err)
				}
			}
			fast := func() {
				t.Helper()
				if err := c.Send(t.Context(), letter{}, sqlq.To("fast")); err != nil {
					t.Fatal(err)
				}
				select {
				case <-handled:
				case <-time.After(patience):
					t.Fatalf("it waits for the %d slow ones", running.Load())
				}
			}
			var other *sqlq.Running
			if late {
				sendSlow(50, "true")
				eventually(t, "slow handlers have all connections", func() (bool, string) { return running.Load() == 2, "" })
				other = startFast()
			} else {
				other = startFast()
				fast()
				sendSlow(1000, "false")
				sendSlow(50, "true")
				eventually(t, "slow handlers run", func() (bool, string) { return running.Load() > 0, "" })
			}
			for range 3 {
				fast()
			}
			close(release)
			stopRunning(t, slow)
			stopRunning(t, other)
		})
	}
}

// A HandleTx handler that does not end when its endpoint is stopped does not keep its connection from others: another receiver takes
// its place.
func TestStoppedHandleTxThatIgnoresItsEnd(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{ReceiveConnections: 1, DrainTimeout: time.Millisecond})
	release, began := make(chan struct{}), make(chan struct{}, 1)
	r := start(t, c, sqlq.Endpoint{Name: "stuck", Handlers: []sqlq.Handler{
		sqlq.HandleRawTx("stuck", func(context.Context, pgx.Tx, *sqlq.Delivery[sqlq.Raw]) error {
			began <- struct{}{}
			<-release
			return nil
		})}})
	var others atomic.Int64
	other := start(t, c, onPosted("other", func(context.Context, *sqlq.Delivery[posted]) error { others.Add(1); return nil }))
	if err := c.Send(t.Context(), sqlq.Raw{Type: "stuck", Body: []byte("{}")}, sqlq.To("stuck")); err != nil {
		t.Fatal(err)
	}
	<-began
	stopRunning(t, r)
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.q_stuck WHERE attempt = 0`)
	for n := range 3 {
		if err := c.Publish(t.Context(), posted{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other handles", func() (bool, string) { return others.Load() == int64(n+1), "" })
	}
	close(release)
	again := start(t, c, sqlq.Endpoint{Name: "stuck", Handlers: []sqlq.Handler{
		sqlq.HandleRawTx("stuck", func(context.Context, pgx.Tx, *sqlq.Delivery[sqlq.Raw]) error { return nil })}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_stuck`)
	stopRunning(t, again)
	stopRunning(t, other)
}

// When an endpoint is stopped another process takes its messages over at once, those included that it has not begun.
func TestStoppedEndpointIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newDrainSite(t, sqlq.Config{})
	keeps := start(t, s.here, onPosted("keeps", func(context.Context, *sqlq.Delivery[posted]) error { return nil }))
	r := start(t, s.here, s.endpoint("here", 2, false, false))
	s.asleep(t, 1)
	there := start(t, s.there, s.endpoint("there", 2, false, false))
	eventuallyCount(t, s.pool, 3, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`)
	s.send(t, 0, 10)
	eventually(t, "handled", func() (bool, string) {
		here, there, _ := s.seen()
		return here+there == 10, fmt.Sprint(here, there)
	})
	stopRunning(t, r)
	_, had, _ := s.seen()
	s.send(t, 0, 10)
	eventually(t, "the other process handles", func() (bool, string) {
		_, there, _ := s.seen()
		return there == had+10, fmt.Sprint(there)
	})
	stopRunning(t, there)
	stopRunning(t, keeps)
}

// A message whose handler is cancelled by the end of its endpoint while its row is held is free with the commit, and another process,
// which has seen that it was held and sleeps, is woken for it.
func TestHeldMessageOfAStoppedEndpointIsTakenOver(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	config := sqlq.Config{HoldLimit: 5 * time.Second, Routes: map[string]string{letter{}.MessageType(): "post"}}
	here, there := open(t, pool, config), open(t, pool, config)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `CREATE FUNCTION settle_waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN OLD; END $$`)
	execSQL(t, pool, `CREATE TRIGGER settle_waits BEFORE DELETE ON sqlq.q_post FOR EACH ROW WHEN (OLD.seq = 1) EXECUTE FUNCTION settle_waits()`)
	slow := begin(t, pool)
	execTx(t, slow, `SELECT pg_advisory_xact_lock(4711)`)
	begun, ended, handled := make(chan struct{}, 2), make(chan struct{}, 1), make(chan struct{}, 1)
	var first atomic.Bool
	r := start(t, here, sqlq.Endpoint{Name: "post", Concurrency: 2, Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, _ *sqlq.Delivery[letter]) error {
		begun <- struct{}{}
		if first.CompareAndSwap(false, true) {
			return nil // its settle waits
		}
		<-ctx.Done()
		ended <- struct{}{}
		return ctx.Err()
	})}})
	hurry, cancel := context.WithCancel(t.Context())
	cancel()
	stopped := make(chan error, 1)
	go func() { // at once: a batch that has just come is held for a moment, so what goes back has not been leased
		<-begun
		<-begun
		stopped <- r.Stop(hurry)
	}()
	if err := here.SendMany(t.Context(), []sqlq.Message{letter{}, letter{}}); err != nil {
		t.Fatal(err)
	}
	<-ended
	other := start(t, there, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error {
		handled <- struct{}{}
		return nil
	})}})
	eventually(t, "the other process sleeps", func() (bool, string) { n := asleep(t, pool, "sqlq", "post"); return n == 1, fmt.Sprint(n) })
	<-time.After(200 * time.Millisecond) // and has seen that there is nothing to fetch
	if err := slow.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Stop: %v", err)
	}
	select {
	case <-handled:
	case <-time.After(15 * time.Second): // a poll would find it after 30
		t.Error("the other process was not woken")
	}
	stopRunning(t, other)
}

// SetConcurrency has more or fewer messages handled at a time, from now on.
func TestSetConcurrency(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{HoldLimit: 10 * time.Millisecond})
	var mu sync.Mutex
	running, most := 0, 0
	step := make(chan struct{})
	e := sqlq.Endpoint{Name: "post", Concurrency: 1, Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		<-step
		mu.Lock()
		running--
		mu.Unlock()
		return nil
	})}}
	r := start(t, c, e)
	runs := func(want int) {
		t.Helper()
		eventually(t, "as many run as may", func() (bool, string) {
			mu.Lock()
			defer mu.Unlock()
			return running == want, fmt.Sprint(running)
		})
	}
	if err := c.SendMany(t.Context(), slices.Repeat([]sqlq.Message{letter{}}, 40)); err != nil {
		t.Fatal(err)
	}
	runs(1)
	for _, n := range []int{0, -1, 10_001} {
		if err := r.SetConcurrency(n); !errors.Is(err, sqlq.ErrInvalidEndpoint) {
			t.Errorf("SetConcurrency(%d): %v, want ErrInvalidEndpoint", n, err)
		}
	}
	set := func(n int) {
		t.Helper()
		if err := r.SetConcurrency(n); err != nil {
			t.Fatal(err)
		}
	}
	set(6)
	runs(6)
	set(2)
	for range 4 {
		step <- struct{}{}
	}
	runs(2)
	mu.Lock()
	most = 0
	mu.Unlock()
	for range 10 {
		step <- struct{}{}
	}
	runs(2)
	mu.Lock()
	if most > 2 {
		t.Errorf("%d ran at a time, after it was set to 2", most)
	}
	mu.Unlock()
	set(30)
	close(step)
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased)`)
	stopRunning(t, r)
	set(5) // has no effect any more
}

// Close ends what Start has taken up, and what it is about to; no goroutine and no connection is left.
func TestCloseWhileEndpointsStart(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	for range 5 {
		c := open(t, pool, sqlq.Config{ReceiveConnections: 1})
		first := start(t, c, onPosted("first", func(context.Context, *sqlq.Delivery[posted]) error { return nil }))
		var all sync.WaitGroup
		closing := make(chan struct{})
		for i := range 6 {
			all.Go(func() {
				name := fmt.Sprint("e", i)
				for n := 0; ; n++ {
					r, err := c.Start(t.Context(), onPosted(name, func(context.Context, *sqlq.Delivery[posted]) error { return nil }))
					if errors.Is(err, sqlq.ErrClosed) {
						return
					}
					if err != nil {
						t.Errorf("start: %v", err)
						return
					}
					if n == 1 && i == 0 {
						close(closing)
					}
					stopRunning(t, r)
				}
			})
		}
		<-closing
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		select {
		case <-first.Done():
		default:
			t.Error("Close did not wait for an endpoint")
		}
		all.Wait()
		if n := len(c.Stats().Endpoints); n != 0 {
			t.Errorf("%d endpoints run", n)
		}
		if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`); n != 0 {
			t.Errorf("%d instances have not ended in order", n)
		}
		eventually(t, "no connection is left", func() (bool, string) { n := ownConnections(t, pool); return n == 0, fmt.Sprint(n) })
	}
}
