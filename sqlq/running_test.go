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
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// onPosted returns an endpoint that handles posted events by f; any number of endpoints may.
func onPosted(name string, f func(ctx context.Context, d *sqlq.Delivery[posted]) error) sqlq.Endpoint {
	return sqlq.Endpoint{Name: name, Concurrency: 4, Retry: noRetry, Handlers: []sqlq.Handler{sqlq.Handle(f)}}
}

// start starts an endpoint, and stops it at the end of the test if it runs then.
func start(t testing.TB, c *sqlq.Client, e sqlq.Endpoint) *sqlq.Running {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := c.Start(ctx, e)
	if err != nil {
		t.Fatalf("start %s: %v", e.Name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = r.Stop(ctx)
	})
	return r
}

func stopRunning(t testing.TB, r *sqlq.Running) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	select {
	case <-r.Done():
	default:
		t.Error("stopped, and not done")
	}
}

// ownConnections counts what the library has of the database's connections, besides those of the pool.
func ownConnections(t testing.TB, pool *pgxpool.Pool) int {
	t.Helper()
	return count(t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'sqlq %'`)
}

// Endpoints come and go beside those of Run, on the same connections: one that has stopped receives nothing any more and has ended in
// order, its name can be started again, and the last takes the connections along.
func TestStartAndStop(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	var said logged
	c := open(t, pool, sqlq.Config{ReceiveConnections: 2, Logger: said.logger()})
	var steady atomic.Int64
	stop := run(t, c, onPosted("steady", func(context.Context, *sqlq.Delivery[posted]) error { steady.Add(1); return nil }))
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance`)
	eventually(t, "it listens", func() (bool, string) { return c.Stats().Listening, "" })
	const listener = `SELECT coalesce(min(pid), 0) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sqlq listen'`
	listens := count(t, pool, listener)
	var handled atomic.Int64
	e := sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { handled.Add(1); return nil })}}
	for round := range 4 {
		r := start(t, c, e)
		if _, err := c.Start(t.Context(), e); !errors.Is(err, sqlq.ErrAlreadyRunning) {
			t.Errorf("started twice: %v, want ErrAlreadyRunning", err)
		}
		names := func() (names []string) {
			for _, e := range c.Stats().Endpoints {
				names = append(names, e.Name)
			}
			return names
		}
		if got := names(); !slices.Equal(got, []string{"steady", "post"}) {
			t.Errorf("Stats has %v", got)
		}
		eventually(t, "it is notified", func() (bool, string) {
			s := c.Stats()
			return len(s.Endpoints) == 2 && s.Endpoints[1].Waits == sqlq.Notified, fmt.Sprintf("%+v", s)
		})
		if err := c.Send(t.Context(), letter{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "handled", func() (bool, string) { n := handled.Load(); return n == int64(2*round+1), fmt.Sprint(n) })
		stopRunning(t, r)
		if got := names(); !slices.Equal(got, []string{"steady"}) {
			t.Errorf("Stats has %v", got)
		}
		if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE endpoint = 'post' AND drained_at IS NULL`); n != 0 {
			t.Errorf("%d instances of what was stopped have not ended in order", n)
		}
		if err := c.Send(t.Context(), letter{}); err != nil { // the next round handles it
			t.Fatal(err)
		}
		if err := c.Publish(t.Context(), posted{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other goes on", func() (bool, string) { n := steady.Load(); return n == int64(round+1), fmt.Sprint(n) })
		if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post`); n != 1 {
			t.Errorf("%d messages wait while nobody runs the endpoint", n)
		}
	}
	eventuallyCount(t, pool, 2, watchersOf) // those of the endpoint that goes on
	if n := count(t, pool, listener); n != listens {
		t.Error("the listening connection was made anew")
	}
	if n := ownConnections(t, pool); n > 4 {
		t.Errorf("%d connections, want 2 that receive, one that listens, one that keeps house", n)
	}
	stop()
	r := start(t, c, e) // the machinery begins anew
	eventually(t, "handled", func() (bool, string) { n := handled.Load(); return n == 8, fmt.Sprint(n) })
	stopRunning(t, r)
	stopRunning(t, r) // again
	eventually(t, "no connection is left", func() (bool, string) { n := ownConnections(t, pool); return n == 0, fmt.Sprint(n) })
	if n := count(t, pool, `SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND datname = current_database()`); n != 0 {
		t.Errorf("%d advisory locks are left", n)
	}
	if text := said.all(); text != "" {
		t.Errorf("it complains:\n%s", text)
	}
}

// What cannot be started leaves nothing behind: no instance, no name, no connection.
func TestStartRefuses(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	admin := pool
	c := open(t, pool, sqlq.Config{})
	nothing := func(what string) {
		t.Helper()
		if n := len(c.Stats().Endpoints); n != 0 {
			t.Errorf("%s: %d endpoints run", what, n)
		}
		if n := count(t, admin, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`); n != 0 {
			t.Errorf("%s: %d instances", what, n)
		}
	}
	if _, err := c.Start(t.Context(), sqlq.Endpoint{Name: "post"}); !errors.Is(err, sqlq.ErrInvalidEndpoint) {
		t.Errorf("without a handler: %v, want ErrInvalidEndpoint", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Start(ended, receiveLetters("post")); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	nothing("refused")

	execSQL(t, admin, `SELECT sqlq.create_queue('hidden')`)
	limited := asRole(t, pool.Config().ConnString(), ``)
	execSQL(t, admin, `ALTER TABLE sqlq.q_hidden ENABLE ROW LEVEL SECURITY`)
	l := open(t, limited, sqlq.Config{})
	if _, err := l.Start(t.Context(), receiveLetters("hidden")); !errors.Is(err, sqlq.ErrHidden) {
		t.Errorf("a queue that is hidden: %v, want ErrHidden", err)
	}
	nothing("its queue is hidden")
	if n := ownConnections(t, admin); n != 0 {
		t.Errorf("%d connections", n)
	}

	execSQL(t, admin, `ALTER TABLE sqlq.q_hidden DISABLE ROW LEVEL SECURITY`)
	r := start(t, l, receiveLetters("hidden"))
	if _, err := l.Start(t.Context(), receiveLetters("other")); !errors.Is(err, sqlq.ErrInvalidEndpoint) {
		t.Errorf("a command that a running endpoint handles: %v, want ErrInvalidEndpoint", err)
	}
	execSQL(t, admin, `SELECT sqlq.create_queue('post')`)
	execSQL(t, admin, `ALTER TABLE sqlq.q_post ENABLE ROW LEVEL SECURITY`)
	if _, err := l.Start(t.Context(), onPosted("post", func(context.Context, *sqlq.Delivery[posted]) error { return nil })); err == nil {
		t.Error("a queue that is hidden is started beside others")
	}
	if n := len(l.Stats().Endpoints); n != 1 {
		t.Errorf("%d endpoints run, want the one that did", n)
	}
	stopRunning(t, r)
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := l.Start(t.Context(), receiveLetters("hidden")); !errors.Is(err, sqlq.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	nothing("closed")
}

// Of many that start an endpoint at the same time one succeeds, and so it goes on when it has stopped.
func TestStartAtTheSameTime(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	for range 5 {
		var started, refused atomic.Int64
		var all sync.WaitGroup
		var r atomic.Pointer[sqlq.Running]
		for range 8 {
			all.Go(func() {
				one, err := c.Start(t.Context(), receiveLetters("post"))
				switch {
				case err == nil:
					started.Add(1)
					r.Store(one)
				case errors.Is(err, sqlq.ErrAlreadyRunning):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if started.Load() != 1 || refused.Load() != 7 {
			t.Fatalf("%d have started it, %d were refused", started.Load(), refused.Load())
		}
		stopRunning(t, r.Load())
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`); n != 0 {
		t.Errorf("%d instances have not ended", n)
	}
}

// A Stop whose context ends cuts the drain of that endpoint short, and of no other.
func TestStopCutsTheDrainShort(t *testing.T) {
	t.Parallel()
	for _, inTx := range []bool{false, true} {
		t.Run(map[bool]string{false: "Handle", true: "HandleTx"}[inTx], func(t *testing.T) {
			t.Parallel()
			s := newDrainSite(t, sqlq.Config{HoldLimit: 10 * time.Millisecond, DrainTimeout: time.Hour})
			var others atomic.Int64
			other := start(t, s.here, onPosted("other", func(context.Context, *sqlq.Delivery[posted]) error { others.Add(1); return nil }))
			r := start(t, s.here, s.endpoint("here", 2, inTx, true))
			s.send(t, -2, 0)
			s.await(t, 0, 0, 2)
			ctx, cancel := context.WithCancel(t.Context())
			stopped := make(chan error, 1)
			go func() { stopped <- r.Stop(ctx) }()
			if err := s.here.Publish(t.Context(), posted{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the other handles", func() (bool, string) { return others.Load() == 1, "" })
			select {
			case err := <-stopped:
				t.Fatalf("Stop did not wait for the handlers: %v", err)
			default:
			}
			cancel()
			select {
			case err := <-stopped:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Stop: %v, want the context's error", err)
				}
			case <-time.After(patience):
				t.Fatal("Stop goes on")
			}
			if n := count(t, s.pool, `SELECT count(*) FROM sqlq.q_post WHERE attempt = 0`); n != 2 {
				t.Errorf("%d messages went back unspent, want 2", n)
			}
			if err := s.here.Publish(t.Context(), posted{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the other handles", func() (bool, string) { return others.Load() == 2, "" })
			close(s.release)
			stopRunning(t, other)
		})
	}
}

// A handler that stops its own endpoint waits for itself, and for no longer than its context or the drain allows.
func TestHandlerStopsItsOwnEndpoint(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	for _, inTx := range []bool{false, true} {
		t.Run(map[bool]string{false: "Handle", true: "HandleTx"}[inTx], func(t *testing.T) {
			t.Parallel()
			c := open(t, pool, sqlq.Config{DrainTimeout: 100 * time.Millisecond, HoldLimit: 10 * time.Millisecond})
			name := map[bool]string{false: "plain", true: "tx"}[inTx]
			var own atomic.Pointer[sqlq.Running]
			returned := make(chan error, 1)
			stop := func(ctx context.Context) error {
				if r := own.Load(); r != nil {
					returned <- r.Stop(ctx)
				}
				return nil
			}
			e := sqlq.Endpoint{Name: name, Handlers: []sqlq.Handler{sqlq.HandleRaw(name, func(ctx context.Context, _ *sqlq.Delivery[sqlq.Raw]) error { return stop(ctx) })}}
			if inTx {
				e.Handlers[0] = sqlq.HandleRawTx(name, func(ctx context.Context, _ pgx.Tx, _ *sqlq.Delivery[sqlq.Raw]) error { return stop(ctx) })
			}
			r := start(t, c, e)
			own.Store(r)
			if err := c.Send(t.Context(), sqlq.Raw{Type: name, Body: []byte("{}")}, sqlq.To(name)); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-returned:
				t.Logf("Stop returned %v", err)
			case <-time.After(patience):
				t.Fatal("the handler waits for itself")
			}
			select {
			case <-r.Done():
			case <-time.After(patience):
				t.Fatal("the endpoint goes on")
			}
		})
	}
}
