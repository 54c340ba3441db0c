package sqlq_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/sqlq"
)

// Endpoints come and go while the library's connections are lost one after the other: all that was sent is handled, and what was
// stopped has ended in order.
func TestEndpointsComeAndGoWhileConnectionsAreLost(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{ReceiveConnections: 2})
	var handled atomic.Int64
	count1 := func(context.Context, *sqlq.Delivery[posted]) error { handled.Add(1); return nil }
	start(t, c, onPosted("steady", count1))
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			purpose := []string{"keep", "listen", "receive"}[n%3]
			execSQL(t, pool, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sqlq '||$1`, purpose)
			select {
			case <-time.After(20 * time.Millisecond):
			case <-done:
				return
			}
		}
	})
	var moving sync.WaitGroup
	for i := range 4 {
		moving.Go(func() {
			e := onPosted(fmt.Sprint("e", i), count1)
			for range 5 {
				r, err := c.Start(t.Context(), e)
				if err != nil {
					t.Errorf("start: %v", err)
					return
				}
				if _, err := pool.Exec(t.Context(), `SELECT sqlq.send($1, 'post.Posted', '{}')`, e.Name); err != nil {
					t.Error(err)
				}
				stopRunning(t, r)
			}
			start(t, c, e)
		})
	}
	moving.Wait()
	close(done)
	all.Wait()
	eventually(t, "all are handled", func() (bool, string) { n := handled.Load(); return n >= 20, fmt.Sprint(n) })
	eventuallyCount(t, pool, 5, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL AND crashed_at IS NULL`)
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`); n != 0 {
		t.Errorf("%d instances have not ended in order", n)
	}
	eventually(t, "no connection is left", func() (bool, string) { n := ownConnections(t, pool); return n == 0, fmt.Sprint(n) })
}

// Behind a transaction pooler, where nothing can listen, they come and go too.
func TestEndpointsComeAndGoBehindBouncer(t *testing.T) {
	t.Parallel()
	bouncer.Need(t)
	through, direct := behindBouncer(t, bouncer.Options{}, "default_query_exec_mode=exec")
	c := open(t, through, sqlq.Config{PollInterval: 20 * time.Millisecond})
	var handled atomic.Int64
	for round := range 3 {
		first := start(t, c, onPosted("first", func(context.Context, *sqlq.Delivery[posted]) error { handled.Add(1); return nil }))
		second := start(t, c, onPosted("second", func(context.Context, *sqlq.Delivery[posted]) error { handled.Add(1); return nil }))
		if err := c.Publish(t.Context(), posted{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both handle", func() (bool, string) { n := handled.Load(); return n == int64(2*round+2), fmt.Sprint(n) })
		stopRunning(t, second)
		stopRunning(t, first)
	}
	if n := count(t, direct, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`); n != 0 {
		t.Errorf("%d instances have not ended in order", n)
	}
}

// An endpoint that starts while an operator has its queue paused fetches nothing until it is resumed, and others go on.
func TestStartOnAPausedQueue(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	execSQL(t, pool, `SELECT sqlq.create_queue('paused')`)
	mark(t, pool, "paused", true, true)
	var others, handled atomic.Int64
	start(t, c, onPosted("other", func(context.Context, *sqlq.Delivery[posted]) error { others.Add(1); return nil }))
	start(t, c, onPosted("paused", func(context.Context, *sqlq.Delivery[posted]) error { handled.Add(1); return nil }))
	if s := c.Stats().Endpoints[1]; s.Waits != sqlq.Paused {
		t.Errorf("it is %s when it has started", s.Waits)
	}
	if err := c.Publish(t.Context(), posted{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other handles", func() (bool, string) { return others.Load() == 1, "" })
	if s := c.Stats().Endpoints[1]; s.Fetches != 0 || handled.Load() != 0 {
		t.Errorf("it has fetched: %+v", s)
	}
	mark(t, pool, "paused", false, true)
	eventually(t, "it handles when it is resumed", func() (bool, string) { return handled.Load() == 1, "" })
}
